"""The audit: one line for each change, appended and never changed; bounded by moving on to a new file.

A line is one write at the end of the file, so that processes need no lock to write whole lines. It survives the death
of whoever wrote it, but is not flushed to the disk each time: an audit must not cost more than what it tells of."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from sandboxer.errors import SandboxerError
from sandboxer.models import AuditEntry
from sandboxer.store import private_files
from sandboxer.store.file_lock import locked

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "audit.jsonl"
LARGEST: Final = 8 * 1024 * 1024
"""How large the file may get, in bytes, before it becomes `audit.jsonl.1`."""
OLDER: Final = 7
"""How many older files are kept."""
_ROTATE_SECONDS: Final = 5.0
REFUSED: Final = 60
"""How many refused changes of one caller are noted in a minute: nobody washes the rest away by asking in vain."""
STRANGERS: Final = 600
"""How many of all that carry no token: whoever has many addresses is many callers."""
_MINUTE: Final = 60.0


class AuditLog:
    """`audit.jsonl` in the data directory, mode 0600, and its older parts."""

    def __init__(
        self,
        directory: Path,
        *,
        largest: int = LARGEST,
        older: int = OLDER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = directory / FILE
        self._largest = largest
        self._older = older
        self._clock = clock
        self._refused: dict[tuple[str, ...], int] = {}
        self._since = -_MINUTE

    def append(self, entry: AuditEntry) -> None:
        """Write a line. What the disk says against it is not told: what was done is done, and a full disk must not keep
        anybody from destroying."""
        if entry.outcome != "ok" and self._too_many(entry):
            return
        with suppress(OSError, SandboxerError):
            private_files.ensure_directory(self._path.parent)
            if self._append(msgspec.json.encode(entry) + b"\n") > self._largest:
                self._rotate()

    def entries(self) -> Iterator[AuditEntry]:
        """All that are kept, oldest first; a line that a crash cut short is passed over. Raises Denied or Unavailable,
        and StoreCorrupt for what is no plain file."""
        for path in reversed([self._path, *(self._numbered(n) for n in range(1, self._older + 1))]):
            for line in private_files.read_file(path).split(b"\n"):
                with suppress(msgspec.DecodeError, UnicodeDecodeError):
                    if line:
                        yield msgspec.json.decode(line, type=AuditEntry)

    def _too_many(self, entry: AuditEntry) -> bool:
        """Not exact when threads come at once: nothing depends on the very number."""
        now = self._clock()
        if now - self._since >= _MINUTE:
            self._refused, self._since = {}, now
        if entry.token is not None:
            return self._count(entry.actor, entry.token) > REFUSED
        if entry.address is None:  # the command line
            return self._count(entry.actor) > REFUSED
        if len(self._refused) > 10 * STRANGERS or self._count(entry.actor, entry.address) > REFUSED:
            return True
        return self._count() > STRANGERS

    def _count(self, *caller: str) -> int:
        count = self._refused[caller] = self._refused.get(caller, 0) + 1
        return count

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
        with locked(self._path.with_name(f".{FILE}.lock"), seconds=_ROTATE_SECONDS):
            if self._path.stat().st_size <= self._largest:
                return  # another has done it
            for number in range(self._older, 1, -1):
                with suppress(FileNotFoundError):
                    self._numbered(number - 1).replace(self._numbered(number))
            self._path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{FILE}.{number}")
