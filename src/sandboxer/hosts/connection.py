"""One authenticated connection to an SSH server: TCP or a proxy, key exchange, host key, login, each in its time."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import paramiko

from sandboxer.errors import BackendError, SandboxerError, Timeout, Unavailable
from sandboxer.hosts import sessions
from sandboxer.hosts.authentication import authenticate
from sandboxer.hosts.host_keys import accepted_algorithms, no_common_key, read_known, refused_pin, verify
from sandboxer.hosts.spawn import spawn
from sandboxer.hosts.ssh_config import Endpoint
from sandboxer.hosts.ssh_errors import translated
from sandboxer.timing import Deadline

CONNECT_SECONDS: Final = 30.0
"""The longest that one connection may take to come about, whatever the deadline."""
CHANNELS: Final = 8
"""Commands at a time on one connection. sshd allows ten sessions (MaxSessions); two are kept for ending others."""
KEEPALIVE_SECONDS: Final = 15.0
DEAD_SECONDS: Final = 30.0
"""A server that leaves a keep-alive unanswered for so long is gone."""

# paramiko writes its own tracebacks to the log; without a handler, Python would print them on stderr
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class _Transport(paramiko.Transport):
    """A transport that keeps the host key's very bytes, and offers exactly the algorithms it is told to."""

    def __init__(self, sock: Any, host_key_algorithms: tuple[str, ...]) -> None:
        self.raw_host_key: bytes | None = None
        self.host_key_algorithms = host_key_algorithms
        super().__init__(sock, disabled_algorithms={"macs": ["hmac-md5", "hmac-md5-96", "hmac-sha1-96"]})
        options = self.get_security_options()
        # authenticated modes first: one pass in C instead of cipher and MAC apart
        options.ciphers = (
            "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr",
        )  # fmt: skip

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        # paramiko adds certificate types on its own, which no plain known_hosts line could check
        return self.host_key_algorithms

    def _verify_key(self, host_key: bytes, sig: bytes) -> None:
        super()._verify_key(host_key, sig)  # type: ignore[misc]
        if self.raw_host_key is not None and self.raw_host_key != host_key:
            raise paramiko.SSHException("the host key changed while connected")
        self.raw_host_key = host_key


class Connection:
    """A logged-in transport. `slots` counts the commands that may still be started on it."""

    def __init__(
        self, endpoint: Endpoint, transport: _Transport, *, fingerprint: str, release: Callable[[], None]
    ) -> None:
        self.endpoint, self.transport, self.fingerprint = endpoint, transport, fingerprint
        self.slots = threading.BoundedSemaphore(CHANNELS)
        self._release = release
        self._closing = threading.Event()
        threading.Thread(target=self._keep_alive, name="sandboxer-keepalive", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it can be used."""
        return bool(self.transport.is_active()) and not self._closing.is_set()

    def open_session(self, deadline: Deadline) -> paramiko.Channel:
        """A channel for one command."""
        return open_channel(
            self.endpoint, self.transport, deadline, kind="session", doing="opening a session", destination=None
        )

    def close(self) -> None:
        """End it, and whatever it went through."""
        if self._closing.is_set():
            return
        self._closing.set()
        self.transport.close()
        self._release()

    def _keep_alive(self) -> None:
        while not self._closing.wait(KEEPALIVE_SECONDS):
            asking = threading.Thread(target=self._ask, name="sandboxer-keepalive-ask", daemon=True)
            asking.start()
            asking.join(DEAD_SECONDS)
            if asking.is_alive() or not self.transport.is_active():
                self.close()

    def _ask(self) -> None:
        try:
            self.transport.global_request("keepalive@openssh.com", wait=True)
        except (OSError, EOFError, paramiko.SSHException):
            self.transport.close()


def connect(endpoint: Endpoint, deadline: Deadline) -> Connection:
    """Connect and log in, by way of the endpoint's jumps; raises Unavailable, Denied or Timeout."""
    allowed = endpoint.connect_timeout or CONNECT_SECONDS
    limit = deadline.shorter(allowed)
    try:
        return _connect(endpoint, limit)
    except (SandboxerError, OSError) as error:
        if isinstance(error, Timeout | Unavailable) and limit.passed:
            raise Unavailable(
                f"{endpoint.where} did not answer in time: {error.message}",
                hint="is the host up, and is it the right address? A firewall that drops packets looks like this",
            ) from error
        raise


def _connect(endpoint: Endpoint, limit: Deadline) -> Connection:
    closers: list[Callable[[], object]] = []

    def release() -> None:
        while closers:
            closers.pop()()

    try:
        previous: _Transport | None = None
        for hop in endpoint.jumps:
            previous, _ = _login(hop, previous, limit, closers)
        transport, fingerprint = _login(endpoint, previous, limit, closers)
        return Connection(endpoint, transport, fingerprint=fingerprint, release=release)
    except BaseException:
        release()
        raise


def _login(
    endpoint: Endpoint, through: _Transport | None, limit: Deadline, closers: list[Callable[[], object]]
) -> tuple[_Transport, str]:
    """Key exchange, host key, authentication. A pinned key may need several tries, one for each kind of key that the
    host has: the kind cannot be seen from a fingerprint."""
    known = read_known(endpoint)
    refused: list[bytes] = []
    while algorithms := accepted_algorithms(endpoint, known, refused=refused):
        sock = _reach(endpoint, through, limit, closers)
        transport = _Transport(sock, algorithms)
        closers.append(transport.close)
        try:
            key = _exchange(endpoint, transport, limit)
        except paramiko.IncompatiblePeer as error:
            if "host key" not in str(error):
                raise
            if endpoint.host_key is not None:
                break
            raise no_common_key(endpoint) from error
        if endpoint.host_key is not None and key not in known.revoked:
            from sandboxer.hosts.known_hosts import fingerprint

            if fingerprint(key) != endpoint.host_key:
                refused.append(key)
                transport.close()
                continue
        found = verify(endpoint, known, key)
        with translated(endpoint, "logging in"):
            authenticate(transport, endpoint, limit)
        return transport, found
    raise refused_pin(endpoint, refused)


def _exchange(endpoint: Endpoint, transport: _Transport, limit: Deadline) -> bytes:
    left = limit.seconds(CONNECT_SECONDS)
    transport.banner_timeout = transport.handshake_timeout = left
    transport.clear_to_send_timeout = 5.0
    transport.packetizer.REKEY_BYTES = 2**30  # type: ignore[attr-defined]
    try:
        transport.start_client(timeout=left)
    except paramiko.IncompatiblePeer:
        transport.close()
        raise
    except (OSError, EOFError, paramiko.SSHException) as error:
        transport.close()
        with translated(endpoint, "exchanging keys"):
            raise error
    key = transport.raw_host_key
    if key is None or not transport.initial_kex_done:
        transport.close()
        raise Unavailable(f"{endpoint.where} did not finish the key exchange", hint="is an SSH server listening there?")
    return key


def _reach(endpoint: Endpoint, through: _Transport | None, limit: Deadline, closers: list[Callable[[], object]]) -> Any:
    """Something that bytes can be sent to the server by: a socket, or a channel of the hop before."""
    if through is not None:
        return open_channel(
            endpoint,
            through,
            limit,
            kind="direct-tcpip",
            doing="being reached through the jump host",
            destination=(endpoint.host, endpoint.port),
        )
    with translated(endpoint, "connecting"):
        if endpoint.proxy_command is not None:
            sock, end = _proxy(endpoint.proxy_command)
            closers.append(end)
            return sock
        return _dial(endpoint, limit)


def _dial(endpoint: Endpoint, limit: Deadline) -> socket.socket:
    addresses = _resolve(endpoint, limit)
    failure: OSError = OSError("the name has no addresses")
    for position, (family, kind, protocol, _, address) in enumerate(addresses):
        limit.check(f"connecting to {endpoint.where}")
        share = limit.seconds(CONNECT_SECONDS) / (len(addresses) - position)
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max(0.1, share))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            failure = error
            sock.close()
        else:
            return sock
    raise failure


def _resolve(endpoint: Endpoint, limit: Deadline) -> list[Any]:
    """Addresses of the host. In a thread, because a resolver's own time-outs know nothing of ours."""
    found: list[Any] = []
    failed: list[OSError] = []

    def ask() -> None:
        try:
            found.extend(socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM))
        except OSError as error:
            failed.append(error)
        except UnicodeError:  # a label that is empty or too long for IDNA
            failed.append(socket.gaierror(socket.EAI_NONAME, "it is not a possible name"))

    thread = threading.Thread(target=ask, name="sandboxer-resolve", daemon=True)
    thread.start()
    thread.join(limit.seconds(CONNECT_SECONDS))
    if failed:
        raise failed[0]
    if thread.is_alive():
        raise TimeoutError("no answer from the name servers")
    return found


def _proxy(command: str) -> tuple[socket.socket, Callable[[], None]]:
    """A ProxyCommand of ssh_config, talking on a socket pair; and how to end it."""
    ours, theirs = socket.socketpair()
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        pid = spawn(
            ["/bin/sh", "-c", f"exec {command}"],
            env=os.environ,
            fds={0: theirs.fileno(), 1: theirs.fileno(), 2: nowhere},
        )
    finally:
        os.close(nowhere)
        theirs.close()

    def end() -> None:
        ours.close()
        try:
            sessions.end_session(pid, Deadline(5))
            os.waitpid(pid, 0)
        except (BackendError, ChildProcessError):
            return  # it cannot be ended: it has lost its other side, and that has to do

    return ours, end


def open_channel(
    endpoint: Endpoint,
    transport: paramiko.Transport,
    deadline: Deadline,
    *,
    kind: str,
    doing: str,
    destination: tuple[str, int] | None,
) -> paramiko.Channel:
    """A channel of the transport, in time."""
    left = deadline.seconds(CONNECT_SECONDS)
    started = time.monotonic()
    try:
        source = ("127.0.0.1", 0) if destination is not None else None
        return transport.open_channel(kind, dest_addr=destination, src_addr=source, timeout=max(left, 0.1))
    except (OSError, EOFError, paramiko.SSHException) as error:
        if time.monotonic() - started >= left:
            raise Timeout(
                f"{endpoint.where} did not answer in time while {doing}", hint="is the network between us all right?"
            ) from error
        with translated(endpoint, doing):
            raise error
