"""Read the ports of a service into their long form."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader.limits import DEFAULT
from sandboxer.extensions.compose_ssh.loader.nodes import RESET, Map, Override, Seq
from sandboxer.extensions.compose_ssh.loader.schema import ValueContext, record, scalar, text, whole

_RANGE: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_SHORT: Final = re.compile(r"(?:(?P<host>\[[^\]]*\]|[^:\[\]]*):)?(?:(?P<published>[^:]*):)?(?P<target>[^:]+)")
_PROTOCOLS: Final = frozenset({"tcp", "udp", "sctp"})
_LONG: Final = record(
    {
        "name": text,
        "mode": text,
        "host_ip": text,
        "target": whole,
        "published": scalar,
        "protocol": text,
        "app_protocol": text,
    }
)
"""Ports of one range; a service publishes a handful."""


def ports(value: Any, spot: ValueContext) -> Seq:
    """Every published port of its own, a range taken apart."""
    if not isinstance(value, Seq):
        raise spot.bad("must be a list")
    result = Seq()
    for index, entry in enumerate(value):
        here = spot.item(value, index)
        if entry is RESET:
            continue
        port = entry.value if isinstance(entry, Override) else entry
        if isinstance(port, Map):
            result.add(_long(port, here), here.origin)
            continue
        if isinstance(port, bool) or not isinstance(port, int | str):
            raise here.bad("is no port: write PUBLISHED:TARGET, quoted")
        for found in _short(str(port), here):
            result.add(found, here.origin)
    return result


def _long(value: Map, spot: ValueContext) -> Map:
    body: Map = _LONG(value, spot)
    if body.get("target") is None:
        raise spot.bad("has no target")
    if not 0 < body["target"] < 65536:
        raise spot.bad("has a target that is no port number")
    published = body.get("published")
    if published == "":
        body.drop("published")
    elif published is not None:
        _range(published, spot)
    body.setdefault("mode", "ingress")
    body.setdefault("protocol", "tcp")
    return body


def _short(value: str, spot: ValueContext) -> list[Map]:
    front, slash, protocol = value.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    match = _SHORT.fullmatch(front)
    if match is None or protocol not in _PROTOCOLS:
        raise spot.bad(f"is no port: {value[:80]!r}; write PUBLISHED:TARGET")
    host, published = match["host"], match["published"]
    if published is None:  # one colon: what is before it is the published port
        host, published = None, host
    first, last = _range(match["target"], spot)
    spot.charge(5 * (last - first + 1))
    numbers = range(first, last + 1)
    if not published:
        wanted: list[str | None] = [None] * len(numbers)
    else:
        low, high = _range(published, spot)
        if len(numbers) == 1 and high > low:
            wanted = [f"{low}-{high}"]
        elif high - low != last - first:
            raise spot.bad(f"has ranges of different lengths: {value[:80]!r}")
        else:
            wanted = [str(number) for number in range(low, high + 1)]
    address = _address(host, spot) if host else None
    return [_port(address, number, outside, protocol) for number, outside in zip(numbers, wanted, strict=True)]


def _port(address: str | None, target: int, published: str | None, protocol: str) -> Map:
    body = Map()
    body["mode"] = "ingress"
    if address:
        body["host_ip"] = address
    body["target"] = target
    if published is not None:
        body["published"] = published
    body["protocol"] = protocol
    return body


def _address(host: str, spot: ValueContext) -> str:
    bare = host[1:-1] if host.startswith("[") else host
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        raise spot.bad(f"has an address that is none: {host[:80]!r}") from None
    return bare


def _range(value: str, spot: ValueContext) -> tuple[int, int]:
    match = _RANGE.fullmatch(value)
    if match is None:
        raise spot.bad(f"has a port that is no number: {value[:80]!r}")
    first, last = int(match[1]), int(match[2] or match[1])
    if not first <= last < 65536 or last - first >= DEFAULT.ports:
        raise spot.bad(f"has a range of ports that is none, or too long: {value[:80]!r}")
    return first, last
