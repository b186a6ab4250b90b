"""So many at once: slots that are held by a descriptor, so that a dead process gives its own back."""

from __future__ import annotations

from pathlib import Path

from sandboxer.locks.byte_locks import LockFile
from sandboxer.locks.sandbox_lock import SandboxLock

MOST = 1 << 16
"""More slots than this have no bytes of their own."""


class Slots:
    """Slots by name, for all processes that use one data directory.

    Their bytes are in the lock file, below those of the sandboxes: ids start with a letter, so they spell at least
    10 * 36**11, which is above 2**60."""

    def __init__(self, directory: Path) -> None:
        self._file = LockFile(directory)

    def try_take(self, name: str, count: int) -> SandboxLock | None:
        """One of the `count` slots of this name, or None when all are taken. Raises as `SandboxLocks` does."""
        import hashlib  # only those with a quota pay for it

        first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:5]) * MOST
        for number in range(min(count, MOST)):
            descriptor = self._file.take_byte(first + number)
            if descriptor is not None:
                return SandboxLock(descriptor)
        return None
