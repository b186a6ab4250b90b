"""The file of one lease: written so that nobody ever sees half of it, and told from foreign files."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import string
from pathlib import Path

import msgspec

from sandboxer.models import Value
from sandboxer.names import random_text
from sandboxer.store import private_files

NEW = ".new-"
"""How a temporary name starts."""
_LETTERS = string.ascii_lowercase + string.digits
_ID_LENGTH = 12
_LIMIT = 64 * 1024


class Lease(Value, frozen=True, kw_only=True):
    """Somebody uses a sandbox. Times are unix seconds; `expires_at` None: until the process that holds it ends."""

    lease_id: str
    sandbox_id: str
    holder: str
    acquired_at: float
    expires_at: float | None = None


def new_lease_id() -> str:
    """A fresh lease id."""
    return random_text(_LETTERS, _ID_LENGTH)


def is_lease_id(name: str) -> bool:
    """Whether a lease could have this name."""
    return len(name) == _ID_LENGTH and all(letter in _LETTERS for letter in name)


def names(path: Path) -> list[str]:
    """What is in a directory; nothing when there is none."""
    try:
        return os.listdir(path)  # noqa: PTH208 - plain names
    except FileNotFoundError:
        return []


def write_new(path: Path, lease: Lease) -> int:
    """The lease's file under a temporary name, locked before anybody can look at it; its descriptor."""
    temporary = path / (NEW + lease.lease_id)
    try:
        fd = private_files.create_private(temporary, os.O_RDWR)
    except FileNotFoundError:
        private_files.make_directories(path.parent)
        private_files.make_directory(path)  # not durably: after a power loss there is no holder
        fd = private_files.create_private(temporary, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        left = memoryview(msgspec.json.encode(lease))
        while left:
            left = left[os.write(fd, left) :]
    except BaseException:
        os.close(fd)
        temporary.unlink(missing_ok=True)
        raise
    return fd


def read(path: Path, name: str) -> Lease | None:
    """The lease in a file; None when it is gone or is not one of ours."""
    try:
        fd = os.open(path / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):  # gone, a symbolic link, a socket
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        lease = msgspec.json.decode(os.read(fd, _LIMIT), type=Lease)
    except msgspec.DecodeError:
        return None
    finally:
        os.close(fd)
    return lease if (lease.lease_id, lease.sandbox_id) == (name, path.name) else None


def is_held(path: Path) -> bool:
    """Whether the process that made the file still has it open."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look do not take one another for the holder
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
