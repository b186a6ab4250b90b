"""Read a snapshot's streams, proved chunk by chunk and as a whole."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sandboxer.errors import NotFound, StoreCorrupt
from sandboxer.store.chunks import packs
from sandboxer.store.chunks.packs import Chunk, PackReader
from sandboxer.store.chunks.recipes import Recipe, Stream


class Damage(NamedTuple):
    """What of a stream cannot be read: so many of its chunks, and what was said of the first."""

    stream: str
    chunks: int
    said: str


class SnapshotReader:
    """A snapshot that is being read."""

    def __init__(self, recipe: Recipe, index: dict[bytes, Chunk], reader: PackReader) -> None:
        self.recipe, self._index, self._reader = recipe, index, reader

    def open(self, name: str, *, seen: Callable[[int], None] | None = None) -> io.BufferedReader:
        """One of its streams; every byte is proved before it is given out. `seen` is told how many were. Raises
        NotFound; reads raise StoreCorrupt."""
        for stream in self.recipe.streams:
            if stream.name == name:
                return io.BufferedReader(_Proved(stream, self._chunks(stream), seen), 1 << 18)
        raise NotFound(
            f"{self.recipe.snapshot_id} has no {name!r}",
            hint=f"run `sandboxer snapshots get {self.recipe.snapshot_id}`",
        )

    def damage(self) -> tuple[tuple[Damage, ...], dict[str, set[bytes]]]:
        """What cannot be read of its streams, and in which packs."""
        proved, bad = set[bytes](), dict[str, set[bytes]]()
        found = []
        for stream in self.recipe.streams:
            said: list[str] = []
            for name in stream.identities():
                if name in proved:
                    continue
                try:
                    self._chunk(name)
                    proved.add(name)
                except StoreCorrupt as error:
                    said.append(error.message)
                    if name in self._index:
                        bad.setdefault(self._index[name].pack, set()).add(name)
            if said:
                found.append(Damage(stream.name, len(said), said[0]))
        return tuple(found), bad

    def _chunks(self, stream: Stream) -> Iterator[bytes]:
        return map(self._chunk, stream.identities())

    def _chunk(self, name: bytes) -> bytes:
        chunk = self._index.get(name)
        if chunk is None:
            raise StoreCorrupt(f"a chunk of {self.recipe.snapshot_id} is missing or damaged", hint=packs.HINT)
        return self._reader.read(name, chunk)


class _Proved(io.RawIOBase):
    """A stream's bytes. Its end is given out only when all of them are what came."""

    def __init__(self, stream: Stream, chunks: Iterator[bytes], seen: Callable[[int], None] | None) -> None:
        self._stream, self._chunks, self._seen = stream, chunks, seen
        self._sum, self._size, self._left = hashlib.sha256(), 0, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: object) -> int:
        target = memoryview(into)  # type: ignore[arg-type]  # a writable buffer, as io says
        while not self._left:
            data = next(self._chunks, None)
            if data is None:
                if (self._size, self._sum.digest()) != (self._stream.size, self._stream.sha256):
                    raise StoreCorrupt(f"{self._stream.name} is not what was kept", hint=packs.HINT)
                return 0
            self._sum.update(data)
            self._size += len(data)
            self._left = memoryview(data)
        count = min(len(target), len(self._left))
        target[:count] = self._left[:count]
        self._left = self._left[count:]
        if self._seen is not None:
            self._seen(count)
        return count
