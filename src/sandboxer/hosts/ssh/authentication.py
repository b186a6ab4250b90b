"""Proving to an SSH server who we are: by keys, certificates and the agent. Never by a password, never by asking."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko.agent import AgentSSH
from paramiko.pkey import PublicBlob

from sandboxer.errors import Denied
from sandboxer.hosts.ssh.config import SshEndpoint
from sandboxer.hosts.ssh.errors import login
from sandboxer.timing import Deadline

_UNREADABLE = (paramiko.SSHException, ValueError, TypeError, OSError)
# cryptography says TypeError for an encrypted key without a passphrase, ValueError for what is no key at all


class SshAgent(AgentSSH):
    """The keys of the agent behind a socket; none when nobody answers there. Each answer has to come in time."""

    def __init__(self, path: str | None, deadline: Deadline) -> None:
        super().__init__()
        self.keys: Sequence[paramiko.AgentKey] = ()
        if path is None:
            return
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(deadline.seconds(10))
        try:
            connection.connect(path)
            self._connect(connection)  # type: ignore[attr-defined]
            self.keys = self.get_keys()
        except (OSError, paramiko.SSHException):
            connection.close()

    def close(self) -> None:
        """End the connection to the agent."""
        self._close()  # type: ignore[attr-defined]


@dataclass(slots=True)
class _Tried:
    offered: list[str]
    locked: list[str]
    missing: list[str]


def authenticate(transport: paramiko.Transport, endpoint: SshEndpoint, deadline: Deadline) -> None:
    """Log in as the endpoint's user; raises Denied, with what was tried, when no key is accepted."""
    tried = _Tried([], [], [])
    agent = SshAgent(endpoint.agent, deadline)
    try:
        for key, label in _candidates(endpoint, agent.keys, tried):
            tried.offered.append(label)
            # the transport's own thread signs and waits: the bound is the deadline's
            transport.auth_timeout = deadline.seconds(60)
            try:
                left = transport.auth_publickey(endpoint.user, key)
            except paramiko.BadAuthenticationType as error:
                raise _denied(endpoint, tried, f"it wants {', '.join(error.allowed_types)}") from error
            except paramiko.AuthenticationException as error:
                deadline.check(f"logging in to {endpoint.where}")
                if not transport.is_active():
                    raise _denied(endpoint, tried, "it broke off") from error
                continue
            if not left:
                return
            raise _denied(endpoint, tried, f"it wants {', '.join(left)} as well")
    finally:
        agent.close()
    raise _denied(endpoint, tried, "")


def _candidates(
    endpoint: SshEndpoint, agent_keys: Sequence[paramiko.AgentKey], tried: _Tried
) -> Iterator[tuple[paramiko.PKey, str]]:
    """Keys to offer, the best first: certificates, then the key files (from the agent where it has them), then the
    rest of the agent's keys unless IdentitiesOnly."""
    by_blob = {_public(key): key for key in agent_keys}
    used = set[bytes]()
    keys: list[tuple[paramiko.PKey, str, str]] = []
    for path in endpoint.identities:
        key = _from_agent(path, by_blob) or _from_file(path, tried)
        if key is not None and key.public_blob is None:
            keys.append((key, path, f"{path}-cert.pub"))
    for key, path, beside in keys:
        for certificate in (*endpoint.certificates, beside):
            with_certificate = _certified(key, certificate, path, by_blob)
            if with_certificate is not None:
                yield with_certificate, certificate
    for certificate in endpoint.certificates:
        for agent_key in agent_keys if not endpoint.identities_only else ():
            with_certificate = _certified(agent_key, certificate, None, by_blob)
            if with_certificate is not None:
                yield with_certificate, certificate
    for key, path, _ in keys:
        used.add(_public(key))
        yield key, path
    if endpoint.identities_only:
        return
    for agent_key in agent_keys:
        if _public(agent_key) not in used:
            yield agent_key, f"the agent's {agent_key.comment or agent_key.get_name()}"


def _public(key: paramiko.PKey) -> bytes:
    """What identifies a key: its public half (for an agent's certificate, the certificate)."""
    return key.blob if isinstance(key, paramiko.AgentKey) else key.asbytes()


def _from_agent(path: str, by_blob: dict[bytes, paramiko.AgentKey]) -> paramiko.AgentKey | None:
    if not by_blob:
        return None
    public = Path(path if path.endswith(".pub") else f"{path}.pub")
    try:
        return by_blob.get(PublicBlob.from_file(str(public)).key_blob)
    except _UNREADABLE:
        return None


def _from_file(path: str, tried: _Tried) -> paramiko.PKey | None:
    if not Path(path).is_file():
        tried.missing.append(path)
        return None
    try:
        key = paramiko.PKey.from_path(path)
    except (paramiko.PasswordRequiredException, TypeError):
        tried.locked.append(path)
        return None
    except _UNREADABLE:
        tried.missing.append(path)
        return None
    key.public_blob = None  # a certificate beside it is offered apart
    return key


def _certified(
    key: paramiko.PKey, certificate: str, path: str | None, by_blob: dict[bytes, paramiko.AgentKey]
) -> paramiko.PKey | None:
    """A copy of the key that shows this certificate, when the certificate is there and is the key's."""
    from sandboxer.hosts.ssh import host_certificates

    try:
        blob = PublicBlob.from_file(certificate)
        if host_certificates.parse(blob.key_blob).key != key.asbytes():
            return None
        again = by_blob.get(_public(key)) if path is None or isinstance(key, paramiko.AgentKey) else None
        copy = _copy_agent_key(again) if again is not None else paramiko.PKey.from_path(path or "")
        copy.load_certificate(certificate)
    except _UNREADABLE:
        return None
    return copy


def _copy_agent_key(key: paramiko.AgentKey) -> paramiko.PKey:
    return paramiko.AgentKey(key.agent, key.blob, key.comment)


def _denied(endpoint: SshEndpoint, tried: _Tried, why: str) -> Denied:
    offered = f"offered: {', '.join(tried.offered)}" if tried.offered else "there was no key to offer"
    hints = []
    if tried.locked:
        hints.append(f"{tried.locked[0]} is protected by a passphrase: ssh-add {tried.locked[0]}")
    if tried.missing and not tried.offered:
        hints.append(f"not usable: {', '.join(tried.missing)}")
    hints.append(f"try: ssh -v {login(endpoint)}")
    return Denied(
        f"{endpoint.where} does not let {endpoint.user} in" + (f": {why}" if why else "") + f" ({offered})",
        hint="; ".join(hints),
    )
