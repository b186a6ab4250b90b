"""Serve one SSH connection on two pipes: sessions that run a program, and nothing else.

It is the far end of a `ProxyCommand`. Whoever holds the other ends of the pipes is the one who started us, so nobody
has to prove who they are; the server does, by its host key. No forwarding of ports, agents or displays, no variables.
"""

from __future__ import annotations

import os
import select
import stat
import threading
import time
from collections.abc import Callable
from typing import Final

import paramiko
from paramiko import common

from sandboxer.errors import Denied, Invalid
from sandboxer.hosts.ssh.server_key import read_key
from sandboxer.hosts.ssh.server_session import Run, ServerSession

TICK: Final = 0.25
"""Seconds between looks at what has gone."""
GREETING_SECONDS: Final = 60.0
"""How long a client may take until it is let in."""
IDLE_SECONDS: Final = 600.0
"""A connection without a session ends after so long: a client that keeps it open for later ones uses nothing."""
MAX_SESSIONS: Final = 10
"""Sessions at a time in one connection, as with OpenSSH."""
ENDING_SECONDS: Final = 20.0
"""How long the sessions of a client that has gone may take to end what they run."""


def serve_ssh(
    reading: int,
    writing: int,
    *,
    key: str,
    user: str,
    run: Run,
    tell: Callable[[str], None],
    stop: threading.Event,
    idle: float = IDLE_SECONDS,
) -> None:
    """Serve the client at the other ends of two pipes until it has gone, or `stop` is set; every program that still
    runs then is ended. `run` runs one, `tell` says why something is refused. Raises what `run` raised unforeseen."""
    pipes = _Pipes(reading, writing)
    transport = paramiko.Transport(pipes)  # type: ignore[arg-type]  # it needs four methods of a socket
    transport.local_version = "SSH-2.0-sandboxer"
    transport.add_server_key(read_key(key))
    server = _Server(user, run, tell)
    try:
        transport.start_server(event=threading.Event(), server=server)
        _attend(transport, server, stop, idle)
    finally:
        server.end_all()
        pipes.shut()
        transport.close()
        server.join(ENDING_SECONDS)
        transport.join(ENDING_SECONDS)
    if server.unforeseen is not None:
        raise server.unforeseen


def _attend(transport: paramiko.Transport, server: _Server, stop: threading.Event, idle: float) -> None:
    began = busy = time.monotonic()
    while transport.is_active() and not stop.is_set() and server.unforeseen is None:
        channel = transport.accept(TICK)
        if channel is not None:
            server.session(channel)
        now = time.monotonic()
        if server.tidy():
            busy = now
        if not transport.is_authenticated() and now - began > GREETING_SECONDS:
            return
        if now - busy > idle:
            return


class _Server(paramiko.ServerInterface):
    """What is allowed: everything that is not said here is refused by paramiko. Called by the connection's thread."""

    def __init__(self, user: str, run: Run, tell: Callable[[str], None]) -> None:
        self._user, self._run, self._tell = user, run, tell
        self._lock = threading.Lock()
        self._sessions: dict[int, ServerSession] = {}
        self._opened: set[int] = set()
        self.unforeseen: BaseException | None = None

    def get_allowed_auths(self, username: str) -> str:
        return "none"

    def check_auth_none(self, username: str) -> int:
        if username == self._user:
            return common.AUTH_SUCCESSFUL
        self._tell(f"there is no user {username[:80]!r} here: everything runs as the sandbox's own ({self._user})")
        return common.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        if kind != "session":
            return common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        with self._lock:
            if len(self._opened) >= MAX_SESSIONS:
                return common.OPEN_FAILED_RESOURCE_SHORTAGE
            self._opened.add(chanid)
        return common.OPEN_SUCCEEDED

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        self._tell("ports are not forwarded into a sandbox")
        return common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_pty_request(
        self,
        channel: paramiko.Channel,
        term: bytes | str,
        width: int,
        height: int,
        pixelwidth: int,
        pixelheight: int,
        modes: bytes | str,
    ) -> bool:
        return self.session(channel).ask_terminal(_text(term), width, height)

    def check_channel_window_change_request(
        self, channel: paramiko.Channel, width: int, height: int, pixelwidth: int, pixelheight: int
    ) -> bool:
        return self.session(channel).resize(width, height)

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        return self.session(channel).ask("shell", "")

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes | str) -> bool:
        return self.session(channel).ask("exec", _text(command))

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        return name == "sftp" and self.session(channel).ask("sftp", "")

    def session(self, channel: paramiko.Channel) -> ServerSession:
        """The session of a channel, which is begun when it is met for the first time."""
        number = channel.get_id()
        with self._lock:
            session = self._sessions.get(number)
            if session is None:
                session = self._sessions[number] = ServerSession(channel, self._run)
                session.start()
            return session

    def tidy(self) -> bool:
        """End what runs for channels that are closed, and forget what has ended; whether there are sessions."""
        with self._lock:
            for number, session in list(self._sessions.items()):
                if session.has_ended:
                    self.unforeseen = self.unforeseen or session.unforeseen
                    del self._sessions[number]
                    self._opened.discard(number)
                else:
                    session.end_if_closed()
            return bool(self._sessions)

    def end_all(self) -> None:
        """End what runs."""
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.end()

    def join(self, seconds: float) -> None:
        """Wait until all have ended, or `seconds` have passed."""
        until = time.monotonic() + seconds
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.join(max(0.0, until - time.monotonic()))
        self.tidy()


def _text(data: bytes | str) -> str:
    return data if isinstance(data, str) else data.decode("utf-8", "surrogateescape")


class _Pipes:
    """Two pipes as the socket that paramiko works on. They are the caller's, and stay open."""

    def __init__(self, reading: int, writing: int) -> None:
        for fd in (reading, writing):
            kind = os.fstat(fd).st_mode
            if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
                raise Invalid(
                    "there is no SSH client at the other end",
                    hint="`sandboxer ssh-config ID` says how `ssh` starts this by itself",
                )
            if stat.S_ISSOCK(kind) and not _is_unix(fd):
                raise Denied("this is for pipes of this machine, not for the network", hint="see docs/ssh.md")
            os.set_blocking(fd, False)
        self._reading, self._writing = reading, writing
        self._timeout: float | None = None
        self._closed = False

    def settimeout(self, timeout: float | None) -> None:
        """How long `recv` and `send` wait."""
        self._timeout = timeout

    def recv(self, count: int) -> bytes:
        """Some bytes; none at the end."""
        if self._wait(self._reading, select.POLLIN):
            return b""
        try:
            return os.read(self._reading, count)
        except BlockingIOError:
            raise TimeoutError from None

    def send(self, data: bytes) -> int:
        """Write some of them."""
        if self._wait(self._writing, select.POLLOUT):
            raise BrokenPipeError
        try:
            return os.write(self._writing, data)
        except BlockingIOError:
            raise TimeoutError from None

    def close(self) -> None:
        """Called by paramiko, also while another thread waits in here."""
        self.shut()

    def shut(self) -> None:
        """Let everything end."""
        self._closed = True

    def _wait(self, fd: int, event: int) -> bool:
        """Wait until it may go on; whether all is over."""
        poller = select.poll()
        poller.register(fd, event)
        seconds = TICK if self._timeout is None else self._timeout
        while not self._closed:
            if poller.poll(seconds * 1000):
                return self._closed
            if self._timeout is not None:
                raise TimeoutError
        return True


def _is_unix(fd: int) -> bool:
    import socket

    with socket.socket(fileno=os.dup(fd)) as end:
        return end.family == socket.AF_UNIX
