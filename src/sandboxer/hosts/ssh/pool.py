"""The connections to one host: opened when they are needed, shared, replaced when they are dead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sandboxer.errors import SandboxerError, Unavailable
from sandboxer.hosts.ssh.config import SshEndpoint
from sandboxer.timing import Deadline

if TYPE_CHECKING:
    from sandboxer.hosts.ssh.connection import SshConnection

MAX_CONNECTIONS: Final = 8
SESSIONS: Final = 8
"""Commands at a time on one connection. sshd allows ten sessions (MaxSessions); two are kept for ending others."""
WAIT_SECONDS: Final = 60.0
"""How long a command waits for a place on a host that takes as many as we ask for."""
LIMITED_WAIT_SECONDS: Final = 300.0
"""The same on a host that takes fewer sessions or connections: there, commands wait for one another."""
REFUSED_SECONDS: Final = 5.0
"""How long no further connection is tried after one was refused while others are there."""


class SshConnectionPool:
    """At most eight connections with eight commands each, or with as many as the server takes. `fingerprint` is the
    verified host key's, once known."""

    def __init__(self, name: str, resolve: Callable[[Deadline], SshEndpoint]) -> None:
        self._name, self._resolve = name, resolve
        self._room = threading.Condition()
        self._connections: list[SshConnection] = []
        self._connecting = False
        self._sessions = SESSIONS
        self._refusal: SandboxerError | None = None
        self._refused_at = 0.0
        self.fingerprint: str | None = None

    @contextmanager
    def slot(self, deadline: Deadline) -> Iterator[SshConnection]:
        """A live connection with room for one more command, which is taken until the end of the block."""
        connection = self._take(deadline)
        try:
            yield connection
        finally:
            with self._room:
                connection.placed -= 1
                self._room.notify_all()
            connection.let_go()

    def session_refused(self, connection: SshConnection) -> None:
        """A connection's server took no further session on it: fewer are asked for from now on, or the connection is
        given up when nobody else is on it."""
        with self._room:
            if connection.placed > 1:
                self._sessions = max(1, min(self._sessions, connection.sessions))
            else:
                connection.retire()

    def close(self) -> None:
        """End all connections."""
        with self._room:
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()

    def _take(self, deadline: Deadline) -> SshConnection:
        began = time.monotonic()
        deadline.check(f"connecting to {self._name}")
        while True:
            with self._room:
                self._connections = [known for known in self._connections if known.usable]
                for known in self._connections:
                    if known.placed < self._sessions:
                        return self._placed(known)
                if self._may_connect():
                    self._connecting = True
                else:
                    left = began + self._patience - time.monotonic()
                    if left <= 0 or deadline.passed:
                        raise self._busy()
                    self._room.wait(deadline.seconds(min(left, REFUSED_SECONDS)))
                    continue
            if (made := self._connect(deadline)) is not None:
                return made

    def _placed(self, connection: SshConnection) -> SshConnection:
        connection.placed += 1
        connection.hold()
        return connection

    def _may_connect(self) -> bool:
        is_refused = self._refusal is not None and time.monotonic() - self._refused_at < REFUSED_SECONDS
        full = len(self._connections) >= MAX_CONNECTIONS
        return not (self._connecting or full or (is_refused and self._connections))

    def _connect(self, deadline: Deadline) -> SshConnection | None:
        """One more connection, with its first place taken; None when the server refuses it while others are there."""
        from sandboxer.hosts.ssh.connection import connect

        made: SshConnection | None = None
        refusal: SandboxerError | None = None
        try:
            made = connect(self._resolve(deadline), deadline)
        except SandboxerError as error:
            refusal = error
        finally:
            with self._room:
                self._connecting = False
                self._refusal, self._refused_at = refusal, time.monotonic()
                alone = not any(known.usable for known in self._connections)
                if made is not None:
                    self.fingerprint = made.fingerprint
                    self._connections.append(self._placed(made))
                self._room.notify_all()
        if refusal is not None and alone:
            raise refusal
        return made

    @property
    def _patience(self) -> float:
        return WAIT_SECONDS if self._sessions == SESSIONS and self._refusal is None else LIMITED_WAIT_SECONDS

    def _busy(self) -> Unavailable:
        if not self._connections:
            return Unavailable(
                f"{self._name} did not answer in time: another command is still connecting", hint="is the host up?"
            )
        if self._refusal is not None:
            return Unavailable(
                f"{self._name} takes {len(self._connections)} connections of ours with {self._sessions} sessions each, "
                f"and no more: {self._refusal.message}",
                hint="raise MaxSessions or MaxStartups in its sshd_config, or try again when other commands have ended",
            )
        return Unavailable(
            f"{self._name} is busy with as many of our commands as it takes", hint="try again when some have ended"
        )
