"""End snapshots: delete them, give up those that never became whole, and settle what dead owners have begun."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import msgspec

from sandboxer.errors import Conflict, SandboxerError
from sandboxer.extensions.base import CanSnapshot
from sandboxer.locks import owner_state
from sandboxer.manager.services import Progress, Services, no_progress
from sandboxer.manager.snapshots.facts import lock_if_free, locked_snapshot, new_fact, set_state, tell
from sandboxer.manager.snapshots.kept_streams import chunk_store, no_snapshot
from sandboxer.manager.sweeps.report import Action, ActionKind, Remaining, caught, failed_action
from sandboxer.models import Handle, Snapshot
from sandboxer.timing import Deadline


def delete(services: Services, snapshot_id: str, deadline: Deadline, progress: Progress = no_progress) -> Snapshot:
    """Delete a snapshot. Raises Conflict while it is restored, verified or taken; what the backend raised: it stays in
    `deleting` then."""
    with locked_snapshot(services, snapshot_id, deadline):
        before = services.snapshots.get(snapshot_id)
        if before is None or before.state == "deleted":
            raise no_snapshot(snapshot_id)
        if before.state == "taking":  # whoever took it is dead
            drop(services, before, None, thorough=True)
            return msgspec.structs.replace(before, state="deleted")
        progress("delete", snapshot_id)
        store = chunk_store(services, before.consumer)
        set_state(services, snapshot_id, "deleting")
        try:
            store.delete(snapshot_id)
        except Conflict:
            set_state(services, snapshot_id, before.state)
            raise
        return _finish_delete(services, before, deadline)


def _finish_delete(services: Services, snapshot: Snapshot, deadline: Deadline) -> Snapshot:
    """What is left once nobody can begin to read it."""
    chunk_store(services, snapshot.consumer).delete(snapshot.id)
    if snapshot.handle is not None:
        _delete_at_backend(services, snapshot, snapshot.handle, deadline)
    fact = new_fact(services, "snapshot.deleted")

    def gone(now: Snapshot | None) -> Snapshot:
        known = now or snapshot
        return msgspec.structs.replace(known, state="deleted", untold=[*known.untold, fact])

    ended = services.snapshots.update(snapshot.id, gone, must_succeed=True)
    _free(services, snapshot)
    tell(services, ended or snapshot)
    return ended or snapshot


def _delete_at_backend(services: Services, snapshot: Snapshot, handle: Handle, deadline: Deadline) -> None:
    extension = services.extensions.get(snapshot.extension)
    if isinstance(extension, CanSnapshot):
        context = services.extension_context(snapshot.extension, snapshot.host, deadline, refs=snapshot.secret_refs)
        extension.delete_snapshot(handle, context)


def drop(services: Services, begun: Snapshot, handle: Handle | None, *, thorough: bool) -> None:
    """Give up a snapshot that is not whole; the caller has its lock. Without `thorough` no backend is asked: an
    interrupt waits for it."""
    chunk_store(services, begun.consumer).delete(begun.id)
    if handle is None and thorough:
        handle = _lost(services, begun)
    if handle is not None:
        _delete_at_backend(services, begun, handle, Deadline(services.limits.quick_rollback))
    elif not thorough and services.extensions.manifest(begun.extension).self_hosted is False:
        return  # there may be something at its provider: `reconcile` looks
    _free(services, begun)
    services.snapshots.update(begun.id, lambda _before: None, must_succeed=True)


def _free(services: Services, snapshot: Snapshot) -> None:
    """Free what no snapshot of its consumer needs. While others read or write, that is left to the next that goes."""
    with suppress(SandboxerError):
        chunk_store(services, snapshot.consumer).collect()


def _lost(services: Services, begun: Snapshot) -> Handle | None:
    """The snapshot that a provider keeps under the name of one whose maker never learnt of it."""
    extension = services.extensions.get(begun.extension)
    if not isinstance(extension, CanSnapshot):
        return None
    deadline = Deadline(services.limits.inspect)
    context = services.extension_context(begun.extension, begun.host, deadline, refs=begun.secret_refs)
    return extension.find_snapshot(begun.id, context)


# -- sweep ------------------------------------------------------------------------------------------------------------


def settle_snapshots(services: Services, *, grace: float, apply: bool) -> tuple[list[Action], list[Remaining]]:
    """Finish what dead owners have begun with snapshots; without `apply` only what would be done. Records that cannot
    be read remain."""
    try:
        unsettled = [one for one in services.snapshots.all() if one.state != "kept" or one.untold]
    except SandboxerError as error:
        name = services.snapshots.path.name
        return [], [Remaining(why=error.message, host=None, extension=name, error=error.document())]
    actions: list[Action] = []
    remaining: list[Remaining] = []
    for one in unsettled:
        lock = lock_if_free(services, one.id)
        if lock is None:
            continue  # its owner lives and works on it
        with lock:
            found = _settled(services, one.id, grace=grace, apply=apply)
        if isinstance(found, Remaining):
            remaining.append(found)
        elif found is not None:
            actions.append(found)
    return actions, remaining


def _settled(services: Services, snapshot_id: str, *, grace: float, apply: bool) -> Action | Remaining | None:
    snapshot = services.snapshots.get(snapshot_id)
    if snapshot is None or (snapshot.state == "kept" and not snapshot.untold):
        return None
    sure = snapshot.owner is None or owner_state(snapshot.owner) != "unknown"
    if not sure and services.clock() - snapshot.created_at <= grace:
        return Remaining(
            why="it is not certain that its owner is dead; wait for the grace period",
            host=snapshot.host,
            extension=snapshot.extension,
            sandbox_id=snapshot.sandbox_id,
            snapshot_id=snapshot_id,
        )
    does, why = _DOES.get(snapshot.state, _TELLS)
    action = Action(
        sandbox_id=snapshot.sandbox_id,
        action=does,
        why=why,
        host=snapshot.host,
        extension=snapshot.extension,
        snapshot_id=snapshot_id,
    )
    if not apply:
        return action
    return caught(lambda: _carried_out(services, snapshot, action), lambda error: failed_action(action, error))


def _carried_out(services: Services, snapshot: Snapshot, action: Action) -> Action:
    _settle(services, snapshot)
    return msgspec.structs.replace(action, outcome="done")


_DOES: Final[dict[str, tuple[ActionKind, str]]] = {
    "taking": ("take-back", "the snapshot was not whole when its maker died"),
    "deleting": ("remove", "the deletion of the snapshot has not finished"),
}
_TELLS: Final[tuple[ActionKind, str]] = ("note", "what became of the snapshot was not told")


def _settle(services: Services, snapshot: Snapshot) -> None:
    if snapshot.state == "taking":
        drop(services, snapshot, None, thorough=True)
    elif snapshot.state == "deleting":
        _finish_delete(services, snapshot, Deadline(services.limits.sweep_one))
    else:
        if snapshot.state == "deleted":
            _free(services, snapshot)
        tell(services, snapshot)
