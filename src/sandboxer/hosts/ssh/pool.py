"""The connections to one host: opened when they are needed, shared, replaced when they are dead."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sandboxer.errors import Unavailable
from sandboxer.hosts.ssh.config import SshEndpoint
from sandboxer.timing import Deadline

if TYPE_CHECKING:
    from sandboxer.hosts.ssh.connection import SshConnection

MAX_CONNECTIONS: Final = 8
_WAIT_SECONDS: Final = 60.0


class SshConnectionPool:
    """At most eight connections with eight commands each. `fingerprint` is the verified host key's, once known."""

    def __init__(self, name: str, resolve: Callable[[Deadline], SshEndpoint]) -> None:
        self._name, self._resolve = name, resolve
        self._lock = threading.Lock()
        self._connections: list[SshConnection] = []
        self.fingerprint: str | None = None

    @contextmanager
    def slot(self, deadline: Deadline) -> Iterator[SshConnection]:
        """A live connection with room for one more command, which is taken until the end of the block."""
        connection = self._take(deadline)
        try:
            yield connection
        finally:
            connection.leave_place()

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()

    def _take(self, deadline: Deadline) -> SshConnection:
        from sandboxer.hosts.ssh.connection import connect

        deadline.check(f"connecting to {self._name}")
        if not self._lock.acquire(timeout=deadline.seconds(_WAIT_SECONDS)):
            raise Unavailable(
                f"{self._name} did not answer in time: another command is still connecting", hint="is the host up?"
            )
        try:
            self._connections = [known for known in self._connections if known.usable]
            for known in self._connections:
                if known.take_place(within=0):
                    return known
            if len(self._connections) < MAX_CONNECTIONS:
                made = connect(self._resolve(deadline), deadline)
                made.take_place(within=0)
                self.fingerprint = made.fingerprint
                self._connections.append(made)
                return made
            busy = self._connections[secrets.randbelow(len(self._connections))]
        finally:
            self._lock.release()
        if busy.take_place(within=deadline.seconds(_WAIT_SECONDS)):
            return busy
        raise Unavailable(
            f"{self._name} is busy with as many of our commands as it takes", hint="try again when some have ended"
        )
