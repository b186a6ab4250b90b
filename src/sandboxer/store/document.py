"""One JSON document on disk: replaced as a whole, durably, under a lock; read at any moment without one.

Knows nothing of what is in it. `sandboxes.json` is one; snapshots and credits are others in the same directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from sandboxer.errors import SandboxerError
from sandboxer.store import private_files
from sandboxer.store.file_lock import locked

if TYPE_CHECKING:
    from pathlib import Path

LOCK_SECONDS = 30.0
"""How long a writer waits for the others, in seconds. 64 writers at once need about 2 s (tests/store)."""

_HEAD = 128
_RESERVE_LEAST = 1 << 20


class VersionStamp(NamedTuple):
    """What tells one version of the document from another without reading it.

    Inodes are reused at once and clocks tick in milliseconds, so the first bytes belong to it: a document that
    counts its versions there is told apart for certain."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    head: bytes


class DocumentVersion(NamedTuple):
    """A version of the document; `data` is None when it is the one that the reader knows already."""

    stamp: VersionStamp
    data: bytes | None


class AtomicDocument:
    """A file that is always whole: a reader sees the old document or the new one, and so does a power cut.

    Beside it live `.NAME.lock` (never deleted), `.NAME.tmp` (only while writing, and after a crash until the next
    write) and `.reserve`, space that is given up when something must be recorded on a full disk."""

    def __init__(self, path: Path, *, lock_seconds: float = LOCK_SECONDS) -> None:
        self.path = path
        self._directory = path.parent
        self._lock = path.with_name(f".{path.name}.lock")
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._reserve = path.with_name(".reserve")
        self.lock_seconds = lock_seconds

    def read(self, *, unless: VersionStamp | None = None) -> DocumentVersion | None:
        """The document as it is now, or None when there is none; without its data when it still is `unless`.

        Raises StoreCorrupt for what is not a plain file, Denied and Unavailable when it cannot be read."""
        with private_files.refusals("read", self.path):
            descriptor = private_files.open_regular(self.path)
            if descriptor is None:
                return None
            try:
                stamp = _stamp(descriptor)
                return DocumentVersion(stamp, None if stamp == unless else private_files.read_all(descriptor))
            finally:
                private_files.close(descriptor)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the document for writing; makes the directory. Raises Unavailable after `lock_seconds`."""
        with private_files.refusals("use", self._directory):
            private_files.ensure_directory(self._directory)
        with locked(self._lock, seconds=self.lock_seconds):
            yield

    def replace(self, data: bytes, *, must_succeed: bool = False) -> VersionStamp | None:
        """Make `data` the document, durably; only under `locked`. Raises as `disk.refusal` says; then nothing changed.

        `must_succeed` gives up the reserve when the disk is full. Answers the stamp of what was written; None when
        the system would not tell it, which is no reason to call a write failed that has succeeded."""
        with private_files.refusals("write", self.path):
            try:
                stamp = self._replace(data)
            except OSError as error:
                if not (must_succeed and error.errno in private_files.FULL and self._give_up_reserve()):
                    raise
                stamp = self._replace(data)
        self._keep_reserve(len(data))
        return stamp

    def _replace(self, data: bytes) -> VersionStamp | None:
        descriptor = self._open_temporary()
        try:
            private_files.write_all(descriptor, data)
            self._flush(descriptor)
            self._publish()
            with suppress(OSError):
                return _stamp(descriptor)
            return None
        except BaseException:
            with suppress(OSError):  # the next writer removes it; what went wrong first is what is told
                self._temporary.unlink(missing_ok=True)
            raise
        finally:
            private_files.close(descriptor)

    def _open_temporary(self) -> int:
        try:
            return private_files.create_private(self._temporary, os.O_RDWR)
        except FileExistsError:  # of a writer that was killed; the lock says that it is nobody's now
            self._temporary.unlink()
            return private_files.create_private(self._temporary, os.O_RDWR)

    def _flush(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def _publish(self) -> None:
        """Rename, then make the name durable; if that fails, what was there before is put back."""
        before = private_files.open_regular(self.path)
        try:
            self._temporary.replace(self.path)
            try:
                private_files.flush_directory(self._directory)
            except OSError:
                self._put_back(before)
                raise
        finally:
            if before is not None:
                private_files.close(before)

    def _put_back(self, before: int | None) -> None:
        try:
            if before is None:
                self.path.unlink()
                return
            descriptor = self._open_temporary()
            try:
                private_files.write_all(descriptor, private_files.read_all(before))
                self._flush(descriptor)
                self._temporary.replace(self.path)
            finally:
                private_files.close(descriptor)
        except OSError as error:
            raise _doubtful(self.path, error) from error

    def _give_up_reserve(self) -> bool:
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True

    def _keep_reserve(self, size: int) -> None:
        """Set space aside for the next document, twice if there is room. Never fails a write that has succeeded."""
        there = 0
        with suppress(OSError):
            there = self._reserve.stat().st_size
        if there >= max(_RESERVE_LEAST, size + size // 2):
            return
        for wanted in (max(_RESERVE_LEAST, 2 * size), size + size // 4 + 65536):
            if wanted <= there:
                return
            with suppress(OSError):
                self._set_aside(wanted, before=there)
                return

    def _set_aside(self, size: int, *, before: int) -> None:
        descriptor = private_files.open_private(self._reserve, os.O_RDWR)
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError:  # what it did get goes back: others may need it more
            os.ftruncate(descriptor, before)
            raise
        finally:
            private_files.close(descriptor)


def _stamp(descriptor: int) -> VersionStamp:
    status = os.fstat(descriptor)
    head = os.pread(descriptor, _HEAD, 0)
    return VersionStamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, head)


def _doubtful(path: Path, error: OSError) -> SandboxerError:
    refusal = private_files.refusal(error, doing="write", path=path)
    refusal.outcome = "unknown"
    return refusal
