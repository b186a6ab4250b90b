"""Wait until a sandbox is ready, stopped or destroyed, whoever sees to that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from sandboxer.errors import Conflict, Invalid
from sandboxer.extensions.base import CanStop
from sandboxer.manager.exec import lacks_capability
from sandboxer.manager.services import Services
from sandboxer.models import Sandbox
from sandboxer.state import State
from sandboxer.timing import Deadline

Prospect = Literal["reached", "not yet", "never"]

WAITED_FOR: Final = {
    "ready": frozenset({State.PROVISIONING, State.STOPPED}),
    "stopped": frozenset({State.PROVISIONING, State.READY}),
    "destroyed": frozenset(State) - {State.DESTROYED},
}
"""What can be waited for, and the stored states that may still lead there."""

_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0


def prospect(state: str, wanted: str) -> Prospect:
    """Whether a sandbox in a stored state is what is waited for, may become it, or never will. Pure."""
    if state == wanted:
        return "reached"
    return "not yet" if state in WAITED_FOR[wanted] else "never"


def wait_for(
    services: Services, sandbox_id: str, wanted: str, deadline: Deadline, sleep: Callable[[float], None]
) -> Sandbox:
    """Wait until the record says `wanted`; the record then. Asks no backend. Raises Invalid, Unsupported where its
    backend stops nothing, Conflict as soon as it cannot come any more, and Timeout."""
    if wanted not in WAITED_FOR:
        raise Invalid(f"{wanted[:40]!r} cannot be waited for", hint=f"give --for {', '.join(WAITED_FOR)}")
    record, pause = services.current(sandbox_id), _PAUSE
    while (found := prospect(record.state, wanted)) != "reached":
        if found == "never":
            raise _never(record, wanted)
        if wanted == State.STOPPED and not isinstance(services.extension(record), CanStop):
            raise lacks_capability(record, "stop")
        deadline.check(f"waiting for sandbox {sandbox_id} to be {wanted}: it is {record.state}")
        sleep(deadline.seconds(pause))
        pause = min(pause * 1.5, _LONGEST_PAUSE)
        record = services.current(sandbox_id)
    return record


def _never(record: Sandbox, wanted: str) -> Conflict:
    why = f": {record.error['message']}" if record.error is not None else ""
    return Conflict(
        f"sandbox {record.id} is {record.state}, and will not be {wanted}{why}",
        hint=f"run `sandboxer get {record.id}` to see why",
        sandbox_id=record.id,
    )
