"""Read a local repository for the policy: beneath its root, without following a link."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sandboxer.document_bounds import SMALL
from sandboxer.extensions.compose_ssh.policy.verdict import Kind
from sandboxer.hosts.trees import beneath


class LocalTree:
    """A directory of this machine, in which no link is followed."""

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
        try:
            with self._open(path, beneath.READ) as descriptor, open(descriptor, "rb", closefd=False) as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return None
                data = file.read(SMALL.size + 1)
        except OSError:
            return None
        return data if len(data) <= SMALL.size else None

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
    def _open(self, path: str, flags: int = os.O_RDONLY | os.O_DIRECTORY) -> Iterator[int]:
        # the root itself may be named by a link: the operator chose it
        with beneath.directory(self._root) as root:
            descriptor = beneath.open_at(root, path, flags)
            try:
                yield descriptor
            finally:
                os.close(descriptor)


def _kind(mode: int) -> Kind:
    if stat.S_ISLNK(mode):
        return "link"
    if stat.S_ISDIR(mode):
        return "directory"
    return "file" if stat.S_ISREG(mode) else "other"
