"""Speak HTTP/1.1 over one connection: h11 parses and writes, a socket with a deadline carries the bytes."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, BinaryIO, Final

import h11

from sandboxer.timing import Deadline

if TYPE_CHECKING:
    import ssl

Content = bytes | BinaryIO | Iterable[bytes]

TICK: Final = 0.5
"""Seconds between looks at a deadline, which another thread may cancel."""
CHUNK: Final = 64 * 1024
"""Bytes that are read or sent at a time; a body up to this size travels with its head, or the server would be woken up
for each."""
MAX_HEAD: Final = 64 * 1024
MAX_HEADERS: Final = 100
_PROTOCOL: Final = b"HTTP/"


class ConnectionCut(Exception):
    """The server ended the connection before the end of its response."""


class NotHTTP(Exception):
    """The server does not speak HTTP."""


class DeadlineSocket:
    """A connected socket whose every wait ends with `deadline`, also when the server sends a byte now and then."""

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        self._socket = connected
        self.deadline = deadline
        self.sent = False
        """Whether a byte of the present request may have been handed to the system."""
        self.ended = False
        """Whether the server has closed its side."""

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all. Raises Timeout at the deadline."""
        left = memoryview(data)
        while left:
            self._wait_at_most()
            self.sent = True
            try:
                left = left[self._socket.send(left) :]
            except TimeoutError:
                continue

    def receive(self) -> bytes:
        """Receive some bytes; none are the end. Raises Timeout at the deadline."""
        while True:
            self._wait_at_most()
            try:
                data = self._socket.recv(CHUNK)
            except TimeoutError:
                continue
            self.ended = not data
            return data

    @property
    def quiet(self) -> bool:
        """Whether nothing was received since, not even the end: only then can it serve another request."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except BlockingIOError:
            return True
        except OSError as error:
            return _tls_wants_read(error)
        return False

    def secure(self, context: ssl.SSLContext, server_hostname: str) -> None:
        """Start TLS. Raises OSError; Timeout at the deadline."""
        self._wait_at_most()
        secured = context.wrap_socket(self._socket, server_hostname=server_hostname, do_handshake_on_connect=False)
        self._socket = secured
        while True:
            self._wait_at_most()
            try:
                return secured.do_handshake()
            except TimeoutError:
                continue

    def close(self) -> None:
        """Close the connection now."""
        self._socket.close()

    def _wait_at_most(self) -> None:
        self.deadline.check("waiting for an answer")
        self._socket.settimeout(self.deadline.seconds(TICK) or 0.001)


class HTTPConnection:
    """A connection that serves one request after the other, each with a deadline of its own.

    Its methods raise Timeout at the deadline, ConnectionCut or OSError when the connection breaks, NotHTTP for what is
    no answer; then it can only be closed."""

    def __init__(self, connected: DeadlineSocket) -> None:
        self._socket = connected
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._broken: OSError | None = None
        self._with_body = False
        self._refused = False

    @property
    def sent(self) -> bool:
        """Whether a byte of the present request may have arrived."""
        return self._socket.sent

    def send(self, method: str, target: str, headers: Mapping[str, str], body: Content | None) -> None:
        """Send a request. A body whose length is not known travels in chunks.

        A connection that breaks meanwhile is told by `receive_head`: who refuses a body may answer, and read no more
        of it."""
        self._with_body = body is not None
        fields = [(name.encode(), value.strip(" \t").encode("latin-1")) for name, value in headers.items()]
        if isinstance(body, bytes):
            fields.append((b"Content-Length", b"%d" % len(body)))
        elif body is not None:
            fields.append((b"Transfer-Encoding", b"chunked"))
        elif method in ("POST", "PUT", "PATCH"):
            fields.append((b"Content-Length", b"0"))
        head = self._http.send(h11.Request(method=method, target=target, headers=fields)) or b""
        for part in _parts(body):
            pieces = [head, *(self._http.send_with_data_passthrough(h11.Data(data=part)) or [])]
            for piece in [b"".join(pieces)] if len(part) <= CHUNK else pieces:
                self._write(piece)
            head = b""
            if self._broken is not None:
                return
        self._write(head + (self._http.send(h11.EndOfMessage()) or b""))

    def receive_head(self) -> tuple[int, dict[str, str]]:
        """Receive the status and headers of a response (lower-case names)."""
        begun = b""
        while not isinstance(event := self._next_event(), h11.Response):
            if event is h11.NEED_DATA:
                data = self._receive()
                if self._broken is not None and not data:
                    raise self._broken
                # what speaks another protocol may wait for us for ever, and never end a line
                begun += data[: len(_PROTOCOL) - len(begun)]
                if not _PROTOCOL.startswith(begun):
                    raise NotHTTP
            elif not isinstance(event, h11.InformationalResponse):
                raise NotHTTP
        if len(event.headers) > MAX_HEADERS:
            raise NotHTTP
        self._refused = event.status_code >= (400 if self._with_body else 500)
        return event.status_code, {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}

    def receive_body(self) -> bytes:
        """Receive the next bytes of the body; none are its end."""
        while True:
            event = self._next_event()
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if event is not h11.NEED_DATA:
                return b""
            self._receive()

    @property
    def reusable(self) -> bool:
        """Whether another request may follow: the response was read to its end, and the server has no reason to end
        the connection behind it.

        A server whose application failed closes after its whole answer, without saying so (uvicorn does, once it has
        written its log), and so does one that did not read a body that it refuses: the next request would be reset, and
        nobody could tell whether it was carried out."""
        if self._refused or self._broken is not None:
            return False
        return (self._http.our_state, self._http.their_state, *self._http.trailing_data) == (
            h11.DONE,
            h11.DONE,
            b"",
            False,
        )

    @property
    def quiet(self) -> bool:
        """Whether an idle connection is still good."""
        return self._socket.quiet

    def begin(self, deadline: Deadline) -> None:
        """Start the next request on a reusable connection."""
        self._socket.deadline = deadline
        self._socket.sent = False
        self._http.start_next_cycle()

    def close(self) -> None:
        """Close the connection now."""
        self._socket.close()

    def _write(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            self._broken = error

    def _receive(self) -> bytes:
        data = self._socket.receive()
        self._http.receive_data(data)
        return data

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError:
            # its text may quote what was received
            raise (ConnectionCut if self._socket.ended else NotHTTP) from None


def _parts(body: Content | None) -> Iterator[bytes]:
    if body is None:
        return
    if isinstance(body, bytes):
        if body:
            yield body
    elif isinstance(body, Iterable) and not hasattr(body, "read"):
        yield from (part for part in body if part)
    else:
        while part := body.read(CHUNK):
            yield part


def _tls_wants_read(error: OSError) -> bool:
    """Tell whether TLS has no bytes waiting, which it says in an error of its own."""
    import ssl

    return isinstance(error, ssl.SSLWantReadError)
