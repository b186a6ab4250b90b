"""Documents with a planted fault: each test of the store that matters must see at least one of these fail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandboxer.store import disk
from sandboxer.store.document import AtomicDocument, Stamp


class WithoutFlush(AtomicDocument):
    """Renames a file whose bytes may not be on the disk."""

    def _flush(self, descriptor: int) -> None:
        pass


class WithoutDirectoryFlush(AtomicDocument):
    """Acknowledges a name that may not be on the disk."""

    def _publish(self) -> None:
        self._temporary.replace(self.path)


class WithoutLock(AtomicDocument):
    """Two writers decide on the same state."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        disk.ensure_directory(self.path.parent)
        yield


class InPlace(AtomicDocument):
    """Writes over the document that others are reading."""

    def _replace(self, data: bytes) -> Stamp | None:
        descriptor = disk.open_private(self.path, os.O_RDWR)
        try:
            os.ftruncate(descriptor, 0)
            for start in range(0, len(data), 256):
                os.write(descriptor, data[start : start + 256])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        reading = self.read()
        assert reading is not None
        return reading.stamp


class WithoutReserve(AtomicDocument):
    """Has nothing to give up when the disk is full."""

    def _keep_reserve(self, size: int) -> None:
        pass


class Hopeful(AtomicDocument):
    """Takes an error of the disk for a success."""

    def _replace(self, data: bytes) -> Stamp | None:
        try:
            return super()._replace(data)
        except OSError:
            reading = self.read()
            assert reading is not None
            return reading.stamp


def document(kind: type[AtomicDocument], data: Path) -> AtomicDocument:
    """The document of the store in `data`, of this kind."""
    return kind(data / "sandboxes.json")
