"""What paramiko and sockets raise, as errors of ours: one table. What is not in it escapes as the bug it is."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from sandboxer.errors import BackendError, Denied, SandboxerError, Unavailable
from sandboxer.hosts.ssh.config import SshEndpoint


class SessionRefused(Exception):
    """The server takes no further session on a connection: another connection may do."""


_PROHIBITED = 1
"""SSH_OPEN_ADMINISTRATIVELY_PROHIBITED (RFC 4254, 5.1)."""


@contextmanager
def translated(endpoint: SshEndpoint, doing: str) -> Iterator[None]:
    """Turn foreign errors inside into ours, saying what was being done."""
    try:
        yield
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise translate(error, endpoint, doing) from error


def translate(error: Exception, endpoint: SshEndpoint, doing: str) -> SandboxerError:
    """The error of ours for one of theirs."""
    where = endpoint.where
    if isinstance(error, socket.gaierror):
        return Unavailable(
            f"{where}: the name {endpoint.host} is not known ({error.strerror})",
            hint=f"check the address of {endpoint.name} in config.yaml or ~/.ssh/config",
        )
    if isinstance(error, ConnectionRefusedError):
        return Unavailable(
            f"{where} refused the connection", hint=f"is an SSH server listening on port {endpoint.port} there?"
        )
    if isinstance(error, TimeoutError):
        return Unavailable(f"{where} did not answer while {doing}", hint=f"try: ssh -v {login(endpoint)}")
    if isinstance(error, paramiko.AuthenticationException):
        return Denied(f"{where} did not accept {endpoint.user}'s keys", hint=f"try: ssh -v {login(endpoint)}")
    if isinstance(error, paramiko.ChannelException):
        return _channel(error, endpoint)
    if isinstance(error, IncompatiblePeer):
        return BackendError(
            f"{where} and we have no common algorithms: {error}", hint="update the SSH server there", retryable=False
        )
    reason = str(error) or type(error).__name__
    if "banner" in reason:
        return Unavailable(
            f"{where} closed the connection before it greeted",
            hint="does its sshd_config limit connections (MaxStartups, PerSourceMaxStartups, PerSourcePenalties), "
            "or is it no SSH server?",
        )
    return Unavailable(f"{where} broke off while {doing}: {reason}", hint=f"try: ssh -v {login(endpoint)}")


def _channel(error: paramiko.ChannelException, endpoint: SshEndpoint) -> SandboxerError:
    if error.code == _PROHIBITED:
        return Denied(
            f"{endpoint.where} does not allow another connection: {error.text}",
            hint="see AllowTcpForwarding in its sshd_config",
        )
    return Unavailable(f"{endpoint.where}: {error.text}", hint=f"try: ssh -v {login(endpoint)}")


def no_sessions(endpoint: SshEndpoint, refused: SessionRefused) -> Denied:
    """The error for a server that takes no session at all."""
    return Denied(
        f"{endpoint.where} runs no commands: it refuses the first session ({refused})",
        hint="see MaxSessions in its sshd_config, which must be 1 or more",
    )


def login(endpoint: SshEndpoint) -> str:
    """What to type behind `ssh` to get there: `ops@203.0.113.7`, with `-p` where the port is not 22."""
    place = f"{endpoint.user}@{endpoint.host}"
    return place if endpoint.port == 22 else f"-p {endpoint.port} {place}"
