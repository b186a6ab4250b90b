"""Tell of sandboxes that are about to end, once for each end: the event `sandbox.expiring`."""

from __future__ import annotations

import msgspec

from sandboxer.manager.services import Services
from sandboxer.models import Sandbox
from sandboxer.state import ESTABLISHED
from sandboxer.store.base import Change, OtherRecords


def warning_due(record: Sandbox, *, now: float, within: float) -> bool:
    """Whether the end of a sandbox is to be told of: it is at most `within` seconds away, not over, and was not told of
    yet. Pure."""
    until = record.expires_at
    if until is None or record.state not in ESTABLISHED or record.warned_until == until:
        return False
    return now < until <= now + within


def warn(services: Services, sandbox_id: str) -> bool:
    """Record `sandbox.expiring`, unless it was moved or told of meanwhile; whether it was recorded."""
    told: list[bool] = []

    def change(record: Sandbox | None, _others: OtherRecords) -> Change:
        told.clear()  # a store may ask twice
        if record is None or not warning_due(record, now=services.clock(), within=services.limits.warning):
            return Change()
        told.append(True)
        after = msgspec.structs.replace(record, warned_until=record.expires_at, seq=record.seq + 1)
        return Change(record=after, events=[services.event(record, after, "sandbox.expiring")])

    services.store.update(sandbox_id, change)
    if told:
        services.announce()
    return bool(told)


def warn_all(services: Services) -> int:
    """Tell of every sandbox that is about to end; how many."""
    now, within = services.clock(), services.limits.warning
    due = [record.id for record in services.store.list() if warning_due(record, now=now, within=within)]
    return sum(warn(services, sandbox_id) for sandbox_id in due)
