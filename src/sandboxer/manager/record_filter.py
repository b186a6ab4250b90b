"""List records: those that show themselves to the principal, and that fit what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandboxer.errors import Invalid
from sandboxer.manager.access import Principal
from sandboxer.manager.services import Services
from sandboxer.models import RecordSummary, Sandbox
from sandboxer.state import State


@dataclass(frozen=True, kw_only=True)
class RecordFilter:
    """Which records are wanted; what is given adds up. `after`: behind this place in the list (when one was created,
    and its id)."""

    states: Sequence[str] = ()
    profile: str | None = None
    labels: Mapping[str, str]
    after: tuple[float, str] | None = None


def list_records(
    services: Services, principal: Principal, wanted: RecordFilter, *, ended: bool, limit: int | None
) -> Sequence[Sandbox]:
    """The records that are wanted, oldest first, at most `limit`. Raises Invalid for a state that there is not."""
    for state in wanted.states:
        if state not in set(State):
            raise Invalid(f"there is no state {state[:80]!r}", hint=f"the states: {', '.join(State)}")
    consumer = principal.consumer

    def fits(record: RecordSummary | Sandbox) -> bool:
        return (
            consumer in (None, record.consumer)
            and (wanted.after is None or (record.created_at, record.id) > wanted.after)
            and (wanted.profile is None or record.profile == wanted.profile)
            and all(record.labels.get(key) == value for key, value in wanted.labels.items())
            and (not wanted.states or _shown_state(services, record) in wanted.states)
        )

    return services.store.list(ended=ended or State.DESTROYED in wanted.states, only=fits, limit=limit)


def _shown_state(services: Services, record: RecordSummary | Sandbox) -> str:
    if record.state == State.READY and services.leases.active(record.id):
        return State.ACTIVE
    return record.state
