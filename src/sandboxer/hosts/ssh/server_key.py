"""The host key of our own SSH server: made, read, and told to clients."""

from __future__ import annotations

import io

import paramiko

from sandboxer.errors import Denied


def new_key() -> str:
    """A fresh Ed25519 key, as OpenSSH writes private ones."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return (
        Ed25519PrivateKey.generate()
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        .decode()
    )


def read_key(text: str) -> paramiko.PKey:
    """The key in a text; raises Denied for what is none. The text is never part of an error."""
    try:
        return paramiko.Ed25519Key.from_private_key(io.StringIO(text))
    except (paramiko.SSHException, ValueError, IndexError) as error:
        raise Denied(
            "the host key of this installation cannot be read",
            hint="remove ssh/host_key in the data directory, then run `sandboxer ssh-config` again",
        ) from error


def known_hosts_line(alias: str, key: str) -> str:
    """The line by which a client knows it."""
    public = read_key(key)
    return f"{alias} {public.get_name()} {public.get_base64()}\n"
