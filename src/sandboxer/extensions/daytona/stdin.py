"""Read a command's input in pieces: what is there is taken, what is not there yet is never waited for long."""

from __future__ import annotations

import io
import os
import select
import stat
from typing import BinaryIO, Final

PIECE: Final = 512 * 1024
"""The most of an input that one request carries, in bytes."""
FIRST_SECONDS: Final = 0.05
"""How long a pipe or terminal is given to say whether its input ends at once."""


class StdinReader:
    """An input. A terminal, pipe or socket is read only while something is there; other sources are read as they are.
    `open`: more may come."""

    def __init__(self, source: BinaryIO | None) -> None:
        self._source = source
        self._fd = None if source is None else _selectable(source)
        self.open = source is not None

    def first(self) -> bytes | None:
        """What is there at once, at most `PIECE` bytes; None when there is no input at all."""
        if self._source is None:
            return None
        return self._taken(FIRST_SECONDS)

    def more(self) -> bytes:
        """What has come since, at most `PIECE` bytes; empty for nothing."""
        return self._taken(0)

    def _taken(self, seconds: float) -> bytes:
        data = bytearray()
        while self.open and len(data) < PIECE:
            chunk = self._read(PIECE - len(data), seconds)
            if chunk is None:
                break
            if not chunk:
                self.open = False
            data += chunk
        return bytes(data)

    def _read(self, size: int, seconds: float) -> bytes | None:
        """Some bytes; none at the end; None for "not now"."""
        if self._source is None:
            return b""
        if self._fd is None:
            return self._source.read(size)
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        if not poller.poll(int(seconds * 1000)):
            return None
        if isinstance(self._source, io.BufferedReader):
            return self._source.read1(size)
        return os.read(self._fd, size)


def _selectable(source: BinaryIO) -> int | None:
    try:
        fd = source.fileno()
    except (OSError, AttributeError, ValueError):
        return None
    return None if stat.S_ISREG(os.fstat(fd).st_mode) else fd
