"""Locks on single bytes of one file, held by open file descriptions.

A sandbox id spells a number in base 36, so each sandbox has bytes of its own in `<data>/.locks`. There is one file
however many sandboxes there were, nothing to clean up, no disk space needed, and the kernel lets go of a dead process's
locks at once. The file is never deleted.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from sandboxer.errors import Invalid, Unavailable, Unsupported
from sandboxer.names import ID
from sandboxer.store import private_files

FILE: Final = ".locks"
WORK: Final = 0
"""The first byte for the locks of commands that work on a sandbox."""
GUARD: Final = 26 * 36**11
"""The first byte for the guards of leases. Ids start with a letter, so they spell 10 * 36**11 up to 36**12: both ranges
are apart, and below 2**63."""
_WITHOUT_LOCKS = frozenset({errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
"""What file systems say that have no locks."""
_BUSY = frozenset({errno.EAGAIN, errno.EACCES})


class LockFile:
    """The lock file of one data directory. Locks exclude one another also between threads of one process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / FILE

    def try_take(self, sandbox_id: str, *, first: int, shared: bool = False) -> int | None:
        """A descriptor that holds a sandbox's byte; closing its last copy lets go. None when another has it.

        Raises Unavailable or Denied (the data directory refuses), Unsupported (a system without such locks) or
        Invalid."""
        return self.take_byte(first + _number(sandbox_id), shared=shared)

    def take_byte(self, offset: int, *, shared: bool = False) -> int | None:
        """A descriptor that holds this byte; as `try_take`."""
        try:
            while True:
                fd = self._open()
                try:
                    taken = _lock(fd, offset, shared=shared)
                    current = taken and self._is_current(fd)
                except BaseException:
                    os.close(fd)
                    raise
                if current:
                    return fd
                os.close(fd)
                if not taken:
                    return None
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                raise Unavailable(
                    f"the locks in {self._path} cannot be used: {error.strerror}",
                    hint="keep the data directory on a local file system: set SANDBOXER_DATA_DIR to a directory there",
                    retryable=False,
                ) from error
            raise private_files.refusal(error, doing="lock", path=self._path) from error

    def _open(self) -> int:
        try:
            return private_files.open_private(self._path, os.O_RDWR)
        except FileNotFoundError:
            private_files.make_directories(self._directory)
            return private_files.open_private(self._path, os.O_RDWR)

    def _is_current(self, fd: int) -> bool:
        """Whether the file is still the one that others open: somebody may have removed it between open and lock."""
        try:
            return os.path.samestat(os.fstat(fd), self._path.stat())
        except FileNotFoundError:
            return False


def is_lock(fd: int) -> bool:
    """Whether a descriptor is of a lock file."""
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}")).name == FILE  # noqa: PTH115 - of a magic link
    except OSError:
        return False


def _number(sandbox_id: str) -> int:
    if not ID.fullmatch(sandbox_id):
        raise Invalid(f"{sandbox_id[:80]!r} is not a sandbox id", hint="run `sandboxer list` to see the ids")
    return int(sandbox_id, 36)


def _lock(fd: int, offset: int, *, shared: bool) -> bool:
    command = getattr(fcntl, "F_OFD_SETLK", None)
    if command is None:
        raise Unsupported(
            "this system has no locks that belong to an open file (F_OFD_SETLK)",
            hint="run sandboxer on Linux, and place sandboxes from there",
        )
    # struct flock: type, whence, start, length, pid (0 for this kind), padded to a whole number of words
    wish = struct.pack("hhqqi0q", fcntl.F_RDLCK if shared else fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
    try:
        fcntl.fcntl(fd, command, wish)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise
    return True
