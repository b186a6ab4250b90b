"""Passing an input on to a running program, without ever waiting for an input that nobody needs any more."""

from __future__ import annotations

import io
import os
import select
import stat
import threading
from typing import BinaryIO, Final, Protocol

CHUNK: Final = 64 * 1024
INLINE: Final = 60 * 1024
"""So many bytes fit into a pipe (64 KiB on Linux) before anybody reads: no thread is needed to write them."""


def complete_input(prelude: bytes, source: BinaryIO | None, *, limit: int = INLINE) -> bytes | None:
    """The complete input when it is known already and has at most `limit` bytes; otherwise None, with nothing read."""
    if source is None:
        return prelude if len(prelude) <= limit else None
    if not isinstance(source, io.BytesIO):
        return None
    left = source.getbuffer().nbytes - source.tell()
    return prelude + source.read() if len(prelude) + left <= limit else None


class StdinWriter(Protocol):
    """Where an input goes. Used by one thread only, which closes it in the end."""

    def write(self, data: bytes, wake: int) -> None:
        """Write all of it; BrokenPipeError when the program takes no more, or once `wake` is readable."""

    def end(self) -> None:
        """The input was passed on to its end: tell the program."""

    def close(self) -> None:
        """Give back what this holds."""


class PipeStdinWriter:
    """The writing end of a pipe, or a terminal's; owned by this object."""

    def __init__(self, fd: int, *, last: bytes = b"") -> None:
        self._fd, self._last = fd, last
        os.set_blocking(fd, False)

    def write(self, data: bytes, wake: int) -> None:
        """See `StdinWriter`."""
        left = memoryview(data)
        poller = select.poll()
        poller.register(self._fd, select.POLLOUT)
        poller.register(wake, select.POLLIN)
        while left:
            if wake in dict(poller.poll()):
                raise BrokenPipeError
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                continue
            except OSError as error:  # EIO: the terminal's other side is gone
                raise BrokenPipeError from error

    def end(self) -> None:
        """`last` is what ends an input where closing does not: a terminal's end-of-file character."""
        if self._last:
            os.write(self._fd, self._last)

    def close(self) -> None:
        """Close the descriptor: for a pipe that is the end of the input."""
        os.close(self._fd)


class StdinFeeder:
    """A thread that writes `prelude` and then `source` to an outlet, tells its end, and closes it; `chunk`: the
    most that is passed on at once.

    A terminal, pipe or socket is read only while the program runs: after `stop` not one more byte is taken. Other
    sources are read by `read`; the thread is a daemon, so that a source that never answers holds nobody up. What the
    source raises is kept in `error`.
    """

    def __init__(self, prelude: bytes, source: BinaryIO | None, outlet: StdinWriter, *, chunk: int = CHUNK) -> None:
        self._prelude, self._source, self._outlet, self._chunk = prelude, source, outlet, chunk
        self._lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._finished = False
        self._stopped = False
        self.error: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._feed, name="sandboxer-stdin", daemon=True).start()

    def stop(self) -> None:
        """Take no more from the source. Does not wait for the thread."""
        with self._lock:
            self._stopped = True
            if not self._finished:
                os.eventfd_write(self._wake, 1)

    def discard(self) -> None:
        """Give everything back when it was never started."""
        self._outlet.close()
        os.close(self._wake)

    def _feed(self) -> None:
        try:
            for start in range(0, len(self._prelude), self._chunk):
                self._outlet.write(self._prelude[start : start + self._chunk], self._wake)
            while self._source is not None and not self._stopped and (data := self._read(self._source)):
                self._outlet.write(data, self._wake)
            if not self._stopped:
                self._outlet.end()
        except BrokenPipeError:
            return
        except BaseException as error:  # noqa: BLE001 - it belongs to the thread that waits for the program
            self.error = error
        finally:
            self._outlet.close()
            with self._lock:
                self._finished = True
                os.close(self._wake)

    def _read(self, source: BinaryIO) -> bytes:
        fd = _selectable(source)
        if fd is None:
            return source.read(self._chunk)
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        if self._wake in dict(poller.poll()):
            return b""
        return source.read1(self._chunk) if isinstance(source, io.BufferedReader) else os.read(fd, self._chunk)


def _selectable(source: BinaryIO) -> int | None:
    try:
        fd = source.fileno()
    except (OSError, AttributeError, ValueError):
        return None
    return None if stat.S_ISREG(os.fstat(fd).st_mode) else fd
