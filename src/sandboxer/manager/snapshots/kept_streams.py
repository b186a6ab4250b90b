"""Keep a snapshot's streams in the store of its consumer and give them back, telling how many bytes went by."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from sandboxer.errors import Conflict, Internal, NotFound
from sandboxer.hosts.base import Sink
from sandboxer.manager.access import consumer_name
from sandboxer.manager.copies import path_checks
from sandboxer.manager.services import Progress, Services
from sandboxer.models import Consumer, Snapshot
from sandboxer.names import parse_size
from sandboxer.terminal_text import shown

if TYPE_CHECKING:
    from sandboxer.store.chunks import ChunkStore, SnapshotReader, SnapshotWriter

PROGRESS_SECONDS: Final = 0.2
"""How often it is told how far a stream has come."""
MOST_NOTES: Final = 8
LONGEST_NOTE: Final = 2000
"""How much is remembered of what a backend says of a snapshot: it may come from inside, and is kept in a document that
every change writes anew."""
_MIB: Final = 1 << 20


def chunk_store(services: Services, consumer: Consumer) -> ChunkStore:
    """Where the files of a consumer's snapshots are kept. Consumers share nothing: by what is kept already one could
    tell what another has. Raises Denied where others could put another directory."""
    import hashlib  # with the chunks, only where files are kept or restored

    from sandboxer.store.chunks import ChunkStore

    path_checks.check_snapshot_store(services)
    most = services.settings.snapshots.max_bytes
    name = hashlib.sha256(consumer_name(consumer).encode()).hexdigest()[:32]
    limit = parse_size(most, what="snapshots.max_bytes") if isinstance(most, str) else most
    return ChunkStore(services.snapshot_files / name, max_bytes=limit)


class _Meter:
    """Tells of a stream's bytes, not too often."""

    def __init__(self, phase: str, name: str, progress: Progress) -> None:
        self._phase, self._name, self._progress = phase, name, progress
        self._bytes = 0
        self._next = 0.0

    def count(self, size: int) -> None:
        self._bytes += size
        if (now := time.monotonic()) >= self._next:
            self._next = now + PROGRESS_SECONDS
            self.tell()

    def tell(self) -> None:
        self._progress(self._phase, f"{self._name}: {self._bytes / _MIB:.1f} MiB")


class StreamsBeingKept:
    """What an extension puts of a snapshot (`KeptStreams`). `doubts` are why it is not of one moment."""

    def __init__(self, writer: SnapshotWriter, progress: Progress) -> None:
        self._writer, self._progress = writer, progress
        self.doubts: list[str] = []
        self.notes: list[str] = []

    @contextmanager
    def put(self, name: str) -> Iterator[Sink]:
        """A sink for a stream, which is whole when the block ends."""
        meter = _Meter("snapshot", name, self._progress)
        with self._writer.stream(name) as stream:

            def sink(data: bytes) -> None:
                stream.write(data)
                meter.count(len(data))

            yield sink
        meter.tell()

    def get(self, name: str) -> BinaryIO:
        """Nothing is there to be read yet."""
        raise Internal(f"the stream {name!r} of a snapshot that is being taken was asked for")

    def inconsistent(self, why: str) -> None:
        """Remember why it is not of one moment."""
        _remember(self.doubts, why)

    def note(self, text: str) -> None:
        """Remember what else is to be known of it."""
        _remember(self.notes, text)


def _remember(texts: list[str], text: str) -> None:
    if len(texts) < MOST_NOTES:
        # a byte of a name that is no UTF-8 could not be written into a document
        texts.append(shown(text[:LONGEST_NOTE])[:LONGEST_NOTE])


class StreamsToRestore:
    """What an extension gets of a snapshot (`KeptStreams`)."""

    def __init__(self, reader: SnapshotReader, progress: Progress) -> None:
        self._reader, self._progress = reader, progress

    def put(self, name: str) -> None:
        """A snapshot that is restored does not change."""
        raise Internal(f"the stream {name!r} was to be put while its snapshot is restored")

    def get(self, name: str) -> BinaryIO:
        """A stream that was put, every byte proved."""
        return self._reader.open(name, seen=_Meter("restore", name, self._progress).count)

    def inconsistent(self, why: str) -> None:
        """That is known since it was taken."""

    def note(self, text: str) -> None:
        """Tell it now."""
        self._progress("note", text)


class OpenedSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that cannot be deleted meanwhile, and its streams."""

    snapshot: Snapshot
    streams: StreamsToRestore


@contextmanager
def opened_snapshot(services: Services, snapshot_id: str, progress: Progress) -> Iterator[OpenedSnapshot]:
    """Read a snapshot, alone or with others who do. Raises NotFound, Conflict, StoreCorrupt."""
    snapshot = whole_snapshot(services, snapshot_id)
    with chunk_store(services, snapshot.consumer).reading(snapshot_id) as reader:
        again = whole_snapshot(services, snapshot_id)  # its deletion begins with the record
        yield OpenedSnapshot(snapshot=again, streams=StreamsToRestore(reader, progress))


def whole_snapshot(services: Services, snapshot_id: str) -> Snapshot:
    """A snapshot that can be restored. Raises NotFound, and Conflict for one that is being taken or deleted."""
    snapshot = services.snapshots.get(snapshot_id)
    if snapshot is None or snapshot.state == "deleted":
        raise no_snapshot(snapshot_id)
    if snapshot.state != "kept":
        doing = {"taking": "taken", "deleting": "deleted"}[snapshot.state]
        raise Conflict(
            f"snapshot {snapshot_id} is being {doing}",
            hint="run `sandboxer snapshots list`; one that stays so is settled by `sandboxer reconcile --apply`",
        )
    return snapshot


def no_snapshot(text: str) -> NotFound:
    """The error of a snapshot that is not there, or is another's."""
    return NotFound(f"no snapshot {text[:80]!r}", hint="run `sandboxer snapshots list`")
