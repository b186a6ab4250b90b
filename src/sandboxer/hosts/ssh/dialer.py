"""Getting bytes to an SSH server: TCP, a proxy command, or a channel of the server before it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import paramiko

from sandboxer.errors import BackendError, Timeout
from sandboxer.hosts.process import tracking
from sandboxer.hosts.process.spawn import spawn
from sandboxer.hosts.ssh.config import SshEndpoint
from sandboxer.hosts.ssh.errors import SessionRefused, translated
from sandboxer.timing import Deadline

CONNECT_SECONDS: Final = 30.0
"""The longest that one connection may take to come about, whatever the deadline."""


def reach(
    endpoint: SshEndpoint, through: paramiko.Transport | None, limit: Deadline, closers: list[Callable[[], object]]
) -> Any:
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


def _dial(endpoint: SshEndpoint, limit: Deadline) -> socket.socket:
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


def _resolve(endpoint: SshEndpoint, limit: Deadline) -> list[Any]:
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
    started: list[int] = []
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        spawn(
            ["/bin/sh", "-c", f"exec {command}"],
            env=os.environ,
            fds={0: theirs.fileno(), 1: theirs.fileno(), 2: nowhere},
            started=started,
        )
    finally:
        os.close(nowhere)
        theirs.close()

    def end() -> None:
        ours.close()
        try:
            tracking.end_session(started[0], Deadline(5))
            os.waitpid(started[0], 0)
        except (BackendError, ChildProcessError):
            return  # it cannot be ended: it has lost its other side, and that has to do

    return ours, end


def open_channel(
    endpoint: SshEndpoint,
    transport: paramiko.Transport,
    deadline: Deadline,
    *,
    kind: str,
    doing: str,
    destination: tuple[str, int] | None,
) -> paramiko.Channel:
    """A channel of the transport, in time. Raises SessionRefused where the server does not give a session."""
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
        if kind == "session" and _is_refusal(error, transport):
            raise SessionRefused(str(error)) from error
        with translated(endpoint, doing):
            raise error


def _is_refusal(error: Exception, transport: paramiko.Transport) -> bool:
    # paramiko keeps one refusal for all who wait at that moment: the others get an error without a reason
    return isinstance(error, paramiko.ChannelException) or (
        transport.is_active() and str(error) == "Unable to open channel."
    )
