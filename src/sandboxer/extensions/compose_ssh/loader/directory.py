"""Reads files beneath a local directory: component by component, so that no link leads out of it at any moment."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sandboxer.errors import Denied, Invalid, NotFound

_MOST_LINKS: Final = 40
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class DirectoryReader:
    """A `Reader` of the directory that `root` is when this is made.

    A link inside is followed as long as it stays beneath the root; an absolute one, or one that climbs out, is Denied.
    """

    def __init__(self, root: Path | str, *, most_bytes: int = 1024 * 1024) -> None:
        self._most = most_bytes
        try:
            self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Invalid(
                f"repo {str(root)[:200]!r} cannot be opened: {error.strerror}",
                hint="give the repository with --input repo=PATH",
            ) from error

    def close(self) -> None:
        """Let the directory go."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def __enter__(self) -> DirectoryReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def exists(self, path: str) -> bool:
        """Whether there is a file at `path` that may be read: a link out of the repository is Denied, not absent."""
        try:
            descriptor = self._walk(path)
        except NotFound:
            return False
        try:
            return not stat.S_ISDIR(os.fstat(descriptor).st_mode)  # a virtual environment may be called `.env`
        finally:
            os.close(descriptor)

    def read(self, path: str) -> bytes:
        """The bytes of the file at `path`."""
        with self._opened(path) as descriptor:
            chunks = []
            left = self._most + 1
            while left > 0 and (chunk := os.read(descriptor, min(left, 1 << 16))):
                chunks.append(chunk)
                left -= len(chunk)
        if left <= 0:
            raise Invalid(f"{path[:200]} is larger than {self._most // 1024} KiB", hint="a compose file is a few KiB")
        return b"".join(chunks)

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        descriptor = self._walk(path)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Invalid(f"{path[:200]} is not a regular file", hint="name a file of the repository")
            yield descriptor
        finally:
            os.close(descriptor)

    def _walk(self, path: str) -> int:
        if "\0" in path or path.startswith("/") or not path:
            raise Denied(f"{path[:200]!r} is not a path inside the repository", hint="give a relative path")
        left = _parts(path)
        held: list[int] = [os.dup(self._root)]
        links = 0
        try:
            while left:
                part = left.pop(0)
                if part == "..":
                    if len(held) == 1:
                        raise _out(path)
                    os.close(held.pop())
                    continue
                opened, target = _step(held[-1], part, path, last=not left)
                if target is None:
                    held.append(opened)
                    continue
                links += 1
                if links > _MOST_LINKS:
                    raise Invalid(f"{path[:200]} is a loop of links", hint="put the file itself into the repository")
                if target.startswith("/"):
                    raise _out(path)
                left = [*_parts(target), *left]
            return held.pop()
        finally:
            for descriptor in held:
                os.close(descriptor)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _out(path: str) -> Denied:
    return Denied(f"{path[:200]} leads out of the repository", hint="put the file itself into the repository")


def _step(directory: int, part: str, path: str, *, last: bool) -> tuple[int, str | None]:
    """The descriptor of `part`, or where it leads as a link."""
    try:
        return os.open(part, _FILE if last else _DIRECTORY, dir_fd=directory), None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            # a link, or (ENOTDIR) a link where a directory was wanted: what is read now is checked like any path
            with contextlib.suppress(OSError):
                return -1, os.readlink(part, dir_fd=directory)
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotFound(f"{path[:200]} is not in the repository", hint="check the path") from error
        if error.errno == errno.EACCES:
            raise Denied(f"{path[:200]} cannot be read: {error.strerror}", hint="check its permissions") from error
        raise Invalid(f"{path[:200]} cannot be read: {error.strerror}", hint="check the path") from error
