"""OpenSSH host certificates: is this one good for this host, now, and signed by an authority that is known for it?

The format is that of OpenSSH's PROTOCOL.certkeys. That the peer holds the certificate's key is proved by the key
exchange before, against the very bytes that are checked here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sandboxer.hosts.ssh.known_hosts import CERTIFICATE_SUFFIX, fingerprint, wildcard_matches

_HOST = 2
_KEY_FIELDS = {
    "ssh-ed25519": 1,  # the key
    "ssh-rsa": 2,  # exponent, modulus
    "ecdsa-sha2-nistp256": 2,  # curve, point
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
}
_SIGNATURES = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),  # SHA-1 proves nothing any more
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
}


class BadCertificateError(ValueError):
    """Why a certificate does not vouch for a host."""


@dataclass(frozen=True, slots=True)
class HostCertificate:
    """The parts of a certificate. `key` is the certified key as a plain key; times are unix seconds."""

    key: bytes
    kind: int
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    critical_options: bytes
    authority: bytes
    signed: bytes
    signature: bytes


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        if len(piece) != count:
            raise BadCertificateError("it is cut short")
        self.at += count
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def string(self) -> bytes:
        return self.take(self.number(4))


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def parse(blob: bytes) -> HostCertificate:
    """A certificate's bytes; raises BadCertificateError when they are none."""
    reader = _Reader(blob)
    name = reader.string().decode("ascii", "replace")
    plain = name.removesuffix(CERTIFICATE_SUFFIX)
    if plain == name or plain not in _KEY_FIELDS:
        raise BadCertificateError(f"its type {name[:60]!r} is not known")
    reader.string()  # nonce
    key = _string(plain.encode()) + b"".join(_string(reader.string()) for _ in range(_KEY_FIELDS[plain]))
    reader.number(8)  # serial
    kind, key_id = reader.number(4), reader.string().decode("utf-8", "replace")
    principals = _Reader(reader.string())
    names = []
    while principals.at < len(principals.data):
        names.append(principals.string().decode("utf-8", "replace"))
    after, before = reader.number(8), reader.number(8)
    critical = reader.string()
    reader.string()  # extensions: of no consequence for hosts
    reader.string()  # reserved
    authority = reader.string()
    signed = blob[: reader.at]
    signature = reader.string()
    if reader.at != len(blob):
        raise BadCertificateError("something stands behind its signature")
    return HostCertificate(key, kind, key_id, tuple(names), after, before, critical, authority, signed, signature)


def check(
    blob: bytes, *, name: str, authorities: Collection[bytes], revoked: Collection[bytes], now: float
) -> HostCertificate:
    """The certificate, when it vouches for host `name` at unix time `now`; raises BadCertificateError otherwise."""
    certificate = parse(blob)
    if certificate.authority not in authorities:
        raise BadCertificateError(f"its authority {fingerprint(certificate.authority)} is not known for this host")
    if certificate.key in revoked or certificate.authority in revoked:
        raise BadCertificateError("its key or its authority is revoked")
    if not _signature_holds(certificate):
        raise BadCertificateError("its signature is wrong")
    if certificate.kind != _HOST:
        raise BadCertificateError("it is not a host's certificate")
    if certificate.critical_options:
        raise BadCertificateError("it has critical options, which no host certificate may have")
    if not certificate.valid_after <= now < certificate.valid_before:
        raise BadCertificateError("it is not valid at this time")
    if not any(wildcard_matches(principal.lower(), name.lower()) for principal in certificate.principals):
        raise BadCertificateError(f"it names {', '.join(certificate.principals) or 'no host'}, not {name}")
    return certificate


def _signature_holds(certificate: HostCertificate) -> bool:
    import paramiko

    reader = _Reader(certificate.authority)
    kind = reader.string().decode("ascii", "replace")
    if kind not in _SIGNATURES:
        return False
    signature = _Reader(certificate.signature)
    algorithm = signature.string().decode("ascii", "replace")
    signature.string()
    if algorithm not in _SIGNATURES[kind] or signature.at != len(signature.data):
        return False
    try:
        key = paramiko.PKey.from_type_string(kind, certificate.authority)
        return bool(key.verify_ssh_sig(certificate.signed, paramiko.Message(certificate.signature)))
    except (ValueError, paramiko.SSHException):  # a key or signature of the wrong length
        return False
