"""Write and read packs: files of up to 32 MiB of compressed chunks, whose index is their end.

A pack gets its name when it is whole and flushed, and is never written to again.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from sandboxer.errors import StoreCorrupt
from sandboxer.store import private_files
from sandboxer.store.chunks.chunker import LONGEST

if TYPE_CHECKING:
    import zstandard

PACK_BYTES: Final = 32 << 20
"""A pack is closed once it holds so much."""
LEVEL: Final = 3
"""zstd's own default; level 1 was a fifth faster for a tenth more bytes (decision 0034)."""
NAME: Final = re.compile(r"[0-9a-f]{32}\.pack")
HINT: Final = "run `sandboxer snapshots verify` on each snapshot; what is damaged is kept as it is"

_MAGIC: Final = b"sbxpack1"
_ROW: Final = struct.Struct("<32sQII")  # identity, offset, stored, size
_END: Final = struct.Struct("<Q32s8s")  # rows, SHA-256 of them, magic


class Chunk(NamedTuple):
    """Where a chunk is: its pack, and the place in it; `stored` bytes there are `size` bytes of a stream."""

    pack: str
    offset: int
    stored: int
    size: int


def identity(data: bytes) -> bytes:
    """What a chunk is called: its SHA-256."""
    return hashlib.sha256(data).digest()


class PackWriter:
    """A pack that is being written, under a name that nobody reads."""

    def __init__(self, directory: Path) -> None:
        import zstandard

        self._compressor: zstandard.ZstdCompressor = zstandard.ZstdCompressor(level=LEVEL)
        self._directory = directory
        self.name = f"{secrets.token_hex(16)}.pack"
        self._temporary = directory / f".{self.name}.tmp"
        self._descriptor = private_files.create_private(self._temporary, os.O_WRONLY)
        private_files.write_all(self._descriptor, _MAGIC)
        self._rows: list[bytes] = []
        self.size = len(_MAGIC)

    def add(self, name: bytes, data: bytes) -> Chunk:
        """Write a chunk."""
        return self.add_compressed(name, self._compressor.compress(data), size=len(data))

    def add_compressed(self, name: bytes, stored: bytes, *, size: int) -> Chunk:
        """Write a chunk as it is in another pack."""
        private_files.write_all(self._descriptor, stored)
        chunk = Chunk(self.name, self.size, len(stored), size)
        self._rows.append(_ROW.pack(name, chunk.offset, chunk.stored, size))
        self.size += len(stored)
        return chunk

    @property
    def whole_size(self) -> int:
        """How large its file is once its index is written."""
        return self.size + len(self._rows) * _ROW.size + _END.size

    def publish(self) -> None:
        """Write the index, flush, and give it its name; durable when this returns."""
        rows = b"".join(self._rows)
        private_files.write_all(
            self._descriptor, rows + _END.pack(len(self._rows), hashlib.sha256(rows).digest(), _MAGIC)
        )
        os.fsync(self._descriptor)
        self._temporary.rename(self._directory / self.name)
        private_files.flush_directory(self._directory)
        self._close()

    def discard(self) -> None:
        """Take it away, unless it has its name."""
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            private_files.close(descriptor)


def names(directory: Path) -> list[str]:
    """The packs that are there, in an order that does not change."""
    return sorted(path.name for path in directory.iterdir() if NAME.fullmatch(path.name))


def read_index(directory: Path, name: str) -> list[tuple[bytes, Chunk]]:
    """What is in a pack. Raises StoreCorrupt for one whose end is damaged."""
    path = directory / name
    with private_files.refusals("read", path):
        descriptor = private_files.open_regular(path)
        if descriptor is None:
            raise StoreCorrupt(f"{path} is missing", hint=HINT)
        try:
            length = os.fstat(descriptor).st_size
            end = os.pread(descriptor, _END.size, max(0, length - _END.size))
            count, told, magic = _END.unpack(end) if len(end) == _END.size else (0, b"", b"")
            begin = length - _END.size - count * _ROW.size
            if magic != _MAGIC or begin < len(_MAGIC):
                raise StoreCorrupt(f"{path} is damaged: it does not end as a pack does", hint=HINT)
            rows = _pread(descriptor, count * _ROW.size, begin)
        finally:
            private_files.close(descriptor)
    if hashlib.sha256(rows).digest() != told:
        raise StoreCorrupt(f"{path} is damaged: its index is not what was written", hint=HINT)
    return [(row[0], Chunk(name, *row[1:])) for row in _ROW.iter_unpack(rows)]


class PackReader:
    """Reads chunks; keeps a few packs open."""

    OPEN: Final = 32

    def __init__(self, directory: Path) -> None:
        import zstandard

        self._decompressor: zstandard.ZstdDecompressor = zstandard.ZstdDecompressor()
        self._directory = directory
        self._open: dict[str, int] = {}

    def read(self, name: bytes, chunk: Chunk) -> bytes:
        """A chunk's bytes, which are those that were kept; raises StoreCorrupt where they are not."""
        import zstandard

        stored = self.read_compressed(chunk)
        try:
            # its head is asked first: zstd makes room for what a head says
            fits = zstandard.frame_content_size(stored) == chunk.size <= LONGEST
            data = self._decompressor.decompress(stored) if fits else None
        except zstandard.ZstdError:
            data = None
        if data is None or identity(data) != name:
            raise StoreCorrupt(f"{self._directory / chunk.pack} is damaged at {chunk.offset}", hint=HINT)
        return data

    def read_compressed(self, chunk: Chunk) -> bytes:
        """A chunk's bytes as they are in the pack, unproved."""
        path = self._directory / chunk.pack
        with private_files.refusals("read", path):
            if (descriptor := self._open.get(chunk.pack)) is None:
                while len(self._open) >= self.OPEN:
                    private_files.close(self._open.pop(next(iter(self._open))))
                descriptor = private_files.open_regular(path)
                if descriptor is None:
                    raise StoreCorrupt(f"{path} is missing", hint=HINT)
                self._open[chunk.pack] = descriptor
            return _pread(descriptor, chunk.stored, chunk.offset)

    def close(self) -> None:
        """Close what is open."""
        while self._open:
            private_files.close(self._open.popitem()[1])


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    """So many bytes, fewer only at the end of the file."""
    parts, left = [], size
    while left and (part := os.pread(descriptor, left, offset)):
        parts.append(part)
        left -= len(part)
        offset += len(part)
    return b"".join(parts)
