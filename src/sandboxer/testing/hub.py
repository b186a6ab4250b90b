"""A neighbour that events are sent to, on loopback: it keeps what arrives, and misbehaves as it is told.

    with FakeHub() as hub:
        hub.faults.append(answer(503, retry_after="1"))   # for the next request only
        hub.rule = lambda event: lost() if event["event_type"] == "sandbox.ready" else None

Also usable by hand: `python -m sandboxer.testing.hub` prints its address, then each event as a line of JSON.
"""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFault:
    """How one request is treated. `takes`: the event counts as arrived. `delay` in seconds, before the answer, which is
    `whole`, cut in the `middle` of its head or in its `body`, `none`, or comes in a `trickle`, a byte each 20 ms."""

    status: int = 200
    takes: bool = True
    delay: float = 0.0
    answer: Literal["whole", "none", "middle", "body", "trickle"] = "whole"
    headers: Mapping[str, str] = field(default_factory=dict)


FINE = HubFault()


def answer(status: int, *, retry_after: str | None = None, location: str | None = None) -> HubFault:
    """Only an answer; the event has arrived if it is a 2xx."""
    headers = {"Retry-After": retry_after, "Location": location}
    given = {name: value for name, value in headers.items() if value is not None}
    return HubFault(status=status, takes=200 <= status < 300, headers=given)


def slow(seconds: float) -> HubFault:
    """Takes the event at once, and answers late."""
    return HubFault(delay=seconds)


def lost() -> HubFault:
    """Takes the event; the connection ends before the answer."""
    return HubFault(answer="none")


def hung_up() -> HubFault:
    """The connection ends, and the event is not taken."""
    return HubFault(takes=False, answer="none")


def cut() -> HubFault:
    """Takes the event; the connection ends in the middle of the answer's head."""
    return HubFault(answer="middle")


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """One event that the hub took; the same one may arrive again."""

    event: dict[str, Any]
    headers: dict[str, str]


class FakeHub:
    """The hub. `faults` are used up one a request, then `rule` decides, then all is well. A context manager."""

    def __init__(self, *, path: str = "/progress", token: str | None = None, port: int = 0) -> None:
        self.path = path
        self.token = token
        self.port = port
        self.faults: deque[HubFault] = deque()
        self.rule: Callable[[dict[str, Any]], HubFault | None] | None = None
        self.requests = 0
        """Everything that was asked, taken or not."""
        self._arrivals: list[ReceivedEvent] = []
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address to configure: without the path, which the sender adds."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def arrivals(self) -> list[ReceivedEvent]:
        """What was taken, in order, repetitions included."""
        with self._lock:
            return list(self._arrivals)

    @property
    def events(self) -> list[dict[str, Any]]:
        """What was taken, each event once, in the order of first arrivals."""
        unique: dict[str, dict[str, Any]] = {}
        for arrival in self.arrivals:
            unique.setdefault(str(arrival.event.get("event_id", id(arrival))), arrival.event)
        return list(unique.values())

    def start(self) -> FakeHub:
        """Listen; after `stop` again at the same port."""
        self._ending.clear()
        server = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = server.server_address[1]
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Go down: connections are refused, requests on their way get no answer. What arrived is kept."""
        self._ending.set()
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None

    def __enter__(self) -> FakeHub:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def treat(self, event: dict[str, Any], headers: dict[str, str]) -> HubFault:
        """Decide on a request, and keep the event if it is taken."""
        with self._lock:
            self.requests += 1
            fault = self.faults.popleft() if self.faults else (self.rule and self.rule(event)) or FINE
            if fault.takes:
                self._arrivals.append(ReceivedEvent(event, headers))
            return fault

    def pause(self, seconds: float) -> bool:
        """Wait; whether the hub still stands."""
        return not self._ending.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(min(length, _LIMIT))
            if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self._reply(answer(401))
            if self.path != hub.path:
                return self._reply(answer(404))
            try:
                event = json.loads(body)
            except ValueError:
                return self._reply(answer(400))
            fault = hub.treat(event, dict(self.headers.items()))
            if not hub.pause(fault.delay):
                return self._hang_up()
            return self._reply(fault)

        def _reply(self, fault: HubFault) -> None:
            content = b'{"ok": true}'
            lines = [f"HTTP/1.1 {fault.status} Answer", f"Content-Length: {len(content)}"]
            lines += [f"{name}: {value}" for name, value in fault.headers.items()]
            whole = "\r\n".join(lines).encode() + b"\r\n\r\n" + content
            if fault.answer == "trickle":
                for number in range(len(whole)):
                    self.wfile.write(whole[number : number + 1])
                    if not hub.pause(0.02):
                        return self._hang_up()
                return None
            ends = {"whole": len(whole), "body": len(whole) - 4, "middle": 20, "none": 0}
            self.wfile.write(whole[: ends[fault.answer]])
            if fault.answer != "whole":
                self._hang_up()
            return None

        def _hang_up(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            """Nothing on stderr."""

    return Handler


def _main() -> None:
    with FakeHub() as hub:
        print(hub.url, flush=True)  # noqa: T201 - this is its output
        told = 0
        while hub.pause(0.1):
            for arrival in hub.arrivals[told:]:
                print(json.dumps(arrival.event), flush=True)  # noqa: T201
                told += 1


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        _main()
