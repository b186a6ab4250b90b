"""Know snapshots: find them, hold the lock of who works on one, and tell the facts of it once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import msgspec

from sandboxer.errors import Conflict, Internal, OverQuota
from sandboxer.events import build_event, initial_status, new_event_id
from sandboxer.locks import SandboxLock
from sandboxer.manager.access import Principal, consumer_name
from sandboxer.manager.services import Services
from sandboxer.manager.snapshots.kept_streams import no_snapshot
from sandboxer.models import Sandbox, Snapshot, SnapshotState, UntoldFact
from sandboxer.names import MIN_PREFIX, SNAPSHOT_PREFIX
from sandboxer.store.base import Change, OtherRecords
from sandboxer.timing import Deadline

MOST: Final = 1000
"""How many snapshots a consumer with a token has at once. Not exact when several are taken together."""
MOST_BYTES: Final = 8 << 20
"""What is known of them takes at most so many bytes: each has the request of its sandbox."""


def visible(services: Services, principal: Principal) -> Sequence[Snapshot]:
    """The snapshots that show themselves to a principal, oldest first."""
    consumer = principal.consumer
    return [one for one in services.snapshots.all() if one.state != "deleted" and consumer in (None, one.consumer)]


def find_snapshot(services: Services, principal: Principal, text: str) -> Snapshot:
    """The snapshot that an id, a unique prefix or a name means, of those that show themselves. Raises NotFound, and
    Conflict for what means several."""
    known = visible(services, principal)
    found = [one for one in known if one.id == text]
    if not found and len(text) >= MIN_PREFIX:
        found = [one for one in known if one.id.startswith(text)]
    found = found or [one for one in known if one.name == text]
    if not found:
        raise no_snapshot(text)
    if len(found) > 1:
        ids = ", ".join(one.id for one in found[-5:])
        raise Conflict(f"{text[:80]!r} means more than one snapshot: {ids}", hint="give more characters of the id")
    return found[0]


def check_room(services: Services, principal: Principal) -> None:
    """Raises OverQuota when a consumer with a token has as many snapshots as it may: all are in one document, which
    every change of one writes anew. The operator may have any number."""
    consumer = principal.consumer
    if consumer is None:
        return
    known = visible(services, principal)
    if len(known) >= MOST or sum(len(msgspec.json.encode(one)) for one in known) >= MOST_BYTES:
        raise OverQuota(
            f"{consumer_name(consumer)} has as many snapshots as it may have at once: {MOST}, "
            f"or {MOST_BYTES} bytes of records",
            retry_after=services.limits.retry_live,
            hint="delete those that are not needed",
        )


def set_state(services: Services, snapshot_id: str, state: SnapshotState) -> None:
    """Record what is done with a snapshot, also on a full disk."""

    def edit(now: Snapshot | None) -> Snapshot | None:
        return None if now is None else msgspec.structs.replace(now, state=state)

    services.snapshots.update(snapshot_id, edit, must_succeed=True)


def new_fact(services: Services, event_type: str) -> UntoldFact:
    """A fact of now, with an id of its own."""
    return UntoldFact(event_type=event_type, event_id=new_event_id(), at=services.clock())


def tell(services: Services, snapshot: Snapshot) -> None:
    """Put what is not told yet among the events; then a deleted one is forgotten. The caller has the snapshot's lock. A
    crash in between lets the same fact be told again, with the same id."""
    known = {event.event_id for event in services.store.events()} if snapshot.untold else set()
    for fact in snapshot.untold:
        if fact.event_id not in known:
            _tell(services, snapshot, fact)
    over = snapshot.state == "deleted"

    def told(now: Snapshot | None) -> Snapshot | None:
        return None if now is None or over else msgspec.structs.replace(now, untold=[])

    services.snapshots.update(snapshot.id, told, must_succeed=True)
    services.announce()


def _tell(services: Services, snapshot: Snapshot, fact: UntoldFact) -> None:
    def change(record: Sandbox | None, _others: OtherRecords) -> Change:
        if record is None:
            return Change()  # its sandbox was never in this store, or is not any more: there is nobody to tell of
        after = msgspec.structs.replace(record, seq=record.seq + 1)
        detail = snapshot_detail(snapshot)
        event = build_event(record, after, fact.event_type, fact.at, detail=detail, event_id=fact.event_id)
        event = msgspec.structs.replace(event, status=initial_status(services.settings.state_hub))
        return Change(record=after, events=[event])

    services.store.update(snapshot.sandbox_id, change, must_succeed=True)


def snapshot_detail(snapshot: Snapshot) -> dict[str, object]:
    """What an event tells of a snapshot."""
    return {"snapshot_id": snapshot.id, "size_bytes": snapshot.size_bytes, "stored_bytes": snapshot.stored_bytes}


def lock_if_free(services: Services, snapshot_id: str) -> SandboxLock | None:
    """The lock of who works on a snapshot; None when somebody does."""
    return services.locks.try_acquire(snapshot_id.removeprefix(SNAPSHOT_PREFIX))


def lock_of_new(services: Services, snapshot_id: str) -> SandboxLock:
    """The lock of a snapshot that nobody knows yet."""
    lock = lock_if_free(services, snapshot_id)
    if lock is None:
        raise Internal(f"the new id {snapshot_id} is locked already")
    return lock


def locked_snapshot(services: Services, snapshot_id: str, deadline: Deadline) -> SandboxLock:
    """The lock of who works on a snapshot; waits a little. Raises Conflict."""
    patience, pause = deadline.shorter(services.limits.snapshot_lock), 0.01
    while True:
        lock = lock_if_free(services, snapshot_id)
        if lock is not None:
            return lock
        if patience.passed:
            raise Conflict(
                f"snapshot {snapshot_id} is being worked on by another command",
                hint="run `sandboxer snapshots list`, and try again when the other command is through",
                retryable=True,
            )
        time.sleep(patience.seconds(pause))
        pause = min(pause * 1.5, 0.2)
