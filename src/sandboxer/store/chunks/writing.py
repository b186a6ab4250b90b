"""Make a snapshot: cut its streams, and keep the chunks that are new."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandboxer.errors import OverQuota
from sandboxer.store import private_files
from sandboxer.store.chunks import packs
from sandboxer.store.chunks.chunker import Chunker
from sandboxer.store.chunks.packs import Chunk, PackWriter
from sandboxer.store.chunks.recipes import Stream


class SnapshotWriter:
    """A snapshot that is being made: `size_bytes` came, `stored_bytes` of them were new, compressed."""

    def __init__(self, directory: Path, known: dict[bytes, Chunk], *, used: int, max_bytes: int | None) -> None:
        self._directory, self._known = directory, known
        self._room = None if max_bytes is None else max_bytes - used
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
        name = packs.identity(data)
        self.size_bytes += len(data)
        if name not in self._known:
            with private_files.refusals("write", self._directory):
                self._pack = self._pack or PackWriter(self._directory)
                chunk = self._known[name] = self._pack.add(name, data)
            self.stored_bytes += chunk.stored
            if self._room is not None and self.stored_bytes > self._room:
                raise OverQuota(
                    "snapshots: max_bytes is reached", retry_after=60, hint="delete some: `sandboxer snapshots list`"
                )
            if self._pack.size >= packs.PACK_BYTES:
                self.finish()
        return name

    def finish(self) -> None:
        """Make what was added durable."""
        if self._pack is not None:
            with private_files.refusals("write", self._directory):
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
