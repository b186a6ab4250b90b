"""Keep idle connections for the next request: one pool for a process, shared by its threads."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from typing import Final

from sandboxer.http.address import Destination
from sandboxer.http.connection import HTTPConnection
from sandboxer.http.network import connect
from sandboxer.timing import Deadline

KEPT_SECONDS: Final = 30.0
"""How long an idle connection is kept for a request that may be repeated."""
FRESH_SECONDS: Final = 4.0
"""How long for one that may not: servers end idle connections after 5 s and more, and a request that crosses with the
end has an unknown outcome. Connecting again costs less than asking what happened."""
KEPT_ALL: Final = 256
"""How many idle ones are kept, over all addresses; more than any number of threads that we run."""


class HTTPConnectionPool:
    """Idle connections by destination. Thread-safe; a child process starts with none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, tuple[Destination, HTTPConnection, float]] = OrderedDict()
        self._by_destination: dict[Destination, list[int]] = {}
        self._next = 0
        os.register_at_fork(after_in_child=self._forget)

    def take(self, destination: Destination, deadline: Deadline, *, repeatable: bool) -> HTTPConnection:
        """Take a connection for one request: an idle one that is still good, else a new one. Raises Unavailable,
        Timeout."""
        oldest = time.monotonic() - (KEPT_SECONDS if repeatable else FRESH_SECONDS)
        while (kept := self._pop(destination)) is not None:
            connection, since = kept
            if since >= oldest and connection.quiet:
                connection.begin(deadline)
                return connection
            connection.close()
        return connect(destination, deadline)

    def give(self, destination: Destination, connection: HTTPConnection) -> None:
        """Put back a connection whose response was read to its end."""
        oldest = time.monotonic() - KEPT_SECONDS
        closing: list[HTTPConnection] = []
        with self._lock:
            self._next += 1
            self._idle[self._next] = (destination, connection, time.monotonic())
            self._by_destination.setdefault(destination, []).append(self._next)
            while self._idle:
                number, (whose, old, since) = next(iter(self._idle.items()))
                if since >= oldest and len(self._idle) <= KEPT_ALL:
                    break
                self._remove(number, whose)
                closing.append(old)
        for old in closing:
            old.close()

    @property
    def idle(self) -> int:
        """How many are kept."""
        return len(self._idle)

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            kept = [connection for _, connection, _ in self._idle.values()]
            self._idle.clear()
            self._by_destination.clear()
        for connection in kept:
            connection.close()

    def _pop(self, destination: Destination) -> tuple[HTTPConnection, float] | None:
        with self._lock:
            numbers = self._by_destination.get(destination)
            if not numbers:
                return None
            # the latest: the others may so grow old and be closed
            number = numbers[-1]
            _, connection, since = self._idle[number]
            self._remove(number, destination)
            return connection, since

    def _remove(self, number: int, destination: Destination) -> None:
        del self._idle[number]
        numbers = self._by_destination[destination]
        numbers.remove(number)
        if not numbers:
            del self._by_destination[destination]

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._idle = OrderedDict()
        self._by_destination = {}


POOL: Final = HTTPConnectionPool()
