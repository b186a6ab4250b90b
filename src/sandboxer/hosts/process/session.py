"""One program running on this machine: its descriptors, its end, and what happens when it has to end early."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from sandboxer.errors import BackendError, Timeout
from sandboxer.hosts.base import Command, Sink, Streams
from sandboxer.hosts.process import launch, tracking
from sandboxer.hosts.process.spawn import spawn
from sandboxer.hosts.process.stdin import CHUNK, PipeStdinWriter, StdinFeeder, complete_input
from sandboxer.timing import Deadline

TICK: Final = 0.5
"""Seconds between looks at the deadline, which may be cancelled by another thread."""
LINGER: Final = 1.0
"""After the program's end its outputs are read until they end, or until nothing came for this many seconds: a daemon
that it started may hold them open for ever."""
LINGER_LONGEST: Final = 10.0
"""So long at most when that daemon goes on writing, or until the deadline."""
UNREAD: Final = 4 * 1024 * 1024
"""More than pipes and channels hold: what comes after so many bytes was not written by the program that has ended."""
_EOT: Final = b"\x04"
_SHELL: Final = "/bin/sh"


class TrailingOutput:
    """What still comes after a program's end: all that it wrote itself, and something of those it left behind."""

    def __init__(self, deadline: Deadline, longest: float) -> None:
        self._deadline, self._longest = deadline, longest
        self._began: float | None = None
        self._last = self._bytes = 0.0
        self.dry = False

    def begin(self) -> None:
        """The program has ended."""
        self._began = self._last = time.monotonic()
        self._bytes, self.dry = 0, False

    def heard(self, count: int) -> None:
        """So many bytes came."""
        self._last = time.monotonic()
        self._bytes += count

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for more. A reader of ours that is slow loses nothing of the program's own."""
        now = time.monotonic()
        if self._began is None or now - self._last > LINGER:
            return True
        whole = self.dry or self._bytes > UNREAD
        return whole and (self._deadline.passed or now - self._began > self._longest)


class LocalSession:
    """A command and everything it starts, from construction to `close`.

    The session's leader is a shell that ends it as a whole when `_alive`, a pipe of ours, is closed: by `close`, or by
    the kernel because we died. The leader is our child and not reaped before `close`, hence its number stays its own.
    """

    def __init__(self, command: Command, *, stdin: BinaryIO | None) -> None:
        launch.check_argv(command.argv)
        self._command, self._source = command, stdin
        self._track = Path(command.track).absolute() if command.track else None
        self._ours: list[int] = []
        self._alive: int | None = None
        self._started: list[int] = []
        self._pidfd: int | None = None
        self._terminal: int | None = None
        self._feeder: StdinFeeder | None = None
        self._fed = False
        self._window = b""
        self._code: int | None = None

    def start(self, env: Mapping[str, str]) -> None:
        """Start the program. `close` is owed from here on, also when this was interrupted."""
        command = self._command
        fds: dict[int, int] = {}
        theirs: list[int] = []
        try:
            fds[3], self._alive = os.pipe2(os.O_CLOEXEC)
            theirs.append(fds[3])
            tty = self._open_terminal(fds, theirs) if command.tty else self._open_pipes(fds, theirs)
            if command.tty and command.prelude:
                fds[5] = _memory(command.prelude)
                theirs.append(fds[5])
            self._open_stdin(b"" if command.tty else command.prelude, self._source, fds, theirs)
            if self._track is not None:
                with suppress(OSError):  # it may be there; the leader makes it otherwise, or says why not
                    self._track.mkdir(0o700)  # by us it takes no program
            spawn(self._words(command, tty), env=env, fds=fds, started=self._started)
            self._pidfd = os.pidfd_open(self._pid)
        finally:
            for fd in theirs:
                os.close(fd)
        if self._feeder is not None:
            self._feeder.start()
            self._fed = True

    @property
    def _pid(self) -> int:
        """The leader, our child."""
        return self._started[0]

    def pump(self, streams: Streams, deadline: Deadline) -> int:
        """Pass bytes until the program has ended; its exit code. Raises Timeout at the deadline."""
        poller = select.poll()
        sinks = self._sinks(streams)
        pidfd = self._pidfd if self._pidfd is not None else -1
        for fd in (*sinks, pidfd):
            poller.register(fd, select.POLLIN)
        late = TrailingOutput(deadline, LINGER_LONGEST)
        while self._code is None or sinks:
            ready = poller.poll(50 if self._code is not None else 1000 * deadline.seconds(TICK))
            for fd, _ in ready:
                if fd == pidfd:
                    poller.unregister(fd)
                    self._code = self._wait()
                    late.begin()
                    if self._terminal is not None:
                        self._drain(sinks)
                        return self._code
                elif data := _read(fd):
                    sinks[fd](data)
                    late.heard(len(data))
                else:
                    poller.unregister(fd)
                    del sinks[fd]
            if not ready:
                late.dry = True
            self._look_around(deadline)
            if self._code is not None and late.is_over:
                break
        return self._code

    def end(self) -> None:
        """Kill the whole session and forget its record. Raises BackendError when something does not die."""
        if not self._started:
            return
        try:
            tracking.end_session(self._pid, Deadline(10))
        finally:
            self._forget_record()

    def close(self) -> None:
        """Give everything back. Whatever is left of the session is ended by its leader from here on. The leader is
        reaped; one that cannot die is left to the kernel."""
        alive, self._alive = self._alive, None
        if alive is not None:
            os.close(alive)
        if self._feeder is not None:
            self._feeder.stop() if self._fed else self._feeder.discard()
            self._feeder = None
        try:
            if self._started:
                self._pidfd = os.pidfd_open(self._pid) if self._pidfd is None else self._pidfd
                if _readable(self._pidfd, 5000):
                    with suppress(OSError):  # its directory may just be going
                        self._forget_record()
                    os.waitpid(self._pid, 0)
        finally:
            ours, self._ours = self._ours, []
            for fd in (*ours, *([self._pidfd] if self._pidfd is not None else [])):
                os.close(fd)
            self._pidfd = None

    def _words(self, command: Command, tty: str) -> Sequence[str]:
        cwd = launch.anchored(command.cwd) if command.cwd is not None else ""
        clean = "1" if command.clean_env else ""
        fd5 = "1" if command.tty and command.prelude else ""
        track = str(self._track) if self._track else ""
        return [_SHELL, "-c", launch.LOCAL, "sh", track, cwd, tty, clean, fd5, *command.argv]

    def _pipe(self, theirs: list[int], *, mine: int) -> tuple[int, int]:
        pair = os.pipe2(os.O_CLOEXEC)
        self._ours.append(pair[mine])
        theirs.append(pair[1 - mine])
        return pair[1 - mine], pair[mine]

    def _open_pipes(self, fds: dict[int, int], theirs: list[int]) -> str:
        fds[1], self._out = self._pipe(theirs, mine=0)
        fds[2], self._err = self._pipe(theirs, mine=0)
        return ""

    def _open_terminal(self, fds: dict[int, int], theirs: list[int]) -> str:
        self._terminal, slave = os.openpty()
        self._ours += [self._terminal, slave]  # without a slave of ours, its last close would end the master's reads
        self._resize()
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        theirs.append(nowhere)
        fds[1] = fds[2] = nowhere  # the leader opens the terminal itself: only so it becomes the controlling one
        return os.ttyname(slave)

    def _open_stdin(self, prelude: bytes, source: BinaryIO | None, fds: dict[int, int], theirs: list[int]) -> None:
        if self._terminal is not None:
            fds[0] = fds[1]
            self._feeder = StdinFeeder(b"", source, PipeStdinWriter(os.dup(self._terminal), last=_EOT))
            return
        complete = complete_input(prelude, source)
        if complete == b"":
            fds[0] = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            theirs.append(fds[0])
            return
        fds[0], writing = os.pipe2(os.O_CLOEXEC)
        theirs.append(fds[0])
        if complete is None:
            self._feeder = StdinFeeder(prelude, source, PipeStdinWriter(writing))
            return
        os.write(writing, complete)
        os.close(writing)

    def _sinks(self, streams: Streams) -> dict[int, Sink]:
        if self._terminal is not None:
            return {self._terminal: streams.stdout}
        return {self._out: streams.stdout, self._err: streams.stderr}

    def _drain(self, sinks: Mapping[int, Callable[[bytes], None]]) -> None:
        poller = select.poll()
        for fd in sinks:
            poller.register(fd, select.POLLIN)
        while ready := poller.poll(0):
            for fd, _ in ready:
                data = _read(fd)
                if not data:
                    return
                sinks[fd](data)

    def _look_around(self, deadline: Deadline) -> None:
        if self._feeder is not None and self._feeder.error is not None:
            raise self._feeder.error
        if self._terminal is not None:
            self._resize()
        if deadline.passed and self._code is None:
            raise Timeout("the command did not end in time", hint="give it longer with --timeout")

    def _resize(self) -> None:
        """The caller's window is the program's window, when the input is a terminal."""
        size = window_of(self._source)
        if size != self._window and size and self._terminal is not None:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)
            self._window = size

    def _wait(self) -> int:
        # not reaped yet: as long as it is a zombie, its number cannot mean another process
        found = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        if found is None:  # only ever with WNOHANG
            raise ChildProcessError(self._pid)
        return found.si_status if found.si_code == os.CLD_EXITED else 128 + found.si_status

    def _forget_record(self) -> None:
        if self._track is None or not self._track.is_dir():
            return
        for path in self._track.iterdir():
            record = tracking.parse_record(path.name)
            if record is not None and record.leader == self._pid:
                path.unlink(missing_ok=True)


def window_of(source: BinaryIO | None) -> bytes:
    """The `struct winsize` of the terminal that `source` is; empty when it is none."""
    if source is None:
        return b""
    try:
        return fcntl.ioctl(source.fileno(), termios.TIOCGWINSZ, bytes(struct.calcsize("HHHH")))
    except (OSError, AttributeError, ValueError):
        return b""


def run_session(command: Command, streams: Streams, deadline: Deadline, env: Mapping[str, str]) -> int:
    """Run a command to its end; whatever interrupts it ends its session first. The exit code."""
    if _is_directory_gone():
        # a shell complains of a directory without a name, unless $PWD is one for it
        command = msgspec.structs.replace(command, cwd="/") if command.cwd is None else command
        env = {**env, "PWD": "/proc/self/cwd"}
    session = LocalSession(command, stdin=streams.stdin)
    try:
        session.start(env)
        return session.pump(streams, deadline)
    except Timeout as error:
        _end(session, command)
        raise Timeout(f"{launch.program_of(command.argv)} did not end in time and was ended", hint=error.hint) from None
    except BaseException:
        _end(session, command)
        raise
    finally:
        session.close()


def _is_directory_gone() -> bool:
    """Whether the directory that we are in has been deleted."""
    try:
        os.getcwd()  # noqa: PTH109 - it only matters whether there is one
    except FileNotFoundError:
        return True
    return False


def _end(session: LocalSession, command: Command) -> None:
    try:
        session.end()
    except BackendError as error:
        raise BackendError(
            f"{launch.program_of(command.argv)} had to be ended, but {error.message}",
            hint=error.hint,
            outcome="unknown",
        ) from error


def _readable(fd: int, milliseconds: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(milliseconds))


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, CHUNK)
    except OSError:  # EIO: the terminal's other side is gone
        return b""


def _memory(data: bytes) -> int:
    fd = os.memfd_create("prelude", os.MFD_CLOEXEC)
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
