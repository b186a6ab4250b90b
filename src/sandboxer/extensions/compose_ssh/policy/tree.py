"""A local repository for the gate: read beneath its root, without following a link."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sandboxer.extensions.compose_ssh.policy.values import Kind

MAX_BYTES: Final = 1024 * 1024
"""Of a Dockerfile: they are a few KiB."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalTree:
    """A directory of this machine. Each step of a path is opened from the one before, so that none is a link."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def kind(self, path: str) -> Kind:
        """What is at `path`; missing too when a parent is no directory."""
        parent, _, name = path.rpartition("/")
        if not path:
            return "directory"
        try:
            with self._open(parent) as descriptor:
                return _kind(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode)
        except OSError:
            return "missing"

    def read(self, path: str) -> bytes | None:
        """The bytes of the regular file at `path`."""
        parent, _, name = path.rpartition("/")
        try:
            with self._open(parent) as directory:
                # not to wait for the other end of a pipe
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                with os.fdopen(os.open(name, flags, dir_fd=directory), "rb") as file:
                    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                        return None
                    data = file.read(MAX_BYTES + 1)
        except OSError:
            return None
        return data if len(data) <= MAX_BYTES else None

    def entries(self, path: str) -> Mapping[str, Kind]:
        """What lies in the directory at `path`; nothing when it is none."""
        try:
            with self._open(path) as descriptor, os.scandir(descriptor) as found:
                return {entry.name: _kind(entry.stat(follow_symlinks=False).st_mode) for entry in found}
        except OSError:
            return {}

    def target(self, path: str) -> str:
        """What the link at `path` says; "" when it is none."""
        parent, _, name = path.rpartition("/")
        try:
            with self._open(parent) as descriptor:
                return os.readlink(name, dir_fd=descriptor)
        except OSError:
            return ""

    @contextmanager
    def _open(self, path: str) -> Iterator[int]:
        # the root itself may be named by a link: the operator chose it
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in path.split("/") if path else ():
                inner = os.open(part, _DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)


def _kind(mode: int) -> Kind:
    if stat.S_ISLNK(mode):
        return "link"
    if stat.S_ISDIR(mode):
        return "directory"
    return "file" if stat.S_ISREG(mode) else "other"
