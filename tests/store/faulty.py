"""Documents with a planted fault: each test of the store that matters must see at least one of these fail."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sandboxer.errors import SandboxerError
from sandboxer.store import private_files
from sandboxer.store.document import AtomicDocument, VersionStamp
from sandboxer.store.group_commit import GroupCommit, PendingChange, _decided

S = TypeVar("S")


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
        private_files.ensure_directory(self.path.parent)
        yield


class InPlace(AtomicDocument):
    """Writes over the document that others are reading."""

    def _replace(self, data: bytes) -> VersionStamp | None:
        descriptor = private_files.open_private(self.path, os.O_RDWR)
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

    def _replace(self, data: bytes) -> VersionStamp | None:
        try:
            return super()._replace(data)
        except OSError:
            reading = self.read()
            assert reading is not None
            return reading.stamp


def document(kind: type[AtomicDocument], data: Path) -> AtomicDocument:
    """The document of the store in `data`, of this kind."""
    return kind(data / "sandboxes.json")


class Hasty(GroupCommit[S]):
    """Tells those who wait what was decided, and writes then."""

    def _carry_out(self, changes: Sequence[PendingChange[S]]) -> None:
        before = self._read()
        after, changing = _decided(changes, before, None)
        self._wake([change for change in changes if change.claimed])
        if changing:
            self._write(before, after, False)


class Stubborn(GroupCommit[S]):
    """Lets a decision stand that was made by what was never written."""

    def _carry_out(self, changes: Sequence[PendingChange[S]]) -> None:
        before = self._read()
        after, changing = _decided(changes, before, None)
        try:
            self._write(before, after, False)
        except SandboxerError as error:
            for change in changing:
                change.error = error
