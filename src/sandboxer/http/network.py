"""Connect to an API: resolve its name, dial it or its proxy, open the tunnel, start TLS."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from sandboxer.errors import NotConfigured, Timeout, Unavailable
from sandboxer.http.address import BaseURL, Destination, Proxy
from sandboxer.http.connection import TICK, ConnectionCut, DeadlineSocket, HTTPConnection, NotHTTP
from sandboxer.timing import Deadline

if TYPE_CHECKING:
    import ssl

CONNECT_SECONDS: Final = 5.0
"""The time limit of resolving a name, and again of connecting to it; a reachable host needs a fraction of one."""
_HINT: Final = "check the address and the network, then try again"


def connect(destination: Destination, deadline: Deadline) -> HTTPConnection:
    """Open a connection, by the proxy if there is one. Raises Unavailable or Timeout: nothing was sent."""
    base, proxy = destination
    host, port = (proxy.host, proxy.port) if proxy else (base.host, base.port)
    connected = DeadlineSocket(_connect_tcp(host, port, shown=base.authority, deadline=deadline), deadline)
    try:
        if base.scheme == "https":
            if proxy is not None:
                _open_tunnel(connected, base, proxy, deadline)
            _start_tls_context(connected, base, deadline)
    except BaseException:
        connected.close()
        raise
    return HTTPConnection(connected)


def _connect_tcp(host: str, port: int, *, shown: str, deadline: Deadline) -> socket.socket:
    deadline.check(f"connecting to {shown}")
    end = deadline.shorter(CONNECT_SECONDS)
    reason = "it has no address"
    for place in _resolve(host, port, shown=shown, deadline=end):
        try:
            return _dial(place, end)
        except OSError as error:
            reason = error.strerror or "no answer in time"
    deadline.check(f"connecting to {shown}")
    raise Unavailable(f"{shown} cannot be reached: {reason}", hint=_HINT, outcome="failed")


def _dial(place: SocketAddress, deadline: Deadline) -> socket.socket:
    """Connect a socket. Raises OSError, at the deadline without a `strerror`."""
    family, kind, protocol, address = place
    tried = socket.socket(family, kind, protocol)
    try:
        tried.setblocking(False)
        failure = tried.connect_ex(address)
        if failure == errno.EINPROGRESS:
            waiting = select.poll()
            waiting.register(tried, select.POLLOUT)
            while not waiting.poll(deadline.seconds(TICK) * 1000):
                if deadline.passed:
                    raise TimeoutError
            failure = tried.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            raise OSError(failure, os.strerror(failure))
        tried.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        tried.close()
        raise
    return tried


SocketAddress = tuple[int, int, int, Any]


def _resolve(host: str, port: int, *, shown: str, deadline: Deadline) -> list[SocketAddress]:
    """Resolve a name in a thread that can be left behind: the system's resolver knows no deadline."""
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


def _start_tls_context(connected: DeadlineSocket, base: BaseURL, deadline: Deadline) -> None:
    import ssl

    context = _tls_context(base.ca_file)
    connected.deadline = deadline.shorter(CONNECT_SECONDS)
    try:
        connected.secure(context, base.host)
    except ssl.SSLCertVerificationError as error:
        raise Unavailable(
            f"{base.authority} does not prove that it is {base.host}: {error.verify_message}",
            hint="check the address; for a private authority set SSL_CERT_FILE",
            outcome="failed",
            retryable=False,
        ) from None
    except (OSError, Timeout) as error:
        deadline.check(f"connecting to {base.authority}")
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "no answer in time"
        raise Unavailable(
            f"{base.authority} cannot be reached by TLS: {reason}", hint=_HINT, outcome="failed"
        ) from None
    connected.deadline = deadline


_contexts: dict[str | None, ssl.SSLContext] = {}


def _tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Load the TLS context, once for the process and each `ca_file`: reading the authorities takes 20 ms. They are that
    file's, else the system's, else those of certifi. Raises NotConfigured for a file that cannot be used."""
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


def _open_tunnel(connected: DeadlineSocket, base: BaseURL, proxy: Proxy, deadline: Deadline) -> None:
    headers = {"Host": base.endpoint}
    if proxy.authorization:
        headers["Proxy-Authorization"] = proxy.authorization
    connected.deadline = deadline.shorter(CONNECT_SECONDS)
    tunnel = HTTPConnection(connected)
    status = 0
    try:
        tunnel.send("CONNECT", base.endpoint, headers, None)
        status, _ = tunnel.receive_head()
    except (OSError, Timeout, ConnectionCut, NotHTTP):
        deadline.check(f"connecting to {base.authority}")
    if not 200 <= status < 300:
        raise Unavailable(
            f"{base.authority} cannot be reached: the proxy {proxy.host}:{proxy.port} does not lead there",
            hint="look at HTTPS_PROXY, or except the address with NO_PROXY",
            outcome="failed",
        )
    connected.deadline = deadline
    connected.sent = False  # what was sent was for the proxy
