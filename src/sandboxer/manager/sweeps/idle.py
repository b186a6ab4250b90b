"""Tell when a sandbox has been idle for as long as its profile allows. Pure."""

from __future__ import annotations

from sandboxer.models import Sandbox
from sandboxer.state import State


def idle_end(record: Sandbox, last_active: float | None) -> float | None:
    """When a sandbox that nobody uses now ends for being idle, in unix seconds; None: never. `last_active`: the end of
    the last lease, in unix seconds. One that is stopped is not idle, and one that runs again has been since then."""
    if record.idle_ttl is None or record.state != State.READY or record.ready_at is None:
        return None
    seen = record.last_seen
    since = (
        record.ready_at,
        record.last_active_at,
        last_active,
        record.renewed_at,
        seen.since if seen is not None and seen.presence == "running" else None,
    )
    return max(instant for instant in since if instant is not None) + record.idle_ttl
