"""Cut a stream where its contents say, so that a change moves the cuts beside it only (FastCDC; decision 0034)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

AVERAGE: Final = 64 << 10
"""The usual chunk, in bytes. A change of this number, or of the chunker's, stores everything once more."""
LONGEST: Final = 4 * AVERAGE
_BUFFER: Final = 4 << 20


class Chunker:
    """Takes a stream in any pieces; the cuts are the same whatever the pieces."""

    def __init__(self) -> None:
        from pyfastcdc import FastCDC

        self._cutter = FastCDC(AVERAGE, max_size=LONGEST)
        self._waiting = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The chunks that are whole by now."""
        self._waiting += data
        if len(self._waiting) >= _BUFFER:
            yield from self._cut(last=False)

    def finish(self) -> Iterator[bytes]:
        """What is left."""
        yield from self._cut(last=True)

    def _cut(self, *, last: bool) -> Iterator[bytes]:
        waiting, self._waiting = bytes(self._waiting), bytearray()
        view = memoryview(waiting)
        for chunk in self._cutter.cut_buf(waiting):
            end = chunk.offset + chunk.length
            if end == len(waiting) and not last:
                # the buffer's end cut this one, not its contents
                self._waiting += view[chunk.offset :]
                return
            yield bytes(view[chunk.offset : end])
