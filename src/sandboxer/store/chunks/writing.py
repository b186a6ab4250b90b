"""Make a snapshot: cut its streams, and keep the chunks that are new."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sandboxer.errors import Denied
from sandboxer.store import private_files
from sandboxer.store.chunks import packs
from sandboxer.store.chunks.chunker import Chunker
from sandboxer.store.chunks.packs import Chunk, PackWriter
from sandboxer.store.chunks.recipes import IDENTITY_BYTES, Stream
from sandboxer.store.chunks.room import Room

MOST_CHUNKS: Final = 4 << 20
"""How many chunks a snapshot has at most: 256 GiB of usual files, whose names take 128 MiB, in memory too. What comes
is what programs inside can make a tar say."""


class SnapshotWriter:
    """A snapshot that is being made: `size_bytes` came, `stored_bytes` of them were new, compressed."""

    def __init__(self, directory: Path, known: dict[bytes, Chunk], room: Room) -> None:
        self._directory, self._known, self._room = directory, known, room
        self._count = 0
        self._pack: PackWriter | None = None
        self.streams: list[Stream] = []
        self.size_bytes = self.stored_bytes = 0

    @contextmanager
    def stream(self, name: str) -> Iterator[StreamWriter]:
        """One of its streams, which is whole when the block ends."""
        writer = StreamWriter(self)
        yield writer
        self.streams.append(writer.finish(name))

    def add(self, data: bytes) -> bytes:
        """Keep a chunk; its name."""
        self._count += 1
        if self._count > MOST_CHUNKS:
            raise Denied(
                f"the files are too large for a snapshot: more than {MOST_CHUNKS} pieces",
                hint="remove what is not needed, or copy parts out with `sandboxer cp`",
            )
        name = packs.identity(data)
        self.size_bytes += len(data)
        if name not in self._known:
            with private_files.refusals("write", self._directory):
                self._pack = self._pack or PackWriter(self._directory)
                chunk = self._known[name] = self._pack.add(name, data)
            self.stored_bytes += chunk.stored
            if self._pack.size >= packs.PACK_BYTES:
                self.finish()
        self._room.check(self.stored_bytes + self._count * IDENTITY_BYTES)
        return name

    def finish(self) -> None:
        """Make what was added durable."""
        if self._pack is not None:
            with self._room.claimed(self._pack.whole_size), private_files.refusals("write", self._directory):
                self._pack.publish()
            self._pack = None

    def discard(self) -> None:
        """Take away what is not finished."""
        if self._pack is not None:
            self._pack.discard()
            self._pack = None


class StreamWriter:
    """Takes the bytes of one stream, in any pieces."""

    def __init__(self, snapshot: SnapshotWriter) -> None:
        self._snapshot, self._chunker = snapshot, Chunker()
        self._sum, self._size, self._names = hashlib.sha256(), 0, bytearray()

    def write(self, data: bytes) -> None:
        """A sink."""
        self._sum.update(data)
        self._size += len(data)
        for chunk in self._chunker.feed(data):
            self._names += self._snapshot.add(chunk)

    def finish(self, name: str) -> Stream:
        """What the stream was."""
        for chunk in self._chunker.finish():
            self._names += self._snapshot.add(chunk)
        return Stream(name=name, size=self._size, sha256=self._sum.digest(), chunks=bytes(self._names))
