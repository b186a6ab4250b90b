"""Programs inside a box, for a server that lives in one event loop: what they write is kept until it has been read."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import IO, Final

from tests.fakes.sandbox_fs import Process

CHUNK: Final = 256 * 1024
_AHEAD: Final = 8 * 1024 * 1024
"""So much unread output makes a program wait, as a pipe would."""
_BEHIND: Final = 1024 * 1024
"""So much of what was read stays, for a client that lost it on the way."""


class Output:
    """One stream of a program, read as it comes, with the offsets that a client resumes by."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        self._data = bytearray()
        self._start = 0
        self._read = 0
        self._changed = asyncio.Event()
        self._pipe = pipe
        self._loop = asyncio.get_running_loop()
        self.closed = pipe is None
        if pipe is not None:
            os.set_blocking(pipe.fileno(), False)
            self._listen()

    def whole(self) -> bytes:
        """What is still kept."""
        return bytes(self._data)

    async def read(self, offset: int) -> AsyncIterator[tuple[int, bytes]]:
        """Offset and bytes, from `offset` on, until the stream is closed."""
        at = offset
        while True:
            at = max(at, self._start)
            chunk = bytes(self._data[at - self._start : at - self._start + CHUNK])
            if chunk:
                yield at, chunk
                at += len(chunk)
                self._taken(at)
                continue
            if self.closed:
                return
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """Read no more."""
        if self._pipe is not None:
            self._loop.remove_reader(self._pipe.fileno())
            self._pipe.close()
            self._pipe = None
        self.closed = True
        self._changed.set()

    def _listen(self) -> None:
        if self._pipe is not None:
            self._loop.add_reader(self._pipe.fileno(), self._readable)

    def _readable(self) -> None:
        assert self._pipe is not None
        try:
            data = os.read(self._pipe.fileno(), CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._data += data
        self._changed.set()
        if self._start + len(self._data) - self._read > _AHEAD:
            self._loop.remove_reader(self._pipe.fileno())

    def _taken(self, offset: int) -> None:
        self._read = max(self._read, offset)
        if self._read - self._start > 2 * _BEHIND:
            drop = self._read - self._start - _BEHIND
            del self._data[:drop]
            self._start += drop
        if self._start + len(self._data) - self._read <= _AHEAD:
            self._listen()


class Program:
    """A running process with its streams. `code` becomes its exit code (128 + n by signal)."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._loop = asyncio.get_running_loop()
        self.code: asyncio.Future[int] = self._loop.create_future()
        self.written = 0
        self.stdin_closed = process.stdin is None
        self.stdout = Output(process.stdout)
        self.stderr = Output(process.stderr)
        self._fd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._fd, self._ended)
        self._timer: asyncio.TimerHandle | None = None

    def end_after(self, seconds: float) -> None:
        """Kill it when it runs so long."""
        self._timer = self._loop.call_later(seconds, self.kill)

    def kill(self) -> None:
        """Kill it."""
        self.process.signal(signal.SIGKILL)

    def feed(self, offset: int, data: bytes, *, eof: bool) -> None:
        """Write to its input; what was written before is not written again. May block; raises BrokenPipeError."""
        pipe = self.process.stdin
        if pipe is None or self.stdin_closed:
            if data or not eof:
                raise BrokenPipeError
            return
        left = memoryview(data)[max(0, self.written - offset) :]
        while left:
            count = pipe.write(left) or 0
            self.written += count
            left = left[count:]
        if eof:
            self.stdin_closed = True
            pipe.close()

    def forget(self) -> None:
        """Close what is open."""
        self.stdout.close()
        self.stderr.close()
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()

    def _ended(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        if self._timer is not None:
            self._timer.cancel()
        code = self.process.wait()
        if not self.code.done():
            self.code.set_result(code)
