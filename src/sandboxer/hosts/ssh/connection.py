"""One authenticated connection to an SSH server: TCP or a proxy, key exchange, host key, login, each in its time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from sandboxer.errors import SandboxerError, Timeout, Unavailable
from sandboxer.hosts.ssh.authentication import authenticate
from sandboxer.hosts.ssh.config import SshEndpoint
from sandboxer.hosts.ssh.dialer import CONNECT_SECONDS, open_channel, reach
from sandboxer.hosts.ssh.errors import SessionRefused, no_sessions, translated
from sandboxer.hosts.ssh.host_keys import accepted_algorithms, no_common_key, read_known, refused_pin, verify
from sandboxer.timing import Deadline

REFUSED_TRIES: Final = 20
"""How often a session is asked for where only one that has just ended can be in its way."""
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


class SshConnection:
    """A logged-in transport, shared by commands that have a session on it. `placed` is how many commands the pool has
    given it to."""

    def __init__(
        self, endpoint: SshEndpoint, transport: _Transport, *, fingerprint: str, release: Callable[[], None]
    ) -> None:
        self.endpoint, self.transport, self.fingerprint = endpoint, transport, fingerprint
        self.placed = 0
        self._lock = threading.Lock()
        self._users = self._sessions = self._opening = 0
        self._had_session = self._retired = False
        self._release = release
        self._closing = threading.Event()
        threading.Thread(target=self._keep_alive, name="sandboxer-keepalive", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether something can still be said on it."""
        return bool(self.transport.is_active()) and not self._closing.is_set()

    @property
    def usable(self) -> bool:
        """Whether new commands should use it."""
        return self.alive and not self._retired

    @property
    def sessions(self) -> int:
        """How many sessions are open on it, as far as we know."""
        return self._sessions

    def hold(self) -> None:
        """Keep it open although it may be retired."""
        with self._lock:
            self._users += 1

    def let_go(self) -> None:
        """The end of `hold`."""
        with self._lock:
            self._users -= 1
            over = self._retired and self._users == 0
        if over:
            self.close()

    def retire(self) -> None:
        """It did not answer in time: no new commands, and an end once nobody holds it. Other commands may still be
        well on it, when it is only slow."""
        with self._lock:
            self._retired = True
            over = self._users == 0
        if over:
            self.close()

    def open_session(self, deadline: Deadline) -> paramiko.Channel:
        """A channel for one command; `left_session` is owed for it. Raises SessionRefused when the server takes no
        more of them on this connection, Denied when it takes none at all."""
        with self._lock:
            self._opening += 1
        try:
            channel = self._open_session(deadline)
            with self._lock:
                self._sessions += 1
                self._had_session = True
            return channel
        finally:
            with self._lock:
                self._opening -= 1

    def left_session(self) -> None:
        """A session's channel was closed."""
        with self._lock:
            self._sessions -= 1

    def _open_session(self, deadline: Deadline) -> paramiko.Channel:
        for _ in range(REFUSED_TRIES):
            try:
                return open_channel(
                    self.endpoint, self.transport, deadline, kind="session", doing="opening a session", destination=None
                )
            except SessionRefused as refused:
                with self._lock:
                    alone = self._sessions + self._opening == 1
                    first = alone and not self._had_session
                if first:
                    raise no_sessions(self.endpoint, refused) from refused
                if not alone:
                    raise
            # the server frees the place of a session a moment after it has told its end
            time.sleep(deadline.seconds(0.05))
            deadline.check(f"opening a session on {self.endpoint.where}")
        raise SessionRefused

    def close(self) -> None:
        """End it, and whatever it went through."""
        if self._closing.is_set():
            return
        self._closing.set()
        try:
            self.transport.close()
        except AttributeError:
            # an interrupt while a channel was opened leaves paramiko one that belongs to no transport yet
            self.transport.sock.close()
        finally:
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


def connect(endpoint: SshEndpoint, deadline: Deadline) -> SshConnection:
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


def _connect(endpoint: SshEndpoint, limit: Deadline) -> SshConnection:
    closers: list[Callable[[], object]] = []

    def release() -> None:
        while closers:
            closers.pop()()

    try:
        previous: _Transport | None = None
        for hop in endpoint.jumps:
            previous, _ = _login(hop, previous, limit, closers)
        transport, fingerprint = _login(endpoint, previous, limit, closers)
        return SshConnection(endpoint, transport, fingerprint=fingerprint, release=release)
    except BaseException:
        release()
        raise


def _login(
    endpoint: SshEndpoint, through: _Transport | None, limit: Deadline, closers: list[Callable[[], object]]
) -> tuple[_Transport, str]:
    """Key exchange, host key, authentication. A pinned key may need several tries, one for each kind of key that the
    host has: the kind cannot be seen from a fingerprint."""
    known = read_known(endpoint)
    refused: list[bytes] = []
    while algorithms := accepted_algorithms(endpoint, known, refused=refused):
        sock = reach(endpoint, through, limit, closers)
        transport = _Transport(sock, algorithms)
        closers.append(transport.close)
        try:
            key = _exchange(endpoint, transport, limit)
        except IncompatiblePeer as error:
            if "host key" not in str(error):
                raise
            if endpoint.host_key is not None:
                break
            raise no_common_key(endpoint) from error
        if endpoint.host_key is not None and key not in known.revoked:
            from sandboxer.hosts.ssh.known_hosts import fingerprint

            if fingerprint(key) != endpoint.host_key:
                refused.append(key)
                transport.close()
                continue
        found = verify(endpoint, known, key)
        with translated(endpoint, "logging in"):
            authenticate(transport, endpoint, limit)
        return transport, found
    raise refused_pin(endpoint, refused)


def _exchange(endpoint: SshEndpoint, transport: _Transport, limit: Deadline) -> bytes:
    left = limit.seconds(CONNECT_SECONDS)
    transport.banner_timeout = transport.handshake_timeout = left
    transport.clear_to_send_timeout = 5.0
    transport.packetizer.REKEY_BYTES = 2**30
    try:
        transport.start_client(timeout=left)
    except IncompatiblePeer:
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
