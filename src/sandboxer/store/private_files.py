"""Private files: how they are made, opened and flushed, and how the disk's refusals read. Knows no format."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sandboxer.errors import Denied, SandboxerError, StoreCorrupt, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
DOCTOR = "run `sandboxer doctor`; the file is kept as it is"


def refusal(error: OSError, *, doing: str, path: Path) -> SandboxerError:
    """What an error of the operating system means to the person who asked.

    Denied where the owner or mode forbids it (trying again is no use); Unavailable for everything a disk does."""
    if error.errno in FULL:
        return Unavailable(f"no space left to {doing} {path}", hint="free some space on that file system and try again")
    if error.errno == errno.EROFS:
        return Unavailable(
            f"cannot {doing} {path}: the file system is read-only",
            hint="mount it writable, or set SANDBOXER_DATA_DIR to a directory that is",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return Denied(
            f"cannot {doing} {path}: permission denied",
            hint="run as the user that owns the data directory, or set SANDBOXER_DATA_DIR to one of your own",
        )
    if error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
        return Unavailable(
            f"cannot {doing} {path}: {os.strerror(error.errno)}",
            hint="set SANDBOXER_DATA_DIR to a directory",
            retryable=False,
        )
    return Unavailable(
        f"cannot {doing} {path}: {error.strerror or error}",
        hint="check the disk (`dmesg`, `df`) and try again",
    )


@contextmanager
def refusals(doing: str, path: Path) -> Iterator[None]:
    """Turn what the operating system raises inside into a typed error that names `path`."""
    try:
        yield
    except OSError as error:
        raise refusal(error, doing=doing, path=path) from error


def ensure_directory(path: Path) -> None:
    """Make `path`, and the parents that are missing, with mode 0700 whatever the umask; tighten it if it is looser.

    Raises Denied when it belongs to another user: files of ours in it would be the owner's to swap. root may, and
    hands what it makes to the owner, who would be locked out otherwise."""
    make_directories(path)
    status = path.stat()
    user = os.geteuid()
    if status.st_uid != user and user != 0:
        raise Denied(
            f"the data directory {path} belongs to another user (uid {status.st_uid})",
            hint="run as that user, or set SANDBOXER_DATA_DIR to a directory of your own",
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        path.chmod(0o700)


def make_directories(path: Path) -> None:
    """Make `path`, and the parents that are missing, durably; each as `make_directory` does. Raises OSError."""
    missing = []
    for directory in (path, *path.parents):
        if directory.is_dir():
            break
        missing.append(directory)
    for directory in reversed(missing):
        make_directory(directory)
        flush_directory(directory.parent)


def make_directory(path: Path) -> None:
    """Make one directory, if it is missing, with mode 0700 whatever the umask. What root makes is the owner's in whose
    directory it lies. Raises OSError."""
    with suppress(FileExistsError):  # another process was faster
        path.mkdir(mode=0o700)
        path.chmod(0o700)
        if (owner := _other_owner(path.parent)) is not None:
            os.chown(path, *owner)


def _other_owner(directory: Path) -> tuple[int, int] | None:
    """The owner and group that root must give new files in `directory` to; None when they are right already."""
    if os.geteuid() != 0:
        return None
    status = directory.stat()
    return None if status.st_uid == 0 else (status.st_uid, status.st_gid)


def create_private(path: Path, flags: int) -> int:
    """Create `path` with mode 0600 and open it; raises FileExistsError when something is there, links included."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # a umask can only take bits away, and some take ours
        if (owner := _other_owner(path.parent)) is not None:
            os.fchown(descriptor, *owner)
    except BaseException:
        close(descriptor)
        with suppress(OSError):
            path.unlink()
        raise
    return descriptor


def open_private(path: Path, flags: int) -> int:
    """Open `path`, created private when it is missing. What exists keeps its mode and owner: it might be a link."""
    for _ in range(8):
        try:
            return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            with suppress(FileExistsError):  # another process was faster: open that one
                return create_private(path, flags)
    raise OSError(errno.EBUSY, "appears and disappears", str(path))


def open_regular(path: Path) -> int | None:
    """Open a file of ours for reading; None when there is none. Raises StoreCorrupt for anything but a plain file."""
    try:
        # Without O_NONBLOCK a pipe of that name would hold us for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO) and os.path.lexists(path):
            raise StoreCorrupt(f"{path} is not a regular file", hint=DOCTOR) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        close(descriptor)
        raise StoreCorrupt(f"{path} is not a regular file", hint=DOCTOR)
    return descriptor


def read_file(path: Path) -> bytes:
    """What is in a file of ours; nothing where there is none."""
    with refusals("read", path):
        descriptor = open_regular(path)
        if descriptor is None:
            return b""
        try:
            return read_all(descriptor)
        finally:
            close(descriptor)


def close(descriptor: int) -> None:
    """Close; what the system says against it is no news: what had to be durable was flushed before, and told there."""
    with suppress(OSError):
        os.close(descriptor)


def read_all(descriptor: int) -> bytes:
    """The whole file, from its beginning."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    size = os.fstat(descriptor).st_size
    parts = []
    while part := os.read(descriptor, max(size, 65536)):
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`; a disk that fills up half-way answers with a short count first."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def flush_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        close(descriptor)
