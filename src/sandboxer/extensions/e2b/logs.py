"""Read the log that E2B keeps of a sandbox."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sandboxer.extensions.e2b.client import E2BClient
from sandboxer.extensions.e2b.sandbox import instant
from sandboxer.extensions.provider.wait import pause
from sandboxer.hosts.base import Sink

PAGE: Final = 1000
MAX_ENTRIES: Final = 1_000_000
_FOLLOW_SECONDS: Final = 1.0
_REMEMBERED: Final = 4 * PAGE


def write(control: E2BClient, sandbox: str, sink: Sink, *, follow: bool, tail: int | None) -> None:
    """Write entries, the oldest first; with `follow` until the deadline or an interrupt. Raises NotFound when E2B has
    no such sandbox."""
    reader = _Reader(control, sandbox)
    if tail is not None:
        for entry in reader.latest(tail):
            sink(line(entry))
    else:
        for entry in reader.further():
            sink(line(entry))
    while follow:
        pause(_FOLLOW_SECONDS, control.deadline, "waiting for E2B")
        for entry in reader.further():
            sink(line(entry))


def line(entry: Mapping[str, Any]) -> bytes:
    """Format one entry as a line. Pure."""
    words = (str(entry.get("timestamp") or "-"), str(entry.get("level") or "-"), str(entry.get("message") or ""))
    return " ".join(words).rstrip("\n").encode("utf-8", "replace") + b"\n"


class _Reader:
    """Reads on from the last entry. E2B's cursor is a millisecond, which several entries may share: what was seen is
    remembered."""

    def __init__(self, control: E2BClient, sandbox: str) -> None:
        self._control, self._sandbox = control, sandbox
        self._cursor = 0
        self._seen: deque[str] = deque(maxlen=_REMEMBERED)

    def latest(self, count: int) -> list[Mapping[str, Any]]:
        """The last `count` entries, at most one page."""
        entries = self._control.logs(self._sandbox, {"limit": max(1, min(count, PAGE)), "direction": "backward"})
        entries.sort(key=lambda entry: str(entry.get("timestamp")))
        for entry in entries:
            self._note(entry)
        return list(entries[len(entries) - min(count, len(entries)) :])

    def further(self) -> Iterator[Mapping[str, Any]]:
        """What has come since."""
        for _ in range(MAX_ENTRIES // PAGE):
            entries = self._control.logs(self._sandbox, {"cursor": self._cursor, "limit": PAGE, "direction": "forward"})
            fresh = [entry for entry in entries if self._note(entry)]
            yield from fresh
            if len(entries) < PAGE or not fresh:
                return

    def _note(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry is new."""
        mark = repr((entry.get("timestamp"), entry.get("level"), entry.get("message")))
        if mark in self._seen:
            return False
        self._seen.append(mark)
        at = instant(entry.get("timestamp"))
        if at is not None:
            self._cursor = max(self._cursor, int(at * 1000))
        return True
