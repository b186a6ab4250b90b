"""Read a snapshot's streams, every chunk proved before it is given out; and prove them as a whole."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from sandboxer.errors import NotFound, StoreCorrupt
from sandboxer.store.chunks import packs
from sandboxer.store.chunks.decoding import Decoder
from sandboxer.store.chunks.packs import Chunk, PackReader
from sandboxer.store.chunks.recipes import Recipe, Stream


class Damage(NamedTuple):
    """What of a stream cannot be read: so many of its chunks, and what was said of the first."""

    stream: str
    chunks: int
    said: str


class SnapshotReader:
    """A snapshot that is being read; `close` when done."""

    def __init__(self, recipe: Recipe, index: dict[bytes, Chunk], directory: Path) -> None:
        self.recipe, self._index, self._directory = recipe, index, directory
        self._decoders: list[Decoder] = []

    def open(self, name: str, *, seen: Callable[[int], None] | None = None) -> io.BufferedReader:
        """One of its streams; every byte is proved before it is given out. `seen` is told how many were. Raises
        NotFound; reads raise StoreCorrupt."""
        for stream in self.recipe.streams:
            if stream.name == name:
                decoder = Decoder(str(self._directory), lambda: PackReader(self._directory), self._chunk)
                self._decoders.append(decoder)
                return io.BufferedReader(_Proved(stream, decoder.stream(stream.identities()), seen), 1 << 18)
        raise NotFound(
            f"{self.recipe.snapshot_id} has no {name!r}",
            hint=f"run `sandboxer snapshots get {self.recipe.snapshot_id}`",
        )

    def close(self) -> None:
        """End what was begun to be read."""
        while self._decoders:
            self._decoders.pop().close()

    def damage(self) -> tuple[tuple[Damage, ...], dict[str, set[bytes]]]:
        """What cannot be read of its streams, and in which packs."""
        reader = PackReader(self._directory)
        try:
            return self._damage(reader)
        finally:
            reader.close()

    def _damage(self, reader: PackReader) -> tuple[tuple[Damage, ...], dict[str, set[bytes]]]:
        bad = dict[str, set[bytes]]()
        found = []
        for stream in self.recipe.streams:
            said: list[str] = []
            whole, size = hashlib.sha256(), 0
            for name in stream.identities():
                try:
                    data = self._chunk(reader, name)
                except StoreCorrupt as error:
                    said.append(error.message)
                    if name in self._index:
                        bad.setdefault(self._index[name].pack, set()).add(name)
                else:
                    whole.update(data)
                    size += len(data)
            if not said and (size, whole.digest()) != (stream.size, stream.sha256):
                said.append(_not_what_was_kept(stream).message)
            if said:
                found.append(Damage(stream.name, len(said), said[0]))
        return tuple(found), bad

    def _chunk(self, reader: PackReader, name: bytes) -> bytes:
        chunk = self._index.get(name)
        if chunk is None:
            raise StoreCorrupt(f"a chunk of {self.recipe.snapshot_id} is missing or damaged", hint=packs.HINT)
        return reader.read(name, chunk)


def _not_what_was_kept(stream: Stream) -> StoreCorrupt:
    return StoreCorrupt(f"{stream.name} is not what was kept", hint=packs.HINT)


class _Proved(io.RawIOBase):
    """A stream's bytes. The names of its chunks are proved by the recipe's sum, and each chunk by its name; its end is
    given out only when it is as long as what came. (`damage` proves the sum of all of it too.)"""

    def __init__(self, stream: Stream, chunks: Iterator[bytes], seen: Callable[[int], None] | None) -> None:
        self._stream, self._chunks, self._seen = stream, chunks, seen
        self._size, self._left = 0, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: object) -> int:
        target = memoryview(into)  # type: ignore[arg-type]  # a writable buffer, as io says
        while not self._left:
            data = next(self._chunks, None)
            if data is None:
                if self._size != self._stream.size:
                    raise _not_what_was_kept(self._stream)
                return 0
            self._size += len(data)
            self._left = memoryview(data)
        count = min(len(target), len(self._left))
        target[:count] = self._left[:count]
        self._left = self._left[count:]
        if self._seen is not None:
            self._seen(count)
        return count
