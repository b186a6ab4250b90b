"""One connection whose every wait ends with a deadline, also when the other side sends a byte now and then.

The standard library's HTTP client is laid over it: a request costs a fraction of what a general client costs, and a
command that makes three of them does not import one for that.
"""

from __future__ import annotations

import io
import re
import socket
import threading
import time
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from typing import TYPE_CHECKING, Any, Final

from sandboxer.errors import NotConfigured, Timeout, Unavailable
from sandboxer.http.address import BaseURL, Proxy, proxy_for
from sandboxer.timing import Deadline

if TYPE_CHECKING:
    import ssl

TICK: Final = 0.5
"""Seconds between looks at a deadline, which another thread may cancel."""
CONNECT_SECONDS: Final = 5.0
"""The end of looking a name up, and again of connecting to it; a reachable host needs a fraction of one."""
_CHUNK_LINE: Final = 1024
_CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,16}")
_TRAILERS: Final = 100
_HINT: Final = "check the address and the network, then try again"


class DeadlineSocket:
    """A connected socket as the HTTP client wants it: sending and receiving end with `deadline`."""

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        self._socket = connected
        self._reader: io.BufferedReader | None = None
        self._ending = False
        self._held: bytearray | None = None
        self.deadline = deadline
        self.sent = False
        """Whether a byte of the present request may have been handed to the system."""
        self.ended = False
        """Whether the other side has said its last byte. The client takes the end of the connection for the end of an
        answer's head."""

    def hold(self) -> None:
        """Keep what is sent until `flush`: the client sends head and body apart, and the other side would be woken up
        for each."""
        self._held = bytearray()

    def flush(self) -> None:
        """Send what was kept."""
        held, self._held = self._held, None
        if held:
            self.sendall(bytes(held))

    def sendall(self, data: bytes) -> None:
        """Send all. Raises Timeout at the deadline."""
        if self._held is not None:
            self._held += data
            return
        left = memoryview(data)
        while left:
            self._wait_at_most()
            self.sent = True
            try:
                left = left[self._socket.send(left) :]
            except TimeoutError:
                continue

    def receive(self, buffer: Any) -> int:
        """Wait for bytes. Raises Timeout at the deadline."""
        while True:
            self._wait_at_most()
            try:
                count = self._socket.recv_into(buffer)
            except TimeoutError:
                continue
            self.ended = count == 0
            return count

    def makefile(self, mode: str) -> io.BufferedReader:
        """What one answer is read from."""
        self._reader = io.BufferedReader(_Reading(self), 65536)
        return self._reader

    def is_quiet(self) -> bool:
        """Whether nothing has come, not even the end: only then can it serve another request."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except BlockingIOError:
            return True
        except OSError as error:
            return _wants_more(error)
        return False

    def close(self) -> None:
        """End the connection once the answer that is being read has been closed. (The client does this when it has
        read the head of an answer that is the last one.)"""
        self._ending = True
        if self._reader is None or self._reader.closed:
            self._socket.close()

    def cut(self) -> None:
        """End the connection now."""
        self._socket.close()

    def finish(self) -> None:
        """The answer has been read and closed."""
        if self._ending:
            self._socket.close()

    def _wait_at_most(self) -> None:
        self.deadline.check("waiting for an answer")
        self._socket.settimeout(self.deadline.seconds(TICK) or 0.001)


class _Reading(io.RawIOBase):
    """The reading side of a wire: the client closes it after each answer, and the connection stays."""

    def __init__(self, wire: DeadlineSocket) -> None:
        super().__init__()
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.receive(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._wire.finish()


class StrictHTTPResponse(HTTPResponse):
    """An answer whose chunks say their size as HTTP has it. The library reads `-1` as well, and then to the end of the
    connection, however much comes."""

    fp: io.BufferedReader

    def _read_next_chunk_size(self) -> int:
        line = self.fp.readline(_CHUNK_LINE + 1)
        size = line.partition(b";")[0].strip(b" \t\r\n")
        if len(line) > _CHUNK_LINE or _CHUNK_SIZE.fullmatch(size) is None:
            raise ValueError("no size of a chunk")
        return int(size, 16)

    def _read_and_discard_trailer(self) -> None:
        for _ in range(_TRAILERS):
            line = self.fp.readline(_CHUNK_LINE + 1)
            if line in (b"\r\n", b"\n", b""):
                return
        raise IncompleteRead(b"")


class DeadlineConnection(HTTPConnection):
    """A connection of the standard library's client over a wire."""

    response_class = StrictHTTPResponse

    def __init__(self, base: BaseURL, wire: DeadlineSocket) -> None:
        super().__init__(base.host, base.port)
        self.wire = wire
        self.sock = wire  # all that the client asks of a socket

    def connect(self) -> None:
        """Never again by itself: a request that meets an ended connection has to be told so."""
        raise ConnectionResetError("the connection has ended")

    @property
    def reusable(self) -> bool:
        """Whether the other side lets another request follow."""
        return self.sock is not None


def connect(base: BaseURL, deadline: Deadline) -> DeadlineConnection:
    """A connection to an address, by its proxy if it has one. Raises Unavailable or Timeout: nothing was sent."""
    proxy = proxy_for(base)
    host, port = (proxy.host, proxy.port) if proxy else (base.host, base.port)
    connected = _connected(host, port, shown=base.authority, deadline=deadline)
    try:
        if proxy is not None and base.scheme == "https":
            _tunnel(connected, base, proxy, deadline)
        if base.scheme == "https":
            connected = _secured(connected, base, deadline)
    except BaseException:
        connected.close()
        raise
    return DeadlineConnection(base, DeadlineSocket(connected, deadline))


def _connected(host: str, port: int, *, shown: str, deadline: Deadline) -> socket.socket:
    deadline.check(f"connecting to {shown}")
    end = deadline.shorter(CONNECT_SECONDS)
    reason = "it has no address"
    for family, kind, protocol, address in _addresses(host, port, shown=shown, deadline=end):
        tried = socket.socket(family, kind, protocol)
        try:
            tried.settimeout(end.seconds(CONNECT_SECONDS) or 0.001)
            tried.connect(address)
            tried.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            tried.close()
            reason = error.strerror or "no answer in time"
        except BaseException:
            tried.close()
            raise
        else:
            return tried
    deadline.check(f"connecting to {shown}")
    raise Unavailable(f"{shown} cannot be reached: {reason}", hint=_HINT, outcome="failed")


SocketAddress = tuple[int, int, int, Any]


def _addresses(host: str, port: int, *, shown: str, deadline: Deadline) -> list[SocketAddress]:
    """Numbers of a name, looked up in a thread that can be left behind: the system's resolver knows no deadline."""
    if host.replace(".", "").isdigit():
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, (host, port))]
    found: list[SocketAddress] = []
    wrong: list[str] = []

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.extend((family, kind, protocol, address) for family, kind, protocol, _, address in answers)
        except (OSError, UnicodeError) as error:
            wrong.append(getattr(error, "strerror", None) or "its name cannot be looked up")

    thread = threading.Thread(target=look_up, name="sandboxer-resolve", daemon=True)
    thread.start()
    until = time.monotonic() + CONNECT_SECONDS
    while thread.is_alive() and not deadline.passed and time.monotonic() < until:
        thread.join(deadline.seconds(TICK))
    if found:
        return list(found)
    reason = (wrong or ["its name is not resolved in time"])[0]
    raise Unavailable(f"{shown} cannot be reached: {reason}", hint=_HINT, outcome="failed")


def _secured(plain: socket.socket, base: BaseURL, deadline: Deadline) -> socket.socket:
    import ssl

    plain.settimeout(deadline.seconds(CONNECT_SECONDS) or 0.001)
    try:
        return _tls(base.ca_file).wrap_socket(plain, server_hostname=base.host)
    except ssl.SSLCertVerificationError as error:
        raise Unavailable(
            f"{base.authority} does not prove that it is {base.host}: {error.verify_message}",
            hint="check the address; for a private authority set SSL_CERT_FILE",
            outcome="failed",
            retryable=False,
        ) from None
    except OSError as error:
        deadline.check(f"connecting to {base.authority}")
        reason = getattr(error, "reason", None) or error.strerror or "no answer in time"
        raise Unavailable(
            f"{base.authority} cannot be reached by TLS: {reason}", hint=_HINT, outcome="failed"
        ) from None


_contexts: dict[str | None, ssl.SSLContext] = {}


def _tls(ca_file: str | None) -> ssl.SSLContext:
    """One for the process and each `ca_file`: reading the authorities takes 20 ms. They are that file's, else the
    system's, else those of certifi. Raises NotConfigured for a file that cannot be used."""
    import ssl

    if (known := _contexts.get(ca_file)) is not None:
        return known
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise NotConfigured(
            f"{ca_file} cannot be used: {error.strerror or 'it holds no certificates'}",
            hint="name a file with the certificates of the authorities (PEM)",
        ) from None
    paths = ssl.get_default_verify_paths()
    if ca_file is None and paths.cafile is None and paths.capath is None:
        import certifi

        context.load_verify_locations(certifi.where())
    _contexts[ca_file] = context
    return context


def _tunnel(connected: socket.socket, base: BaseURL, proxy: Proxy, deadline: Deadline) -> None:
    lines = [f"CONNECT {base.host}:{base.port} HTTP/1.1", f"Host: {base.host}:{base.port}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    wire = DeadlineSocket(connected, deadline.shorter(CONNECT_SECONDS))
    try:
        wire.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = b""
        byte = bytearray(1)
        # a byte at a time: what follows the head belongs to TLS
        while not head.endswith(b"\r\n\r\n") and len(head) < 16384 and wire.receive(byte):
            head += byte
    except (OSError, Timeout):
        deadline.check(f"connecting to {base.authority}")
        head = b""
    if head[9:12] != b"200":
        raise Unavailable(
            f"{base.authority} cannot be reached: the proxy {proxy.host}:{proxy.port} does not lead there",
            hint="look at HTTPS_PROXY, or except the address with NO_PROXY",
            outcome="failed",
        )


def _wants_more(error: OSError) -> bool:
    """TLS without bytes waiting says it in an error of its own."""
    import ssl

    return isinstance(error, ssl.SSLWantReadError)
