"""Take and verify snapshots. What is meant is durable first: a record in `taking` whose lock is free has a dead owner,
and is settled by `reconcile` (`snapshots.ends`)."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from sandboxer.errors import Conflict, Internal, SandboxerError
from sandboxer.extensions.base import CanSnapshot
from sandboxer.locks import this_owner
from sandboxer.manager.copies import path_checks
from sandboxer.manager.exec import lacks_capability
from sandboxer.manager.presence import stop_noticed
from sandboxer.manager.services import Progress, Services, no_progress
from sandboxer.manager.snapshots.ends import delete, drop
from sandboxer.manager.snapshots.facts import lock_of_new, new_fact, tell
from sandboxer.manager.snapshots.kept_streams import StreamsBeingKept, chunk_store, opened_snapshot
from sandboxer.manager.stop import check_change
from sandboxer.manager.sweeps.report import location_of
from sandboxer.models import Handle, Sandbox, Snapshot
from sandboxer.names import check_snapshot_name, new_snapshot_id
from sandboxer.timing import Deadline

WHOLE: Final = "filesystem"
"""What a snapshot holds that a provider keeps."""
_USED: Final = "it was used meanwhile"
_UNKNOWN_MOMENT: Final = "its provider does not say whether the files are of one moment"


def take(
    services: Services, sandbox_id: str, *, name: str | None, deadline: Deadline, progress: Progress = no_progress
) -> Snapshot:
    """Keep a sandbox's files as they are. Raises Unsupported where its backend cannot, OverQuota when there is no room;
    what was kept by then is given up."""
    if name is not None:
        check_snapshot_name(name)
    record = services.current(sandbox_id)
    extension = services.extension(record)
    if not isinstance(extension, CanSnapshot):
        raise lacks_capability(record, "snapshot")
    with services.leases.hold(sandbox_id, holder="snapshot", check=lambda: _keepable(services, sandbox_id)) as record:
        path_checks.check_sandbox_paths(services, record)
        path_checks.check_snapshot_store(services)  # before there is anything that would have to be taken back
        snapshot_id = new_snapshot_id()
        with lock_of_new(services, snapshot_id), stop_noticed(services, record):
            begun = _begin(services, record, snapshot_id, name)
            progress("snapshot", location_of(record))
            kept = _keep(services, begun, record, deadline, progress)
            tell(services, kept)
    _retain(services, kept, progress)
    return kept


def _keepable(services: Services, sandbox_id: str) -> Sandbox:
    record = services.current(sandbox_id)
    check_change(record, "start", now=services.clock())  # not over, and not on its way out; it may be stopped
    if record.handle is None:
        raise Conflict(f"sandbox {sandbox_id} has no handle", hint="run `sandboxer reconcile`")
    return record


def _begin(services: Services, record: Sandbox, snapshot_id: str, name: str | None) -> Snapshot:
    begun = Snapshot(
        id=snapshot_id,
        sandbox_id=record.id,
        request=record.request,
        profile=record.profile,
        profile_version=record.profile_version,
        extension=record.extension,
        consumer=record.consumer,
        created_at=services.clock(),
        state="taking",
        name=name,
        host=record.host,
        secret_refs=record.secret_refs,
        owner=this_owner(),
    )
    services.snapshots.update(snapshot_id, lambda _before: begun)
    return begun


def _keep(services: Services, begun: Snapshot, record: Sandbox, deadline: Deadline, progress: Progress) -> Snapshot:
    """The files, then the record that says so; what fails on the way is taken back."""
    handle: Handle | None = None
    try:
        store = chunk_store(services, begun.consumer)
        extension = services.extension(record)
        if not isinstance(extension, CanSnapshot) or record.handle is None:
            raise Internal("a snapshot was begun that cannot be taken")
        context = services.context(
            record, deadline, progress=progress, save=lambda handle: _save(services, record.id, handle)
        )
        context.host.connect(deadline)
        with store.writing(begun.id) as writer:
            streams = StreamsBeingKept(writer, progress)
            before = _uses(services, record.id)
            handle = extension.snapshot(record.handle, begun.id, msgspec.structs.replace(context, kept=streams))
            if before.others or _uses(services, record.id) != before:
                streams.inconsistent(_USED)
        contents = [stream.name for stream in writer.streams]
        doubts = streams.doubts if contents else [*streams.doubts, _UNKNOWN_MOMENT]
        kept = msgspec.structs.replace(
            begun,
            state="kept",
            handle=handle,
            size_bytes=writer.size_bytes if contents else None,
            stored_bytes=writer.stored_bytes if contents else None,
            consistent=not doubts,
            contents=contents or [WHOLE],
            notes=[*doubts, *streams.notes],
            owner=None,
            untold=[new_fact(services, "snapshot.created")],
        )
        return services.snapshots.update(begun.id, lambda _before: kept) or kept
    except BaseException as error:
        with suppress(SandboxerError):  # then `reconcile` does it; what went wrong first is what is told
            drop(services, begun, handle, thorough=isinstance(error, Exception))
        if isinstance(error, SandboxerError):
            error.sandbox_id = error.sandbox_id or record.id
        raise


class _Uses(NamedTuple):
    """When a sandbox was used last, and by how many others just now."""

    last: float | None
    others: int


def _uses(services: Services, sandbox_id: str) -> _Uses:
    """What shows, before and after, that somebody used it meanwhile: a command that has begun and ended in between has
    left no process."""
    others = len(services.leases.active(sandbox_id)) - 1  # but for our own
    return _Uses(services.leases.last_active(sandbox_id), others)


def _save(services: Services, sandbox_id: str, handle: Handle) -> None:
    services.edit(sandbox_id, lambda now: msgspec.structs.replace(now, handle=handle))


def _retain(services: Services, latest: Snapshot, progress: Progress) -> None:
    """Delete the oldest of a sandbox's beyond what is to be kept. One that is in use stays until the next time."""
    keep = services.settings.snapshots.keep
    if keep is None:
        return
    own = [one for one in services.snapshots.all() if one.sandbox_id == latest.sandbox_id and one.state == "kept"]
    for old in own[: max(0, len(own) - keep)]:
        try:
            delete(services, old.id, Deadline(services.limits.destroy), progress)
        except SandboxerError as error:
            progress("note", f"snapshot {old.id} is one too many, and stays: {error.message}")


# -- verify ------------------------------------------------------------------------------------------------------------


class StreamDamage(msgspec.Struct, frozen=True, kw_only=True):
    """What of one stream cannot be read: so many chunks, and what was said of the first."""

    stream: str
    chunks: int
    said: str


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """Whether all of a snapshot can be read, and is what was kept."""

    id: str
    ok: bool
    damaged: list[StreamDamage]


def verify(services: Services, snapshot_id: str) -> VerifyReport:
    """Read all of a snapshot, and prove it. What a provider keeps is not read."""
    with opened_snapshot(services, snapshot_id, no_progress) as opened:
        found = chunk_store(services, opened.snapshot.consumer).verify(snapshot_id)
    damaged = [StreamDamage(stream=one.stream, chunks=one.chunks, said=one.said) for one in found]
    return VerifyReport(id=snapshot_id, ok=not damaged, damaged=damaged)
