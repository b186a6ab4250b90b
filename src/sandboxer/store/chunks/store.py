"""The chunk store of one consumer: snapshots as named byte streams, each chunk kept once.

Order is what makes a crash harmless: packs are flushed and named, then the recipe that needs them; a recipe goes, then
the packs that nobody needs. Who reads or adds holds the store's lock shared, and `collect` alone holds it exclusively:
nothing that a living process counts on is taken away, and a dead one's lock is free.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from sandboxer.errors import NotFound, StoreCorrupt
from sandboxer.store import private_files
from sandboxer.store.chunks import packs, recipes
from sandboxer.store.chunks.packs import Chunk, PackReader, PackWriter
from sandboxer.store.chunks.reading import Damage, SnapshotReader
from sandboxer.store.chunks.recipes import Recipe
from sandboxer.store.chunks.room import LOCK_FILE, Room, used_bytes
from sandboxer.store.chunks.writing import SnapshotWriter
from sandboxer.store.file_lock import locked, locked_if_free

LOCK_SECONDS: Final = 600.0
"""How long to wait for a `collect` of another process, in seconds."""
REWRITE_BELOW: Final = 0.5
"""A pack that is needed for a smaller share of its bytes is written anew without the others."""
_DAMAGED: Final = ".damaged"


class Collected(NamedTuple):
    """What a collection took away."""

    packs: int
    freed_bytes: int


class ChunkStore:
    """A directory of packs and recipes. `max_bytes` is the most that its packs and recipes may take."""

    def __init__(self, directory: Path, *, max_bytes: int | None = None, lock_seconds: float = LOCK_SECONDS) -> None:
        self._directory = directory
        self._packs = directory / "packs"
        self._recipes = directory / "recipes"
        self._lock = directory / ".lock"
        self._max_bytes = max_bytes
        self._lock_seconds = lock_seconds

    @contextmanager
    def writing(self, snapshot_id: str) -> Iterator[SnapshotWriter]:
        """Make a snapshot; it is kept, durably, when the block ends, and nothing is when it is left by an exception.

        Raises OverQuota, Conflict, and what a disk does (`private_files.refusal`)."""
        with self._shared():
            room = Room(self._directory, self._max_bytes, lock_seconds=self._lock_seconds)
            writer = SnapshotWriter(self._packs, self._index(), room)
            try:
                yield writer
                writer.finish()
                recipe = Recipe(
                    version=recipes.VERSION,
                    snapshot_id=snapshot_id,
                    stored_bytes=writer.stored_bytes,
                    streams=tuple(writer.streams),
                )
                recipes.write(self._recipes, recipe, room.claimed)
            finally:
                writer.discard()

    @contextmanager
    def reading(self, snapshot_id: str) -> Iterator[SnapshotReader]:
        """Read a snapshot, which cannot be deleted meanwhile. Raises NotFound, Conflict, StoreCorrupt."""
        with self._shared(), recipes.held(self._recipes, snapshot_id) as recipe:
            reader = SnapshotReader(recipe, self._index(), self._packs)
            try:
                yield reader
            finally:
                reader.close()

    def snapshots(self) -> list[str]:
        """The ids of what is kept."""
        return recipes.names(self._recipes) if self._recipes.is_dir() else []

    def used_bytes(self) -> int:
        """What the packs and recipes take."""
        return used_bytes(self._directory)

    def verify(self, snapshot_id: str) -> tuple[Damage, ...]:
        """Read all of a snapshot and prove it; what is damaged. Such chunks are not counted on any more, so that the
        next snapshot with the same contents stores them again, which mends this one too."""
        with self.reading(snapshot_id) as reader:
            found, bad = reader.damage()
            for pack, names in bad.items():
                self._mark(pack, names)
        return found

    def delete(self, snapshot_id: str) -> None:
        """Forget a snapshot; one that is gone already is success. Raises Conflict while it is read. Its bytes are
        freed by `collect`."""
        if self._recipes.is_dir():
            recipes.delete(self._recipes, snapshot_id)

    def collect(self) -> Collected | None:
        """Free what no snapshot needs; None when somebody reads or writes just now: try later.

        Raises StoreCorrupt, and takes nothing, when a recipe cannot be read: what it needs is not known."""
        if not self._directory.is_dir():
            return Collected(0, 0)
        self._make()
        with locked_if_free(self._lock) as free:
            return self._collect() if free else None

    def _collect(self) -> Collected:
        with private_files.refusals("clean up", self._directory):
            wanted: set[bytes] = set()
            for name in recipes.names(self._recipes):
                with suppress(NotFound):  # deleted meanwhile
                    for stream in recipes.read(self._recipes, name).streams:
                        wanted.update(stream.identities())
            _remove_temporaries(self._packs)
            _remove_temporaries(self._recipes)
            before = self.used_bytes()
            indexes = dict(self._indexes())
            homes = _homes(indexes, {pack: self._marked(pack) for pack in indexes})
            going: list[str] = []
            thin: list[tuple[bytes, Chunk]] = []
            for pack, rows in indexes.items():
                needed = [row for row in rows if row[0] in wanted and homes.get(row[0], pack) == pack]
                if not needed:
                    going.append(pack)
                elif not self._marked(pack) and _stored(needed) < REWRITE_BELOW * _stored(rows):
                    going.append(pack)
                    thin += needed
            kept = self._rewrite(thin)
            going = [pack for pack in going if pack not in kept]
            for pack in going:
                (self._packs / pack).unlink()
                (self._packs / f"{pack}{_DAMAGED}").unlink(missing_ok=True)
            if going:
                private_files.flush_directory(self._packs)
            return Collected(len(going), max(0, before - self.used_bytes()))

    def _rewrite(self, rows: Sequence[tuple[bytes, Chunk]]) -> set[str]:
        """Copy chunks to new packs; the packs of those that could not be proved, which have to stay."""
        reader, kept = PackReader(self._packs), set[str]()
        writer: PackWriter | None = None
        try:
            for name, chunk in rows:
                try:
                    reader.read(name, chunk)
                except StoreCorrupt:
                    kept.add(chunk.pack)
                    continue
                writer = writer or PackWriter(self._packs)
                writer.add_compressed(name, reader.read_compressed(chunk), size=chunk.size)
                if writer.size >= packs.PACK_BYTES:
                    writer.publish()
                    writer = None
            if writer is not None:
                writer.publish()
        finally:
            if writer is not None:
                writer.discard()
            reader.close()
        return kept

    def _make(self) -> None:
        with private_files.refusals("use", self._directory):
            for directory in (self._directory, self._packs, self._recipes):
                private_files.ensure_directory(directory)

    @contextmanager
    def _shared(self) -> Iterator[None]:
        self._make()
        with locked(self._lock, seconds=self._lock_seconds, kind="shared"):
            yield

    def _indexes(self) -> Iterator[tuple[str, Sequence[tuple[bytes, Chunk]]]]:
        """Packs and what is in them; a damaged pack is as good as none, and stays."""
        for pack in packs.names(self._packs):
            with suppress(StoreCorrupt):
                yield pack, packs.read_index(self._packs, pack)

    def _index(self) -> dict[bytes, Chunk]:
        found: dict[bytes, Chunk] = {}
        for pack, rows in self._indexes():
            marked = self._marked(pack)
            found.update(row for row in rows if row[0] not in marked)
        return found

    def _marked(self, pack: str) -> frozenset[bytes]:
        data = private_files.read_file(self._packs / f"{pack}{_DAMAGED}")
        size = recipes.IDENTITY_BYTES
        return frozenset(data[at : at + size] for at in range(0, len(data), size))

    def _mark(self, pack: str, names: Iterable[bytes]) -> None:
        path = self._packs / f"{pack}{_DAMAGED}"
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        # one after the other: each adds to what the others have found
        with locked(self._directory / LOCK_FILE, seconds=self._lock_seconds), private_files.refusals("write", path):
            data = b"".join(sorted(self._marked(pack) | set(names)))
            descriptor = private_files.create_private(temporary, os.O_WRONLY)
            try:
                private_files.write_all(descriptor, data)
                os.fsync(descriptor)
                temporary.replace(path)
                private_files.flush_directory(self._packs)
            finally:
                private_files.close(descriptor)
                temporary.unlink(missing_ok=True)


def _homes(indexes: dict[str, Sequence[tuple[bytes, Chunk]]], marked: dict[str, frozenset[bytes]]) -> dict[bytes, str]:
    """In which pack each chunk is looked for: the last that has it whole, as in `_index`."""
    return {row[0]: pack for pack, rows in indexes.items() for row in rows if row[0] not in marked[pack]}


def _stored(rows: Iterable[tuple[bytes, Chunk]]) -> int:
    return sum(chunk.stored for _, chunk in rows)


def _remove_temporaries(directory: Path) -> None:
    """What killed writers left; nobody writes while the store is locked."""
    for path in directory.glob(".*.tmp"):
        path.unlink(missing_ok=True)
