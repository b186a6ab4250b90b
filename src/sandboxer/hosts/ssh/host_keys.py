"""Making sure that an SSH server is the host that was meant, before anything is said to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sandboxer.errors import Denied
from sandboxer.hosts.ssh import host_certificates
from sandboxer.hosts.ssh.config import SshEndpoint
from sandboxer.hosts.ssh.known_hosts import (
    CERTIFICATE_SUFFIX,
    PLAIN_ALGORITHMS,
    KnownKeys,
    blob_type,
    fingerprint,
    lookup,
    lookup_names,
)
from sandboxer.timing import now

ALL_ALGORITHMS = tuple(algorithm for group in PLAIN_ALGORITHMS.values() for algorithm in group)


def read_known(endpoint: SshEndpoint, read: Callable[[str], str] | None = None) -> KnownKeys:
    """What the endpoint's known_hosts files say of it; files that are not there say nothing."""
    texts = map(read or _read, endpoint.known_hosts)
    return lookup(texts, host=endpoint.host, port=endpoint.port, alias=endpoint.alias)


def _read(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def accepted_algorithms(endpoint: SshEndpoint, known: KnownKeys, *, refused: Sequence[bytes] = ()) -> tuple[str, ...]:
    """The host key algorithms to offer. For a host that nothing is known of: all, so that its key can be shown in the
    refusal. `refused` are keys that did not fit a pinned fingerprint: their types are not asked for again."""
    if endpoint.host_key is not None:
        seen = {algorithm for key in refused for algorithm in PLAIN_ALGORITHMS.get(blob_type(key), ())}
        return tuple(algorithm for algorithm in ALL_ALGORITHMS if algorithm not in seen)
    return known.algorithms or ALL_ALGORITHMS


def verify(endpoint: SshEndpoint, known: KnownKeys, key: bytes) -> str:
    """The `SHA256:...` fingerprint of the host's key, when `key` (a plain key or a certificate, which the server has
    proved to hold) is the right one; raises Denied otherwise."""
    if blob_type(key).endswith(CERTIFICATE_SUFFIX):
        return _verify_certificate(endpoint, known, key)
    found = fingerprint(key)
    if key in known.revoked:
        raise Denied(
            f"the host key {found} of {endpoint.where} is revoked",
            hint="somebody may pose as the host; ask its operator for its new key, and do not connect before",
        )
    if endpoint.host_key is not None:
        if found != endpoint.host_key:
            raise refused_pin(endpoint, [key])
        return found
    if not known.trusted:
        raise Denied(
            f"the host key of {endpoint.where} is not known: it shows {found}",
            hint=f"compare it with the host's own (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` there), then set "
            f'host_key: "{found}" for it in config.yaml, or: ssh-keyscan -p {endpoint.port} {endpoint.host} '
            f">> {_file(endpoint)}",
        )
    if (blob_type(key), key) not in known.trusted:
        name = lookup_names(host=endpoint.host, port=endpoint.port, alias=endpoint.alias)[0]
        raise Denied(
            f"the host key of {endpoint.where} has changed: it shows {found}, and another one is known",
            hint="somebody may pose as the host. Only if you know that its key was changed: "
            f"ssh-keygen -R '{name}' -f {_file(endpoint)}, and then add the new one",
        )
    return found


def refused_pin(endpoint: SshEndpoint, keys: Sequence[bytes]) -> Denied:
    """The error for a host none of whose keys is the pinned one."""
    shown = ", ".join(map(fingerprint, keys)) or "none"
    return Denied(
        f"the host key of {endpoint.where} is not the one in config.yaml: it shows {shown}",
        hint="somebody may pose as the host. Only if you know that its key was changed: set host_key in config.yaml",
    )


def no_common_key(endpoint: SshEndpoint) -> Denied:
    """The error for a server that has none of the key types that are known for the host."""
    return Denied(
        f"{endpoint.where} has no host key of the kinds that are known for it",
        hint="somebody may pose as the host. Compare its keys with the operator, then add the right one to "
        f"{_file(endpoint)}",
    )


def _verify_certificate(endpoint: SshEndpoint, known: KnownKeys, blob: bytes) -> str:
    try:
        certificate = host_certificates.check(
            blob, name=endpoint.lookup_name, authorities=known.authorities, revoked=known.revoked, now=now()
        )
    except host_certificates.BadCertificateError as error:
        raise Denied(
            f"the host certificate of {endpoint.where} is not good: {error}",
            hint="ask the operator of the host's authority for a new certificate "
            "(ssh-keygen -s CA -h -n NAMES -V +52w KEY.pub), or check @cert-authority in known_hosts",
        ) from error
    return fingerprint(certificate.key)


def _file(endpoint: SshEndpoint) -> str:
    return endpoint.known_hosts[0] if endpoint.known_hosts else "~/.ssh/known_hosts"
