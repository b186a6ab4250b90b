"""A small HTTP/1.1 server on loopback for fakes of other people's APIs: routes, streams, faults, and a record of what
was asked.

    class FakeThing(FakeServer):
        def __init__(self, **more):
            super().__init__(**more)
            self.route("GET", r"/things/(?P<id>[^/]+)", self._get)

        def _get(self, request: Request) -> Reply:
            return Reply(json={"id": request.groups["id"]})

One thread a connection; parsed by hand, because the standard library's server takes several times as long for a
request, and a fake that is slower than its client measures itself.
"""

from __future__ import annotations

import io
import re
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Protocol, Self
from urllib.parse import parse_qs, unquote

import msgspec

from tests.fakes.faults import Fault, Script

_MAX_BODY: Final = 512 * 1024 * 1024
_KEPT: Final = 20_000
_TRICKLE_SECONDS: Final = 0.05
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


@dataclass(kw_only=True)
class Request:
    """One request. `path` is without query and unquoted; `headers` have lower-case names; `groups` are those of the
    route's pattern. `stale`: a listing shows what was before the last change."""

    method: str
    path: str
    query_text: str
    headers: Mapping[str, str]
    body: bytes = b""
    groups: Mapping[str, str] = field(default_factory=dict)
    stale: bool = False
    _connection: socket.socket | None = None
    _incoming: Iterator[bytes] | None = None

    @cached_property
    def query(self) -> Mapping[str, list[str]]:
        """The parameters, decoded once; empty ones too."""
        return parse_qs(self.query_text, keep_blank_values=True)

    def param(self, name: str, default: str | None = None) -> str | None:
        """The first value of a parameter."""
        values = self.query.get(name)
        return values[0] if values else default

    def json(self) -> Any:
        """The body as JSON; a body that is not raises Refused with 400."""
        try:
            return msgspec.json.decode(self.body) if self.body else {}
        except msgspec.DecodeError as error:
            raise ErrorReply(Reply(status=400, json={"code": 400, "message": f"not JSON: {error}"})) from None

    def incoming(self) -> Iterator[bytes]:
        """The body as it comes, for a route that is `lazy`."""
        return self._incoming or iter(())

    @property
    def gone(self) -> bool:
        """Whether the client has ended the connection: for handlers that wait, and for streams."""
        if self._connection is None:
            return True
        poller = select.poll()
        poller.register(self._connection, select.POLLIN | select.POLLRDHUP)
        return any(event & (select.POLLRDHUP | select.POLLHUP | select.POLLERR) for _, event in poller.poll(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer: `json` (anything but None), or `body`, or a `stream` that is sent in chunks as it comes, and closed
    when the client goes away."""

    status: int = 200
    json: Any = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Iterator[bytes] | None = None


class ErrorReply(Exception):
    """Raised by a handler: answer so."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest:
    """One request as it is kept: to be held against a specification. `status` is what was answered (0: nothing)."""

    method: str
    path: str
    query_text: str
    headers: Mapping[str, str]
    body: bytes
    status: int
    at: float


Handler = Callable[[Request], Reply]


class RequestReader(Protocol):
    """What a request is read from."""

    def readline(self, size: int, /) -> bytes:
        """To the end of the line."""

    def read(self, size: int, /) -> bytes:
        """That many bytes, unless the connection ends before."""


Route = tuple[str, re.Pattern[str], Handler, bool]


class FakeServer:
    """The server. A context manager; `start` and `stop` by hand. `latency` is added to every answer, in seconds.

    `script` holds the faults to come; `requests` the latest 20,000 that were asked. Handlers are called by many threads
    at once: what they share needs a lock of theirs."""

    def __init__(self, *, port: int = 0, latency: float = 0.0) -> None:
        self.port = port
        self.latency = latency
        self.script = Script()
        self.requests: deque[RecordedRequest] = deque(maxlen=_KEPT)
        self.accepted = 0
        """How many connections there were."""
        self._exact: dict[tuple[str, str], tuple[Handler, bool]] = {}
        self._routes: list[Route] = []
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._ending = threading.Event()

    @property
    def url(self) -> str:
        """Its address, without a last slash."""
        return f"http://127.0.0.1:{self.port}"

    def route(self, method: str, pattern: str, handler: Handler, *, lazy: bool = False) -> None:
        """Answer requests whose whole unquoted path matches the regular expression; method `*` is any. Plain paths are
        looked at first, then the patterns in the order in which they were added. `lazy` routes read the body
        themselves, by `request.incoming()`."""
        if re.search(r"[\\^$|?*+()\[\]{}]", pattern) is None:
            self._exact.setdefault((method, pattern), (handler, lazy))
        self._routes.append((method, re.compile(pattern), handler, lazy))

    def fallback(self, request: Request) -> Reply:
        """What a path without a route is answered; for subclasses."""
        return Reply(status=404, json={"code": 404, "message": f"no such path: {request.method} {request.path}"})

    def failed(self, request: Request, error: Exception) -> Reply:
        """What a bug of a handler is answered; for subclasses."""
        return Reply(status=500, json={"code": 500, "message": f"{type(error).__name__}: {error}"})

    def asked(self, match: str = "* .*") -> list[RecordedRequest]:
        """The kept requests that match, written like a fault's `match`."""
        fault = Fault(match=match, kind="drop")
        return [request for request in list(self.requests) if fault.hits(request.method, request.path)]

    def start(self) -> Self:
        """Listen; after `stop` again at the same port."""
        listener = socket.create_server(("127.0.0.1", self.port), backlog=512, reuse_port=False)
        self.port = listener.getsockname()[1]
        self._ending.clear()
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name="fake-accept", daemon=True).start()
        return self

    def stop(self) -> None:
        """Go down: connections end, further ones are refused. What is known stays."""
        self._ending.set()
        if self._listener is None:
            return
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._listener = None
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            _hang_up(connection)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def pause(self, seconds: float) -> bool:
        """Wait; whether the fake still stands."""
        if seconds <= 0:
            return True
        return not self._ending.wait(seconds)

    def _accept(self, listener: socket.socket) -> None:
        while not self._ending.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.accepted += 1
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="fake-connection", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, io.BufferedReader(socket.SocketIO(connection, "r"), 65536) as reader:
                while self._one(connection, reader):
                    pass
        except (OSError, ValueError):
            return  # the client went away, or does not speak HTTP
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _one(self, connection: socket.socket, reader: RequestReader) -> bool:
        """Serve one request; whether another may follow."""
        head = _head(reader)
        if head is None:
            return False
        method, target, headers = head
        path, _, query = target.partition("?")
        if "://" in path:
            path = "/" + path.split("/", 3)[-1]
        request = Request(method=method, path=unquote(path), query_text=query, headers=headers, _connection=connection)
        if headers.get("expect", "").lower() == "100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        handler, lazy = self._handler(request)
        body = _body(reader, headers)
        if lazy:
            request._incoming = body
        else:
            request.body = b"".join(body)
        goes_on = self._answer(connection, request, handler) and headers.get("connection", "").lower() != "close"
        for _ in body if goes_on else ():
            pass  # what a lazy handler did not read stands before the next request
        return goes_on

    def _handler(self, request: Request) -> tuple[Handler, bool]:
        exact = self._exact.get((request.method, request.path))
        if exact is not None:
            return exact
        for method, pattern, handler, lazy in self._routes:
            if method in (request.method, "*") and (match := pattern.fullmatch(request.path)):
                request.groups = match.groupdict()
                return handler, lazy
        return self.fallback, False

    def _answer(self, connection: socket.socket, request: Request, handler: Handler) -> bool:
        fault = self.script.take(request.method, request.path)
        kind = fault.kind if fault is not None else None
        waits = self.latency + (fault.seconds if fault is not None and kind == "slow" else 0.0)
        if not self.pause(waits):
            return False
        if fault is not None and kind == "drop":
            self._keep(request, 0)
            return _hang_up(connection)
        if fault is not None and kind == "hang":
            self._keep(request, 0)
            while not request.gone and self.pause(0.02):
                pass
            return _hang_up(connection)
        if fault is not None and kind == "status":
            body = fault.body if isinstance(fault.body, bytes) else msgspec.json.encode(fault.body)
            reply = Reply(status=fault.status, body=body, headers=fault.headers)
        else:
            request.stale = kind == "stale-list"
            reply = self._reply(request, handler)
        self._keep(request, 0 if kind == "lost-answer" else reply.status)
        if kind == "lost-answer":
            if reply.stream is not None:
                _close(reply.stream)
            return _hang_up(connection)
        if reply.stream is not None:
            return self._send_stream(connection, request, reply, truncated=kind == "truncate")
        data, length = _whole(request, reply)
        if kind == "truncate":
            connection.sendall(data[: len(data) - (length + 1) // 2])
            return _hang_up(connection)
        if kind == "trickle":
            for number in range(len(data)):
                connection.sendall(data[number : number + 1])
                if not self.pause(_TRICKLE_SECONDS):
                    return _hang_up(connection)
            return True
        connection.sendall(data)
        return True

    def _reply(self, request: Request, handler: Handler) -> Reply:
        try:
            return handler(request)
        except ErrorReply as refused:
            return refused.reply
        except Exception as error:  # noqa: BLE001 - a fake goes on, and says what is wrong with it
            return self.failed(request, error)

    def _keep(self, request: Request, status: int) -> None:
        self.requests.append(
            RecordedRequest(
                method=request.method,
                path=request.path,
                query_text=request.query_text,
                headers=request.headers,
                body=request.body,
                status=status,
                at=time.time(),
            )
        )

    def _send_stream(self, connection: socket.socket, request: Request, reply: Reply, *, truncated: bool) -> bool:
        stream = reply.stream or iter(())
        try:
            connection.sendall(_start(reply, [b"transfer-encoding: chunked"]))
            for chunk in stream:
                if chunk:
                    connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                if truncated or self._ending.is_set():
                    return _hang_up(connection)
            connection.sendall(b"0\r\n\r\n")
        finally:
            _close(stream)
        return True


def _close(stream: Iterable[bytes]) -> None:
    close = getattr(stream, "close", None)
    if close is not None:
        with closing(stream):  # type: ignore[type-var]
            pass


def _hang_up(connection: socket.socket) -> bool:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    return False


def _head(reader: RequestReader) -> tuple[str, str, dict[str, str]] | None:
    line = reader.readline(65536)
    while line in (b"\r\n", b"\n"):
        line = reader.readline(65536)
    words = line.decode("latin-1").split()
    if len(words) != 3:
        return None
    headers: dict[str, str] = {}
    while (line := reader.readline(65536)) not in (b"\r\n", b"\n"):
        if not line:
            return None
        name, _, value = line.decode("latin-1").partition(":")
        name = name.lower()
        value = value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return words[0], words[1], headers


def _body(reader: RequestReader, headers: Mapping[str, str]) -> Iterator[bytes]:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        while size := int(reader.readline(1024).split(b";")[0], 16):
            yield _exactly(reader, size)
            reader.readline(1024)
        while reader.readline(65536) not in (b"\r\n", b"\n", b""):
            pass
        return
    left = int(headers.get("content-length") or 0)
    if left > _MAX_BODY:
        raise ValueError(left)
    if left:
        yield _exactly(reader, left)


def _exactly(reader: RequestReader, size: int) -> bytes:
    data = reader.read(size)
    if len(data) != size:
        raise ConnectionResetError
    return data


def _start(reply: Reply, more: list[bytes]) -> bytes:
    phrase = _PHRASES.get(reply.status, "Answer")
    lines = [f"HTTP/1.1 {reply.status} {phrase}".encode(), *more]
    lines += [f"{name}: {value}".encode("latin-1") for name, value in reply.headers.items()]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _whole(request: Request, reply: Reply) -> tuple[bytes, int]:
    """The answer in bytes, and how many of them are its body."""
    body = reply.body if reply.json is None else msgspec.json.encode(reply.json)
    more = [b"content-type: application/json"] if reply.json is not None else []
    if reply.status == 204:
        body = b""
    else:
        more.append(b"content-length: %d" % len(body))
    if request.method == "HEAD":
        body = b""
    return _start(reply, more) + body, len(body)
