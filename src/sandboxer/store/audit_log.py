"""The audit: one line for each change, appended and never changed.

What was done, what was refused to those who are known, and what was refused to strangers are three files, each with a
bound of its own: whoever asks in vain, with a token or without, pushes out nothing of what was done."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sandboxer.errors import SandboxerError
from sandboxer.models import AuditEntry
from sandboxer.store import private_files
from sandboxer.store.audit_file import AuditFile

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "audit.jsonl"
"""What was done. (Earlier versions wrote here what was refused, too.)"""
REFUSED_FILE: Final = "audit-refused.jsonl"
"""What was refused, or failed, with a token or at the command line."""
STRANGERS_FILE: Final = "audit-strangers.jsonl"
"""What was refused without a token."""
LARGEST: Final = 8 * 1024 * 1024
"""How large the file of what was done may get, in bytes, before it becomes `audit.jsonl.1`; the others half of it."""
OLDER: Final = 7
"""How many older parts of it are kept; of the others half as many."""
REFUSED: Final = 60
"""How many refused changes of one caller are noted in a minute."""
STRANGERS: Final = 600
"""How many of all that carry no token: whoever has many addresses is many callers."""
_MINUTE: Final = 60.0


class AuditLog:
    """The three files in the data directory, as one list."""

    def __init__(
        self,
        directory: Path,
        *,
        largest: int = LARGEST,
        older: int = OLDER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._done = AuditFile(directory / FILE, largest=largest, older=older)
        self._refused, self._strangers = (
            AuditFile(directory / name, largest=largest // 2, older=max(1, older // 2))
            for name in (REFUSED_FILE, STRANGERS_FILE)
        )
        self._clock = clock
        self._counts: dict[tuple[str, ...], int] = {}
        self._since = -_MINUTE

    def append(self, entry: AuditEntry) -> None:
        """Write a line. What the disk says against it is not told: what was done is done, and a full disk must not keep
        anybody from destroying."""
        if entry.outcome != "ok" and self._too_many(entry):
            return
        with suppress(OSError, SandboxerError):
            private_files.ensure_directory(self._directory)
            self._file_of(entry).append(entry)

    def entries(self) -> Iterator[AuditEntry]:
        """All that are kept, oldest first. Raises Denied or Unavailable, and StoreCorrupt for what is no plain file."""
        files = (self._done, self._refused, self._strangers)
        return heapq.merge(*(file.entries() for file in files), key=lambda entry: entry.at)

    def _file_of(self, entry: AuditEntry) -> AuditFile:
        if entry.outcome == "ok":
            return self._done
        return self._strangers if _is_stranger(entry) else self._refused

    def _too_many(self, entry: AuditEntry) -> bool:
        """Not exact when threads come at once: nothing depends on the very number."""
        now = self._clock()
        if now - self._since >= _MINUTE:
            self._counts, self._since = {}, now
        if entry.token is not None:
            return self._count(entry.actor, entry.token) > REFUSED
        if entry.address is None:
            return self._count(entry.actor) > REFUSED
        if len(self._counts) > 10 * STRANGERS or self._count(entry.actor, entry.address) > REFUSED:
            return True
        return self._count() > STRANGERS

    def _count(self, *caller: str) -> int:
        count = self._counts[caller] = self._counts.get(caller, 0) + 1
        return count


def _is_stranger(entry: AuditEntry) -> bool:
    """Whether it came without a token, and not from the command line."""
    return entry.token is None and entry.address is not None
