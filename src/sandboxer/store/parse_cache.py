"""The value of a document, parsed again only when the document has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from sandboxer.store.document import AtomicDocument, VersionStamp

T = TypeVar("T")


class ParseCache(Generic[T]):
    """What a document says, for any number of threads. `parse` gives the value of its bytes; what it raises passes
    through, and nothing is kept."""

    def __init__(self, document: AtomicDocument, parse: Callable[[bytes], T]) -> None:
        self._document = document
        self._parse = parse
        self._known: tuple[VersionStamp, T] | None = None  # replaced as a whole: threads share it without a lock
        self._coming: tuple[bytes, T] | None = None  # what is being written now

    def read(self) -> T | None:
        """The value now; None when there is no document. Raises what `AtomicDocument.read` raises."""
        known = self._known
        reading = self._document.read(unless=known[0] if known else None)
        if reading is None:
            self._known = None
            return None
        if reading.data is None and known is not None:
            return known[1]
        coming, latest = self._coming, self._known
        if coming is not None and coming[0] == reading.data:  # visible already, and its writer waits for the disk
            value = coming[1]
        elif latest is not None and latest[0] == reading.stamp:  # its writer is through meanwhile
            return latest[1]
        else:
            value = self._parse(reading.data or b"")
        self._known = (reading.stamp, value)
        return value

    def replace(self, value: T, data: bytes, *, must_succeed: bool = False) -> None:
        """Make `data`, whose value is `value`, the document, under its lock. Raises as `AtomicDocument.replace`."""
        self._coming = (data, value)
        try:
            stamp = self._document.replace(data, must_succeed=must_succeed)
            self._known = (stamp, value) if stamp else None
        finally:
            self._coming = None
