"""Bound what a compose project may cost, and count what a load has used."""

from __future__ import annotations

from typing import Final

import msgspec

from sandboxer.document_bounds import SMALL
from sandboxer.errors import Invalid


class LoadLimits(msgspec.Struct, frozen=True):
    """The bounds of one load. A file of 1 MiB can stand for billions of values by its aliases."""

    file_bytes: int = SMALL.size
    """Of one file."""
    total_bytes: int = 8 * 1024 * 1024
    """Of all files together."""
    files: int = 1000
    """Files that are read, one that is read again counted each time."""
    depth: int = SMALL.depth
    """Lists and mappings within one another, also by aliases."""
    nodes: int = 200_000
    """Values once aliases are expanded and services are extended."""
    text: int = 8 * 1024 * 1024
    """Characters of all scalars, after aliases and variables."""
    documents: int = 64
    """Documents (`---`) of one file."""
    includes: int = 32
    """Files that include or extend one another."""
    variables: int = 16
    """Variables within one another: `${A:-${B}}`."""
    ports: int = 4096
    """Ports of one range."""
    notes: int = 50
    """Notes that are told of one project."""


DEFAULT: Final = LoadLimits()
TOO_MUCH_TEXT: Final = "more than {} KiB of text once aliases and variables are expanded"


class LoadUsage:
    """What one load has used of its limits."""

    __slots__ = ("_bytes", "_files", "_nodes", "_text", "limits")

    def __init__(self, limits: LoadLimits = DEFAULT) -> None:
        self.limits = limits
        self._bytes = self._files = self._nodes = self._text = 0

    @property
    def text_left(self) -> int:
        """How many characters of text there may still be."""
        return max(0, self.limits.text - self._text)

    def file(self, name: str, size: int) -> None:
        """Count a file that was read. Raises Invalid."""
        self._files += 1
        self._bytes += size
        if size > self.limits.file_bytes:
            raise _over(name, f"is larger than {self.limits.file_bytes // 1024} KiB")
        if self._bytes > self.limits.total_bytes:
            raise _over(name, f"makes more than {self.limits.total_bytes // 1024} KiB of compose files")
        if self._files > self.limits.files:
            raise _over(name, f"is one more than the {self.limits.files} files that are read for a project")

    def values(self, where: str, *, nodes: int = 0, text: int = 0, line: int = 0) -> None:
        """Count values and the characters of scalars. Raises Invalid."""
        self._nodes += nodes
        self._text += text
        if self._nodes <= self.limits.nodes and self._text <= self.limits.text:
            return
        where = f"{where}, line {line}" if line else where
        if self._nodes > self.limits.nodes:
            raise _over(where, f"more than {self.limits.nodes} values once aliases and extends are expanded")
        raise _over(where, TOO_MUCH_TEXT.format(self.limits.text // 1024))


def _over(where: str, what: str) -> Invalid:
    return Invalid(f"{where}: {what}", hint="a compose project is a few KiB: take out what makes it so large")
