"""The `ports` of a service for a sandbox that must not take a fixed port of its host. Pure.

`127.0.0.1::80` makes the engine itself pick a free loopback port when the container starts: nothing is probed
beforehand, so nothing can be lost in a race.
"""

from __future__ import annotations

import re
from typing import Any, Final

from sandboxer.errors import Invalid
from sandboxer.extensions.compose_ssh.document import is_null

LOOPBACK: Final = "127.0.0.1"
MAX_PORTS: Final = 1000
"""Ports of one service: each becomes a proxy or a rule of the engine."""
_RANGE: Final = re.compile(r"(\d{1,5})-(\d{1,5})")
_PROTOCOLS: Final = frozenset({"tcp", "udp", "sctp"})


def remap(ports: Any, *, service: str) -> list[str]:
    """Each container port published on a free loopback port; raises Invalid for what is no port."""
    if is_null(ports):
        return []
    if not isinstance(ports, list):
        raise Invalid(f"service {service!r}: `ports` is not a list", hint='write it like ports: ["8080:80"]')
    remapped: dict[str, None] = {}
    for entry in ports:
        for target in _targets(entry, service):
            remapped[f"{LOOPBACK}::{target}"] = None
    if len(remapped) > MAX_PORTS:
        raise Invalid(f"service {service!r} publishes {len(remapped)} ports", hint=f"at most {MAX_PORTS} are remapped")
    return list(remapped)


def _targets(entry: Any, service: str) -> list[str]:
    if isinstance(entry, dict):
        target, protocol = entry.get("target"), entry.get("protocol", "tcp")
        if isinstance(target, int) and not isinstance(target, bool):
            target = str(target)
        if not isinstance(target, str) or not target or not isinstance(protocol, str):
            raise Invalid(f"service {service!r}: a port without `target`", hint="write it like {target: 80}")
        return _expand(target, protocol, service)
    if not isinstance(entry, str) or not entry:
        raise Invalid(f"service {service!r}: a port that is neither text nor a mapping", hint='write it like "8080:80"')
    container = _split(entry, ":")[-1]
    target, *rest = _split(container, "/")
    if len(rest) > 1 or not target:
        raise Invalid(
            f"service {service!r}: {entry[:80]!r} is not a port", hint='write it like "8080:80" or "53:53/udp"'
        )
    return _expand(target, rest[0] if rest else "tcp", service)


def _expand(target: str, protocol: str, service: str) -> list[str]:
    if protocol not in _PROTOCOLS and "$" not in protocol:
        raise Invalid(f"service {service!r}: unknown protocol {protocol[:20]!r}", hint="use tcp, udp or sctp")
    suffix = "" if protocol == "tcp" else f"/{protocol}"
    match = _RANGE.fullmatch(target)
    if match is None:
        if "$" not in target and not (target.isascii() and target.isdigit() and 0 < int(target[:6]) < 65536):
            raise Invalid(f"service {service!r}: {target[:80]!r} is not a port", hint="use a number from 1 to 65535")
        return [target + suffix]
    first, last = int(match[1]), int(match[2])
    if not 0 < first <= last < 65536 or last - first >= MAX_PORTS:
        raise Invalid(
            f"service {service!r}: {target!r} is not a range of ports", hint=f"up to {MAX_PORTS} ports, low-high"
        )
    return [f"{port}{suffix}" for port in range(first, last + 1)]


def _split(text: str, mark: str) -> list[str]:
    """`text` at each `mark` outside of ${...} and [...]: `${PORT:-8080}:80` has two parts."""
    parts, depth, start, index = [], 0, 0, 0
    while index < len(text):
        if text.startswith("${", index) or text[index] == "[":
            depth += 1
            index += 2 if text[index] == "$" else 1
            continue
        if text[index] in "}]":
            depth = max(0, depth - 1)
        elif text[index] == mark and depth == 0:
            parts.append(text[start:index])
            start = index + 1
        index += 1
    return [*parts, text[start:]]
