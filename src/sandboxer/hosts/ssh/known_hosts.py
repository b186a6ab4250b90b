"""What known_hosts files say of a host: which keys are its own, which authorities may vouch for it, which are revoked.

The format is that of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT". A line that cannot be read vouches for nobody.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sandboxer.hosts.trees.globs import ONE, Star, compiled

PLAIN_ALGORITHMS: dict[str, tuple[str, ...]] = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
"""Key type to the host key algorithms that use it; SHA-1 signatures are not among them."""
CERTIFICATE_SUFFIX = "-cert-v01@openssh.com"


@dataclass(frozen=True, slots=True)
class KnownHostsLine:
    """One line: marker (``, `cert-authority`, `revoked`), host patterns as written, key type, key."""

    marker: str
    hosts: str
    key_type: str
    key: bytes


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """What is known of one host. `trusted` are (type, key); `authorities` and `revoked` are keys."""

    trusted: tuple[tuple[str, bytes], ...] = ()
    authorities: frozenset[bytes] = frozenset()
    revoked: frozenset[bytes] = frozenset()

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The host key algorithms to accept from it, in order; empty when nothing is known. Others would let an
        attacker, or a second key of the host, look like a change."""
        plain = tuple(a for key_type in PLAIN_ALGORITHMS for a in _algorithms_of(key_type, self.trusted))
        if not self.authorities:
            return plain
        return (*(a + CERTIFICATE_SUFFIX for group in PLAIN_ALGORITHMS.values() for a in group), *plain)


def _algorithms_of(key_type: str, trusted: Iterable[tuple[str, bytes]]) -> tuple[str, ...]:
    return PLAIN_ALGORITHMS[key_type] if any(known == key_type for known, _ in trusted) else ()


def parse_line(text: str) -> KnownHostsLine | None:
    """One line of a file; None for comments, blank lines and whatever cannot be read."""
    words = text.split()
    if not words or words[0].startswith("#"):
        return None
    marker = ""
    if words[0].startswith("@"):
        marker = words.pop(0)[1:]
        if marker not in ("cert-authority", "revoked"):
            return None
    if len(words) < 3:
        return None
    try:
        key = base64.b64decode(words[2], validate=True)
    except ValueError:  # not base64, or not even ASCII
        return None
    return KnownHostsLine(marker, words[0], words[1], key) if blob_type(key) == words[1] else None


def blob_type(key: bytes) -> str:
    """The key type that a key's bytes begin with; empty when they are no key."""
    length = int.from_bytes(key[:4], "big")
    if len(key) < 4 + length or length > 64:
        return ""
    return key[4 : 4 + length].decode("ascii", "replace")


def lookup(texts: Iterable[str], *, host: str, port: int, alias: str | None = None) -> KnownKeys:
    """What the files with these texts say of a host. With `alias` (HostKeyAlias) that name alone is looked up;
    otherwise `host` at port 22, `[host]:port` elsewhere, where a line for the bare name is good as well."""
    names = lookup_names(host=host, port=port, alias=alias)
    trusted: list[tuple[str, bytes]] = []
    bare: list[tuple[str, bytes]] = []
    authorities, revoked = set[bytes](), set[bytes]()
    for line in (found for text in texts for raw in text.splitlines() if (found := parse_line(raw)) is not None):
        if not any(host_matches(line.hosts, name) for name in names):
            continue
        if line.marker == "revoked":
            revoked.add(line.key)
        elif line.marker == "cert-authority":
            authorities.add(line.key)
        elif host_matches(line.hosts, names[0]):
            trusted.append((line.key_type, line.key))
        else:
            bare.append((line.key_type, line.key))
    known = trusted or bare
    usable = tuple(entry for entry in known if entry[0] in PLAIN_ALGORITHMS and entry[1] not in revoked)
    return KnownKeys(usable, frozenset(authorities - revoked), frozenset(revoked))


def lookup_names(*, host: str, port: int, alias: str | None) -> Sequence[str]:
    """The names under which a host may stand in a file, the best first."""
    if alias is not None:
        return [alias.lower()]
    name = host.lower()
    return [name] if port == 22 else [f"[{name}]:{port}", name]


def host_matches(hosts: str, name: str) -> bool:
    """Whether a line's first field means the host: a hash, or patterns with `*`, `?` and `!`, by commas."""
    if hosts.startswith("|"):
        return _hash_matches(hosts, name)
    found = False
    for pattern in hosts.lower().split(","):
        if pattern.startswith("!") and wildcard_matches(pattern[1:], name):
            return False
        found = found or (not pattern.startswith("!") and wildcard_matches(pattern, name))
    return found


def wildcard_matches(pattern: str, name: str) -> bool:
    """`*` is any text, `?` any one character; everything else, brackets too, is itself."""
    steps = [Star(slashes=True) if char == "*" else ONE if char == "?" else char for char in pattern]
    return compiled(steps).matches(name)


def _hash_matches(hosts: str, name: str) -> bool:
    parts = hosts.split("|")
    if len(parts) != 4 or parts[1] != "1":
        return False
    try:
        salt, wanted = base64.b64decode(parts[2], validate=True), base64.b64decode(parts[3], validate=True)
    except ValueError:  # not base64, or not even ASCII
        return False
    # the file format says SHA-1; it hides names, it does not authenticate anything
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), wanted)


def fingerprint(key: bytes) -> str:
    """`SHA256:...` as ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
