"""`creates.json`: when each consumer began its latest sandboxes, as far back as a quota looks; for all processes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from sandboxer.errors import StoreCorrupt
from sandboxer.store.codec import UNREADABLE
from sandboxer.store.document import AtomicDocument
from sandboxer.store.group_commit import GroupCommit
from sandboxer.store.parse_cache import ParseCache

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "creates.json"
WINDOW: Final = 60.0
"""How far back a quota looks, in seconds."""


class _RatesDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    # The count of writes comes first, so that two versions never look alike.
    schema_version: int = 1
    revision: int = 0
    creates: Mapping[str, Sequence[float]] = {}


class CreateRates:
    """The creates of the last minute. Raises as the store does."""

    def __init__(self, directory: Path) -> None:
        self._document = AtomicDocument(directory / FILE)
        self._parsed = ParseCache(self._document, self._parse)
        self._commits = GroupCommit(self._document, read=self._content, write=self._commit)

    def take(self, consumer: str, limit: int, *, at: float) -> float | None:
        """Count one more create at `at` (unix seconds), if that makes no more than `limit` in a minute: None; else the
        seconds until there is room, and nothing is counted."""

        def decide(document: _RatesDocument) -> tuple[_RatesDocument, float | None]:
            recent = {name: _within(times, at) for name, times in document.creates.items()}
            mine = recent.get(consumer, ())
            if (wait := _wait(mine, limit, at=at)) is not None:
                return document, wait
            kept = {name: times for name, times in recent.items() if times} | {consumer: (*mine, at)}
            return msgspec.structs.replace(document, creates=kept), None

        return self._commits.change(decide)

    def wait(self, consumer: str, limit: int, *, at: float) -> float | None:
        """The seconds until there is room for one more create; None when there is. Counts nothing."""
        return _wait(_within(self._content().creates.get(consumer, ()), at), limit, at=at)

    def _content(self) -> _RatesDocument:
        return self._parsed.read() or _RatesDocument()

    def _parse(self, data: bytes) -> _RatesDocument:
        try:
            return msgspec.json.decode(data, type=_RatesDocument)
        except UNREADABLE as error:
            raise StoreCorrupt(
                f"{self._document.path} cannot be read: {error}",
                hint="remove it: it is only about the last minute",
            ) from error

    def _commit(self, before: _RatesDocument, after: _RatesDocument, must_succeed: bool) -> None:
        document = msgspec.structs.replace(after, revision=before.revision + 1)
        self._parsed.replace(document, msgspec.json.encode(document) + b"\n", must_succeed=must_succeed)


def _within(times: Sequence[float], at: float) -> Sequence[float]:
    """Those of the last minute. Some may be later than `at`: others looked at the clock after us, and came before us to
    the lock; only what is far off is of a clock that was set back."""
    return tuple(time for time in times if at - WINDOW < time <= at + WINDOW)


def _wait(times: Sequence[float], limit: int, *, at: float) -> float | None:
    if len(times) < limit:
        return None
    if limit <= 0:
        return WINDOW
    return min(WINDOW, max(1.0, math.ceil(sorted(times)[-limit] + WINDOW - at)))
