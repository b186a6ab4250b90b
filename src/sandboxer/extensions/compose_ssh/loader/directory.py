"""Read files beneath a local directory: no link leads out of it at any moment."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sandboxer.errors import Denied, Invalid, NotFound
from sandboxer.extensions.compose_ssh.loader.limits import DEFAULT
from sandboxer.hosts.trees import beneath


class DirectoryReader:
    """A `FileReader` of the directory that `root` is when this is made.

    A link inside is followed as long as it stays beneath the root; an absolute one, or one that climbs out, is Denied.
    """

    def __init__(self, root: Path | str, *, most_bytes: int = DEFAULT.file_bytes) -> None:
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
        with self._opened(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
            data = file.read(self._most + 1)
        if len(data) > self._most:
            raise Invalid(f"{path[:200]} is larger than {self._most // 1024} KiB", hint="a compose file is a few KiB")
        return data

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
        try:
            return beneath.follow_at(self._root, path)
        except beneath.LinkLoop as error:
            raise Invalid(f"{path[:200]} is a loop of links", hint="put the file itself into the repository") from error
        except beneath.LinkOnPath as error:
            raise Denied(
                f"{path[:200]} leads out of the repository", hint="put the file itself into the repository"
            ) from error
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise NotFound(f"{path[:200]} is not in the repository", hint="check the path") from error
            if error.errno == errno.EACCES:
                raise Denied(f"{path[:200]} cannot be read: {error.strerror}", hint="check its permissions") from error
            raise Invalid(f"{path[:200]} cannot be read: {error.strerror}", hint="check the path") from error
