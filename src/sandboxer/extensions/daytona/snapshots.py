"""Create and delete snapshots: a sandbox's files, kept by Daytona under a name, to make other sandboxes of."""

from __future__ import annotations

from typing import Any

from sandboxer.errors import BackendError, SandboxerError
from sandboxer.extensions.daytona.client import DaytonaClient, pauses, sleep
from sandboxer.extensions.daytona.handle import DaytonaHandleData, check_absence_proved, check_base
from sandboxer.http import segment
from sandboxer.timing import Deadline, now

_READY = frozenset({"active", "inactive"})
_WRONG = frozenset({"error", "build_failed"})


def keep(cloud: DaytonaClient, sandbox: str, name: str, deadline: Deadline) -> str:
    """Make a snapshot called `name` of a sandbox; Daytona's id for it. A name that exists is taken for the answer of an
    earlier, lost request: names are ours alone."""
    if _snapshot(cloud, name, deadline) is None:
        try:
            cloud.api.call(
                "POST",
                f"/sandbox/{segment(sandbox)}/snapshot",
                deadline,
                json={"name": name},
                expect=(200, 201, 202),
            )
        except SandboxerError as error:
            if error.outcome != "unknown" and (error.details or {}).get("status") != 409:
                raise
    state = "none"
    for pause in pauses(0.1):
        found = _snapshot(cloud, name, deadline)
        state = "none" if found is None else str(found.get("state"))
        if found is not None and state in _READY:
            return str(found["id"])
        if found is not None and state in _WRONG:
            why = found.get("errorReason") or state
            raise BackendError(f"Daytona could not keep {sandbox}: {why}", hint="see Snapshots at app.daytona.io")
        sleep(pause, deadline)
    raise AssertionError("pauses do not end")


def named(cloud: DaytonaClient, name: str, deadline: Deadline) -> str | None:
    """Daytona's id of the snapshot with that name, whatever its state; None where there is none."""
    found = _snapshot(cloud, name, deadline)
    return None if found is None else str(found["id"])


def forget(cloud: DaytonaClient, data: DaytonaHandleData, deadline: Deadline) -> None:
    """Remove a snapshot and see that it is gone; one that is gone already is success."""
    check_base(data, cloud.base)
    for pause in pauses(0.1):
        found = _snapshot(cloud, data.name, deadline)
        if found is None:
            break
        if found.get("state") != "removing":
            cloud.ask("DELETE", f"/snapshots/{segment(str(found['id']))}", deadline, absent_ok=True)
        sleep(pause, deadline)
    check_absence_proved(data, cloud.key, now=now())


def _snapshot(cloud: DaytonaClient, name: str, deadline: Deadline) -> dict[str, Any] | None:
    answer = cloud.ask("GET", f"/snapshots/{segment(name)}", deadline, absent_ok=True)
    document = None if answer is None else answer.json()
    if answer is not None and (not isinstance(document, dict) or not isinstance(document.get("id"), str)):
        raise BackendError("Daytona answered with something that is not a snapshot", hint="check DAYTONA_API_URL")
    return document
