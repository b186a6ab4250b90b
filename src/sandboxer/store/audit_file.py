"""One bounded file of the audit and its older parts: `NAME`, `NAME.1` and on.

A line is one write at the end of the file, so that processes need no lock to write whole lines. It survives the death
of whoever wrote it, but is not flushed to the disk each time: an audit must not cost more than what it tells of.

What falls out of the last part is the oldest of whoever has the most in it: who fills the file pushes out their own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from sandboxer.models import AuditEntry, Value
from sandboxer.store import private_files
from sandboxer.store.fair_share import beyond_share
from sandboxer.store.file_lock import locked

if TYPE_CHECKING:
    from pathlib import Path

_ROTATE_SECONDS: Final = 5.0
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)


class AuditFile:
    """`path` and up to `older` parts behind it, of about `largest` bytes each, mode 0600."""

    def __init__(self, path: Path, *, largest: int, older: int) -> None:
        self._path = path
        self._largest = largest
        self._older = older

    def append(self, entry: AuditEntry) -> None:
        """Write a line. Raises OSError and what the file's lock raises."""
        if self._append(msgspec.json.encode(entry) + b"\n") > self._largest:
            with locked(self._path.with_name(f".{self._path.name}.lock"), seconds=_ROTATE_SECONDS):
                if self._path.stat().st_size > self._largest:  # else another has done it
                    self._rotate()

    def entries(self) -> Iterator[AuditEntry]:
        """All that are kept, oldest first; a line that a crash cut short is passed over. Raises Denied or Unavailable,
        and StoreCorrupt for what is no plain file."""
        for path in reversed([self._path, *map(self._part, range(1, self._older + 1))]):
            for line in private_files.read_file(path).split(b"\n"):
                with suppress(*_UNREADABLE):
                    if line:
                        yield msgspec.json.decode(line, type=AuditEntry)

    def _append(self, line: bytes) -> int:
        """Append in one write; how large the file is then. A line that another's death cut short is ended first."""
        descriptor = private_files.open_private(self._path, os.O_RDWR | os.O_APPEND)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            os.write(descriptor, line)
            return size + len(line)
        finally:
            private_files.close(descriptor)

    def _rotate(self) -> None:
        if self._older > 1 and self._part(self._older).exists():
            with suppress(OSError):  # a full disk: then the last part goes as a whole
                self._join_last()
        for number in range(self._older, 1, -1):
            with suppress(FileNotFoundError):
                self._part(number - 1).replace(self._part(number))
        self._path.replace(self._part(1))

    def _join_last(self) -> None:
        """Put the last part and the one before it, as far as both fit in one, where the one before it is: it becomes
        the last one next. A crash leaves what the last part holds twice; the next time it is seen."""
        last, before = self._part(self._older), self._part(self._older - 1)
        lines = _lines(last)
        known = set(lines)
        lines += (line for line in _lines(before) if line not in known)
        joined = before.with_name(f".{self._path.name}.new")
        descriptor = private_files.open_private(joined, os.O_WRONLY | os.O_TRUNC)
        try:
            private_files.write_all(descriptor, b"".join(_fair_share(lines, self._largest)))
            os.fsync(descriptor)
        finally:
            private_files.close(descriptor)
        joined.replace(before)

    def _part(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _lines(path: Path) -> list[bytes]:
    return [line + b"\n" for line in private_files.read_file(path).split(b"\n") if line]


class _Caller(Value, frozen=True):
    actor: str
    address: str | None = None
    token: str | None = None


def _caller_of(line: bytes) -> str:
    """Whose line it is: over HTTP by the token or the address, since who has no consumer says whose they are."""
    with suppress(*_UNREADABLE):
        caller = msgspec.json.decode(line, type=_Caller)
        return caller.token or caller.address or caller.actor
    return ""  # cut short


def _fair_share(lines: Sequence[bytes], room: int) -> list[bytes]:
    """The lines, oldest first, that stay where there is `room` for so many bytes."""
    out = set(beyond_share([(_caller_of(line), len(line)) for line in lines], room))
    return [line for position, line in enumerate(lines) if position not in out]
