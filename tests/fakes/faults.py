"""What goes wrong at a fake cloud, as it is told."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["status", "slow", "lost-answer", "drop", "truncate", "stale-list", "trickle", "hang"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How the requests that match are treated.

    `match` is a method (or `*`) and a regular expression for the whole path without query: `POST /v2/sandboxes`,
    `* /sandboxes/[^/]+`. The first `skip` matches pass; then `times` are hit (None: all that follow). Kinds:

    - `status`: nothing is done; the answer is `status`, `headers` and `body` (bytes, or anything for JSON)
    - `slow`: done, after `seconds`
    - `lost-answer`: done, then the connection ends before the answer
    - `drop`: nothing is done, the connection ends
    - `truncate`: done; the connection ends in the middle of the body
    - `stale-list`: done with `request.stale`: the fake shows what it knew before the last change
    - `trickle`: done; a byte of the answer each 50 ms
    - `hang`: nothing is done and nothing answered, until the client or the fake goes away
    """

    match: str = "* .*"
    kind: Kind
    status: int = 500
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    times: int | None = 1
    skip: int = 0

    def hits(self, method: str, path: str) -> bool:
        """Whether a request matches."""
        wanted, _, pattern = self.match.partition(" ")
        return wanted in ("*", method) and re.fullmatch(pattern, path) is not None


class Script:
    """The faults of one fake. Thread-safe; the first one that matches strikes."""

    def __init__(self, *faults: Fault) -> None:
        self._lock = threading.Lock()
        self._entries: list[_Entry] = [_Entry(fault) for fault in faults]
        self._struck: list[tuple[Fault, str]] = []

    def add(self, *faults: Fault) -> None:
        """Plan further ones."""
        with self._lock:
            self._entries += [_Entry(fault) for fault in faults]

    def clear(self) -> None:
        """Let everything go well from now on."""
        with self._lock:
            self._entries.clear()

    @property
    def struck(self) -> list[tuple[Fault, str]]:
        """What has struck, in order: the fault, and the method and path that it hit."""
        with self._lock:
            return list(self._struck)

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for a request, which is used up by it."""
        if not self._entries:
            return None
        with self._lock:
            for entry in self._entries:
                if not entry.fault.hits(method, path):
                    continue
                entry.seen += 1
                fault = entry.fault
                if entry.seen <= fault.skip or (fault.times is not None and entry.seen > fault.skip + fault.times):
                    continue
                self._struck.append((fault, f"{method} {path}"))
                return fault
        return None


@dataclass(slots=True)
class _Entry:
    fault: Fault
    seen: int = 0
