"""Opening what lies beneath a directory once, and working on it by descriptor.

A name that is checked first and opened later may lead elsewhere by then: whoever can write a directory on the way puts
a link there. What is opened here is opened one component at a time, each relative to the descriptor of the one before,
never through a link, and is reached by its descriptor from then on.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

WAY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a directory on the way is opened: the right to pass it is enough."""
READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
"""How the end of the way is opened: a FIFO does not hold us up."""
_MAX_LINKS: Final = 40
"""As many links as the kernel itself follows in one path."""


class LinkOnPath(OSError):
    """There is a link on the way."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.ELOOP, "a link leads elsewhere", path)


class LinkLoop(LinkOnPath):
    """More links than the kernel follows."""


def parts_of(path: str | PurePosixPath) -> tuple[str, ...]:
    """The components of a relative path; raises LinkOnPath for one that could climb."""
    parts = tuple(part for part in PurePosixPath(path).parts if part != ".")
    if any(part in ("..", "/") or "\0" in part for part in parts):
        raise LinkOnPath(str(path)[:200])
    return parts


def open_at(directory: int, path: str | PurePosixPath, flags: int = READ) -> int:
    """Open `path` beneath an open directory; no component may be a link. Raises LinkOnPath for one, OSError
    otherwise."""
    parts = parts_of(path) or (".",)
    at = directory
    try:
        for part in parts[:-1]:
            after = _step(at, part, WAY, path)
            if at != directory:
                os.close(at)
            at = after
        return _step(at, parts[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, path)
    finally:
        if at != directory:
            os.close(at)


def open_beneath(root: Path, path: Path, flags: int = READ) -> int:
    """Open the absolute `path`, which names something in `root` or `root` itself, without a link below it (`root` is
    the operator's: links in it are followed). Raises LinkOnPath, OSError; ValueError when it does not lie there."""
    relative = str(path.relative_to(root))
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_at(top, relative, flags)
    finally:
        os.close(top)


def follow_at(directory: int, path: str | PurePosixPath, flags: int = READ) -> int:
    """Open `path` beneath an open directory, following links (and `..`) as long as they stay beneath it, each name
    resolved here and none by the kernel. Raises LinkOnPath for one that leaves, LinkLoop for too many;
    OSError otherwise."""
    waiting, ways, links = _reversed_parts(str(path), path), [os.dup(directory)], 0
    try:
        while waiting:
            part = waiting.pop()
            if part == "..":
                if len(ways) == 1:
                    raise LinkOnPath(str(path))
                os.close(ways.pop())
                continue
            try:
                if not waiting:
                    return os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=ways[-1])
                ways.append(os.open(part, WAY, dir_fd=ways[-1]))
            except OSError as error:
                target = _target(ways[-1], part) if error.errno in (errno.ELOOP, errno.ENOTDIR) else None
                if target is None:
                    raise OSError(error.errno, error.strerror, str(path)) from error
                links += 1
                if links > _MAX_LINKS:
                    raise LinkLoop(str(path)) from error
                waiting += _reversed_parts(target, path)
        return os.open(".", flags | os.O_CLOEXEC, dir_fd=ways[-1])
    finally:
        for way in ways:
            os.close(way)


def _reversed_parts(written: str, path: object) -> list[str]:
    if written.startswith("/") or "\0" in written:
        raise LinkOnPath(str(path)[:200])
    return [part for part in reversed(written.split("/")) if part not in ("", ".")]


def _target(at: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=at)
    except OSError:
        return None


def _step(at: int, part: str, flags: int, path: object) -> int:
    try:
        return os.open(part, flags, dir_fd=at)
    except OSError as error:
        # of a link, O_DIRECTORY says that it is no directory
        if error.errno == errno.ELOOP or (error.errno == errno.ENOTDIR and _target(at, part) is not None):
            raise LinkOnPath(str(path)) from error
        raise OSError(error.errno, error.strerror, str(path)) from error


def written_by_others(status: os.stat_result) -> bool:
    """Whether somebody else than this user and root may change what is in a directory (or the file)."""
    return status.st_uid not in (0, os.geteuid()) or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def others_write_below(top: int) -> bool:
    """Whether somebody else may put something into a directory of the tree; also when that cannot be seen. A program
    that looks names up by itself could then be led out of it."""
    waiting = ["."]
    while waiting:
        prefix = waiting.pop()
        try:
            at = open_at(top, prefix, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return True
        try:
            if written_by_others(os.fstat(at)):
                return True
            with os.scandir(at) as found:
                waiting += [f"{prefix}/{entry.name}" for entry in found if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return True
        finally:
            os.close(at)
    return False


class PinnedPath:
    """A file or directory of this machine that is open. `path` leads to it whatever becomes of its name, for this
    process and for programs that it starts; `name` is what people know it by.

    `strict`: programs that look names up by themselves (rsync) are not let loose on what is below."""

    def __init__(self, fd: int, name: str, *, strict: bool) -> None:
        self.fd = fd
        self.name = name
        self.path = f"/proc/{os.getpid()}/fd/{fd}"
        self.strict = strict
        _held[self.path] = self

    def close(self) -> None:
        """Let go of it."""
        if _held.pop(self.path, None) is not None:
            os.close(self.fd)


_held: dict[str, PinnedPath] = {}
"""What this process holds open, by path: as the kernel's own table, there is one for each process."""


def is_strict(path: Path) -> bool:
    """Whether a tree is only to be read by descriptor: one that is held so."""
    held = _held.get(str(path))
    return held is not None and held.strict


def name_of(path: Path) -> str:
    """What people know a path by."""
    held = _held.get(str(path))
    return held.name if held is not None else str(path)


def absent(name: str) -> str:
    """A path at which there is nothing and nobody can put anything, for what was not there when it was looked for."""
    return f"/proc/self/fd/absent/{name.strip('/')}"


@contextmanager
def directory(path: Path | str) -> Iterator[int]:
    """A directory, opened once; links in its name are followed."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
