"""Describe a resolved compose project, and how the files of a repository are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

Path = tuple[str | int, ...]
"""Where a value is in a document: keys and indices."""


class Origin(msgspec.Struct, frozen=True):
    """Where a value was written. `file` is relative to the repository."""

    file: str
    line: int


class Project(msgspec.Struct, frozen=True):
    """A compose project in docker compose v2's canonical form: nothing in it refers to another file or variable.

    `origins` maps a path in `document` to where it was written; a path that is not in it came with its nearest
    ancestor that is. `files` are the files of the repository that were read.
    """

    name: str
    document: dict[str, Any]
    origins: Mapping[Path, Origin]
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def origin(self, path: Path) -> Origin | None:
        """The origin of `path`, or of its nearest ancestor that has one."""
        for end in range(len(path), -1, -1):
            found = self.origins.get(path[:end])
            if found is not None:
                return found
        return None


class FileReader(Protocol):
    """Reads files of a repository: beneath its root only, links out of it refused, sizes bounded."""

    def read(self, path: str) -> bytes:
        """The bytes of the file at `path`, relative to the root. Raises Invalid, Denied or NotFound."""

    def exists(self, path: str) -> bool:
        """Whether there is a file at `path`."""
