"""The API as tests see it: called in this process, or served on a loopback port."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from httpx import Client

from sandboxer.api.server import listen, make_server
from sandboxer.bootstrap import Installation
from tests.testbed.waiting import eventually

HEAD = "Host: 127.0.0.1\r\nConnection: close\r\n"


@dataclass(frozen=True)
class Answer:
    """What came back over a socket."""

    status: int
    head: str
    body: str


@dataclass(frozen=True)
class Served:
    """A server on a loopback port."""

    port: int

    def send(self, data: bytes | str, *, then: bytes = b"", timeout: float = 10.0) -> Answer:
        """Write these bytes, and read to the end of the connection. `then` is sent once the server has answered."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            connection.sendall(data.encode() if isinstance(data, str) else data)
            received = b""
            try:
                while chunk := connection.recv(65536):
                    received += chunk
                    if then:
                        connection.sendall(then)
            except (ConnectionResetError, BrokenPipeError):
                pass  # it answers and closes while we still send
        head, _, body = received.decode("utf-8", "replace").partition("\r\n\r\n")
        found = re.match(r"HTTP/1\.1 (\d{3})", head)
        return Answer(int(found[1]) if found else 0, head, body)

    def get(self, path: str, headers: str = HEAD, *, version: str = "1.1") -> Answer:
        """A GET with exactly these header lines."""
        return self.send(f"GET {path} HTTP/{version}\r\n{headers}\r\n")


@contextmanager
def serving(here: Installation) -> Iterator[Served]:
    """The real server, with its real socket, in a thread."""
    server = make_server(here)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        eventually(lambda: server.started, within=60, what="the server starts")
        try:
            yield Served(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@contextmanager
def called(here: Installation) -> Iterator[Client]:
    """A client of a server over this installation."""
    with serving(here) as server, Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        yield client
