"""One program running on another machine: its channel, its streams, its end."""

from __future__ import annotations

import contextlib
import re
import select
import struct
import threading
import time
from dataclasses import dataclass
from typing import Final

import paramiko

from sandboxer.errors import BackendError, Timeout, Unavailable
from sandboxer.hosts.base import Sink, Streams
from sandboxer.hosts.process.session import TICK, TrailingOutput, window_of
from sandboxer.hosts.process.stdin import CHUNK, StdinFeeder, complete_input
from sandboxer.hosts.ssh.connection import SshConnection
from sandboxer.hosts.ssh.errors import translated
from sandboxer.timing import Deadline

FIND_SECONDS: Final = 1.5
"""How long a command that was sent and not begun is waited for when it has to be ended."""
LINGER_LONGEST: Final = 30.0
"""What a program wrote may still be on a slow line when its end is told."""
GRACE: Final = 1.5
"""So long after the deadline the connection itself is cut, when a write to it hangs in a full socket."""
_INLINE: Final = 30 * 1024
_NOISE: Final = 64 * 1024
_EOT: Final = b"\x04"


@dataclass(slots=True)
class SessionLeader:
    """The remote session's leader, as it told us; `pid` 0 while it has not."""

    pid: int = 0
    start: int = 0


class _Mark:
    """Takes the leader's line off the front of stdout, with whatever the login shell wrote before it."""

    def __init__(self, token: str, sink: Sink) -> None:
        self._line = re.compile(rb"%s (\d+) (\d+)\r?\n" % token.encode())
        self.sink = sink
        self._before: bytes | None = b""
        self.leader = SessionLeader()

    def feed(self, data: bytes) -> None:
        if self._before is None:
            self.sink(data)
            return
        self._before += data
        match = self._line.search(self._before)
        if match is None:
            self._before = self._before[-_NOISE:]
            return
        self.leader.pid, self.leader.start = int(match[1]), int(match[2])
        rest, self._before = self._before[match.end() :], None
        if rest:
            self.sink(rest)

    @property
    def noise(self) -> str:
        return (self._before or b"").decode("utf-8", "replace").strip()[-500:]


class _ChannelOutlet:
    """The program's input at the other end of a channel."""

    def __init__(self, channel: paramiko.Channel, last: bytes) -> None:
        self._channel, self._last = channel, last

    def write(self, data: bytes, wake: int) -> None:
        try:
            self._channel.sendall(data)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise BrokenPipeError from error

    def end(self) -> None:
        try:
            if self._last:
                self._channel.sendall(self._last)
            else:
                self._channel.shutdown_write()
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise BrokenPipeError from error

    def close(self) -> None:
        """The channel is closed by whoever opened it."""


class RemoteSession:
    """A command on a channel, from construction to `close`."""

    def __init__(self, connection: SshConnection, *, line: str, head: bytes, token: str, streams: Streams, tty: bool):
        self.connection, self._line, self._head, self._tty = connection, line, head, tty
        self._streams = streams
        self._mark = _Mark(token, streams.stdout)
        self._channel: paramiko.Channel | None = None
        self._feeder: StdinFeeder | None = None
        self._sent = self._ended = False
        self._window = b""
        self._complaint = b""

    @property
    def leader(self) -> SessionLeader:
        """What must be ended when the command has to be."""
        return self._mark.leader

    def run(self, deadline: Deadline) -> int:
        """Start it and pass bytes until it has ended; its exit code. Raises Timeout at the deadline, Unavailable when
        the connection is lost, SessionRefused, with nothing sent, where the server takes no further session."""
        # every wait below looks at the deadline, except a write into the socket of a peer that takes nothing
        left = deadline.left()
        guard = None if left is None else self._guarded(left)
        try:
            with translated(self.connection.endpoint, "running a command"):
                self._channel = channel = self.connection.open_session(deadline)
                self._start(channel, deadline)
            code = self._pump(channel, deadline)
            self._ended = True
            return code
        finally:
            if guard is not None:
                guard.cancel()

    def find_leader(self) -> SessionLeader:
        """The leader, waited for a little when the command was sent and has not told it yet: it may be starting just
        now, and nobody could end it later."""
        channel, until = self._channel, time.monotonic() + FIND_SECONDS
        self._mark.sink = nowhere
        guard = self._guarded(FIND_SECONDS)
        while channel is not None and self._sent and not self.leader.pid and time.monotonic() < until:
            if channel.recv_ready():
                self._mark.feed(channel.recv(CHUNK))
            elif channel.closed or channel.eof_received:
                break
            else:
                time.sleep(0.02)
        guard.cancel()
        return self.leader

    def close(self) -> None:
        """Stop feeding and give the channel back. What runs is not ended by it."""
        if self._feeder is not None:
            self._feeder.stop()
        if self._channel is None:
            return
        guard = None if self._ended else self._guarded(0)
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()
        if guard is not None:
            guard.cancel()
        self._channel = None
        self.connection.left_session()

    def _guarded(self, seconds: float) -> threading.Timer:
        """Cuts the connection some time after so many seconds, unless cancelled: what hangs in a write then fails."""
        guard = threading.Timer(seconds + GRACE, self.connection.close)
        guard.daemon = True
        guard.start()
        return guard

    def _start(self, channel: paramiko.Channel, deadline: Deadline) -> None:
        if self._tty:
            self._window = window_of(self._streams.stdin)
            rows, columns = _rows_columns(self._window)
            channel.get_pty("xterm-256color", columns, rows)
        _request_exec(channel, self._line)
        self._sent = True
        complete = None if self._tty else complete_input(self._head, self._streams.stdin, limit=_INLINE)
        if complete is not None:
            channel.settimeout(deadline.seconds(60))
            channel.sendall(complete)
            channel.shutdown_write()
            return
        outlet = _ChannelOutlet(channel, _EOT if self._tty else b"")
        self._feeder = StdinFeeder(self._head, self._streams.stdin, outlet)
        self._feeder.start()

    def _pump(self, channel: paramiko.Channel, deadline: Deadline) -> int:
        poller = select.poll()
        poller.register(channel.fileno(), select.POLLIN)
        late = TrailingOutput(deadline, LINGER_LONGEST)
        ended = False
        while True:
            passed = self._pass_on(channel)
            if channel.status_event.is_set() and not ended:
                ended = True
                late.begin()
            if passed:
                late.heard(passed)
                if ended and late.is_over:
                    return self._code(channel)
                self._look_around(channel, deadline, ended=ended)  # one that never pauses has a deadline, too
                continue
            late.dry = True
            if ended and self._is_over(channel, late):
                return self._code(channel)
            self._look_around(channel, deadline, ended=ended)
            wait = 0.05 if ended else deadline.seconds(TICK)
            if channel.eof_received and not ended:
                channel.status_event.wait(wait)  # both streams have ended: the pipe is readable for ever
            else:
                poller.poll(1000 * wait)

    def _pass_on(self, channel: paramiko.Channel) -> int:
        passed = 0
        if channel.recv_ready() and (data := channel.recv(CHUNK)):
            self._mark.feed(data)
            passed += len(data)
        if channel.recv_stderr_ready() and (data := channel.recv_stderr(CHUNK)):
            if not self.leader.pid:
                self._complaint = (self._complaint + data)[-2000:]
            self._streams.stderr(data)
            passed += len(data)
        return passed

    def _is_over(self, channel: paramiko.Channel, late: TrailingOutput) -> bool:
        return bool(channel.closed or channel.eof_received) or self._tty or late.is_over

    def _look_around(self, channel: paramiko.Channel, deadline: Deadline, *, ended: bool) -> None:
        if self._feeder is not None and self._feeder.error is not None:
            raise self._feeder.error
        if self._tty and not ended:
            self._resize(channel)
        if deadline.passed and not ended:
            raise Timeout("the command did not end in time", hint="give it longer with --timeout")

    def _resize(self, channel: paramiko.Channel) -> None:
        size = window_of(self._streams.stdin)
        if size and size != self._window:
            self._window = size
            rows, columns = _rows_columns(size)
            channel.resize_pty(columns, rows)

    def _code(self, channel: paramiko.Channel) -> int:
        code = int(channel.exit_status)
        endpoint = self.connection.endpoint
        if code < 0 and not self.connection.alive:
            raise Unavailable(
                f"the connection to {endpoint.where} was lost while a command ran",
                hint="it may still run there until its time is over",
                outcome="unknown" if self.leader.pid else "failed",
            )
        if not self.leader.pid:
            said = self._mark.noise or self._complaint.decode("utf-8", "replace").strip()
            raise BackendError(
                f"the login shell of {endpoint.user} at {endpoint.where} runs no commands"
                + (f": {said}" if said else ""),
                hint=f"try: ssh -p {endpoint.port} {endpoint.user}@{endpoint.host} true",
            )
        # the leader tells signals as 128 + n; it was itself killed when there is no status at all
        return code if code >= 0 else 137


def _request_exec(channel: paramiko.Channel, line: str) -> None:
    """Ask for the command without waiting for the answer, which would cost a round trip before its input can be sent;
    after a refusal paramiko closes the channel."""
    message = paramiko.Message()
    message.add_byte(bytes([98]))  # SSH_MSG_CHANNEL_REQUEST (RFC 4254, 6.5)
    message.add_int(channel.remote_chanid)
    message.add_string("exec")
    message.add_boolean(True)
    message.add_string(line)
    channel._event_pending()  # type: ignore[attr-defined]
    channel.get_transport()._send_user_message(message)  # type: ignore[attr-defined]


def _rows_columns(window: bytes) -> tuple[int, int]:
    if not window:
        return 24, 80
    rows, columns, _, _ = struct.unpack("HHHH", window)
    return rows or 24, columns or 80


def nowhere(data: bytes) -> None:
    """Nobody reads it."""
