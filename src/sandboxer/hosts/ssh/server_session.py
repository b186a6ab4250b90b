"""One session of our own SSH server: the program that it runs, its input, its terminal, its end."""

from __future__ import annotations

import fcntl
import io
import os
import re
import select
import struct
import termios
import threading
import tty
from collections.abc import Callable
from typing import BinaryIO, Final, Literal, NamedTuple, cast

import paramiko

from sandboxer.errors import SandboxerError
from sandboxer.hosts.base import Streams
from sandboxer.timing import Deadline

Kind = Literal["shell", "exec", "sftp"]
CHUNK: Final = 32 * 1024
TICK: Final = 0.25
_FAILED: Final = 125
_TERM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_MAX_SIDE: Final = 10_000
"""The widest and highest window, in characters; the kernel's field holds 65,535."""


class SessionRequest(NamedTuple):
    """What a client wants run: its login shell, a text for its shell, or the file transfer program. `term` is the
    kind of its terminal; None where it has none."""

    kind: Kind
    text: str
    term: str | None


Run = Callable[[SessionRequest, Streams, Deadline], int]
"""Runs a program to its end; its exit code. It ends early when the deadline is cancelled."""


class ServerSession:
    """A channel and its program. One thread runs the program, another passes its input on."""

    def __init__(self, channel: paramiko.Channel, run: Run) -> None:
        self._channel, self._run = channel, run
        self._lock = threading.Lock()
        self._request: SessionRequest | None = None
        self._requested, self._ended = threading.Event(), threading.Event()
        self._deadline = Deadline(None)
        self._term: str | None = None
        self._size = (80, 24)
        self._master: int | None = None
        self._thread = threading.Thread(target=self._serve, name="sandboxer-ssh-session", daemon=True)
        self.unforeseen: BaseException | None = None

    # -- called by the connection's thread --------------------------------------------------------------------------

    def ask_terminal(self, term: str, width: int, height: int) -> bool:
        """The program is to have a terminal; whether it can."""
        with self._lock:
            if self._request is not None or self._term is not None:
                return False
            self._term = term if _TERM.fullmatch(term) else "dumb"
        return self.resize(width, height)

    def resize(self, width: int, height: int) -> bool:
        """The window is of another size; whether there is one."""
        with self._lock:
            if self._term is None:
                return False
            # 0 is what a client without a window of its own says
            self._size = (min(width, _MAX_SIDE) or 80, min(height, _MAX_SIDE) or 24)
            if self._master is not None:
                _set_size(self._master, *self._size)
        return True

    def ask(self, kind: Kind, text: str) -> bool:
        """Run this; whether it is the first that is asked for."""
        with self._lock:
            if self._request is not None:
                return False
            self._request = SessionRequest(kind=kind, text=text, term=self._term)
            self._requested.set()
        return True

    # -- called by the one that attends to all ----------------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        """Whether it is over."""
        return self._ended.is_set()

    def end_if_closed(self) -> None:
        """End the program of a client that has closed its side."""
        if self._channel.closed:
            self.end()

    def end(self) -> None:
        """End the program, and whoever waits for one."""
        self._deadline.cancel()
        self._requested.set()

    def join(self, seconds: float) -> None:
        """Wait for the end."""
        self._ended.wait(seconds)

    # -- the session's own threads ----------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            self._requested.wait()
            if self._request is not None and not self._deadline.passed:
                self._tell_code(self._attend(self._request))
        except Exception as error:  # noqa: BLE001 - it belongs to the thread that serves the connection
            self.unforeseen = error
        finally:
            self._channel.close()
            self._ended.set()

    def _attend(self, request: SessionRequest) -> int:
        over = threading.Event()
        self._channel.settimeout(TICK)
        source, sink = self._open_input(request)
        feeder = threading.Thread(
            target=self._feed, args=(sink, over, request.term is not None), name="sandboxer-ssh-input", daemon=True
        )
        feeder.start()
        streams = Streams(stdin=source, stdout=self._out, stderr=self._err)
        del source  # it is closed once nobody reads it any more
        try:
            return self._run(request, streams, self._deadline)
        except SandboxerError as error:
            if not self._channel.closed:
                self._err(_told(error))
            return _FAILED
        finally:
            over.set()
            feeder.join()

    def _open_input(self, request: SessionRequest) -> tuple[BinaryIO, int]:
        """What the program reads, and the descriptor that feeds it. With a terminal, a terminal of our own carries the
        bytes: where the program has its real one, it takes the size of this."""
        if request.term is None:
            reading, writing = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(writing, False)
            return cast("BinaryIO", _Descriptor(reading)), writing
        master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        with self._lock:
            _set_size(master, *self._size)
            self._master = master
        return cast("BinaryIO", _Descriptor(slave)), master

    def _feed(self, sink: int, over: threading.Event, keep: bool) -> None:
        """Pass the input on until its end, or the program's. The end of an input that comes from a terminal is no key
        that was typed: as with OpenSSH's server, the program does not hear of it (`keep`)."""
        try:
            while not over.is_set():
                try:
                    data = self._channel.recv(CHUNK)
                except TimeoutError:
                    continue
                if not data or not _write_all(sink, data, over):
                    break
            if keep:
                over.wait()
        except OSError:
            pass  # the program reads no more
        finally:
            with self._lock:
                self._master = None
                os.close(sink)

    def _out(self, data: bytes) -> None:
        self._send(self._channel.send, data)

    def _err(self, data: bytes) -> None:
        self._send(self._channel.send_stderr, data)

    def _send(self, send: Callable[[bytes], int], data: bytes) -> None:
        """Wait for a client that reads slowly; the program of one that has gone is ended, and what it says dropped."""
        left = memoryview(data)
        while left and not self._deadline.passed:
            try:
                count = send(bytes(left))
            except TimeoutError:
                continue
            except OSError:
                count = 0
            if not count:
                self._deadline.cancel()
            left = left[count:]

    def _tell_code(self, code: int) -> None:
        if self._channel.closed:
            return
        try:
            self._channel.shutdown_write()
            self._channel.send_exit_status(code)
        except (OSError, EOFError, paramiko.SSHException):
            return


class _Descriptor(io.RawIOBase):
    """A descriptor that is closed when the last who may still read it has let go."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]  # whatever the caller's own buffer is
        data = os.read(self._fd, len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._fd)


def _write_all(fd: int, data: bytes, over: threading.Event) -> bool:
    """Whether all of it could be written before it was over."""
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    left = memoryview(data)
    while left:
        if over.is_set():
            return False
        if poller.poll(TICK * 1000):
            try:
                left = left[os.write(fd, left) :]
            except BlockingIOError:
                continue
    return True


def _set_size(terminal: int, width: int, height: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def _told(error: SandboxerError) -> bytes:
    hint = f" ({error.hint})" if error.hint else ""
    return f"sandboxer: {error.message}{hint}\n".encode("utf-8", "replace")
