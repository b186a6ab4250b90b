"""Add to a compose project what makes it this sandbox's: labels, free ports, no names that two would fight over. Pure.

Fixed names of networks and volumes always go (the project's prefix takes their place): a sandbox that shared a volume
with something else would delete it on teardown. External ones are left alone. Fixed container names
go with `remapped` and `none`, and always for podman-compose, whose `down` would remove a stranger's container of that
name; the old name stays as a network alias.

`127.0.0.1::80` makes the engine itself pick a free loopback port when the container starts: nothing is probed
beforehand, so nothing can be lost in a race.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sandboxer.errors import Invalid
from sandboxer.extensions.compose_ssh.document import is_null
from sandboxer.extensions.compose_ssh.options import Publish

Document = dict[str, Any]

LOOPBACK: Final = "127.0.0.1"
MAX_PORTS: Final = 1000
"""Ports of one service: each becomes a proxy or a rule of the engine."""
_RANGE: Final = re.compile(r"(\d{1,5})-(\d{1,5})")
_PROTOCOLS: Final = frozenset({"tcp", "udp", "sctp"})


def transform(document: Mapping[str, Any], *, publish: Publish, labels: Mapping[str, str], podman: bool) -> Document:
    """The document as it is brought up."""
    rename = publish != "declared" or podman
    services = {
        name: _service(name, body, publish=publish, labels=labels, rename=rename)
        for name, body in document["services"].items()
    }
    stamped: Document = {**document, "services": services}
    networks = _owned(document.get("networks"), labels)
    if any(not body.get("networks") and not body.get("network_mode") for body in services.values()):
        networks.setdefault("default", {"labels": dict(labels)})
    volumes = _owned(document.get("volumes"), labels)
    for key, section in (("networks", networks), ("volumes", volumes)):
        stamped.pop(key, None)
        if section:
            stamped[key] = section
    if podman:
        # a pod per project groups containers and nothing else; without it two podman calls are saved each way
        stamped["x-podman"] = {"in_pod": False}
    return stamped


def required(document: Mapping[str, Any]) -> dict[str, int]:
    """The services that must come up, and the least number of containers of each. One that is wanted zero times may
    stay away; one front end ignores `deploy`, so that only counts as at least one."""
    counts = {name: _replicas(body) for name, body in document["services"].items()}
    return {name: count for name, count in counts.items() if count}


def builds(document: Mapping[str, Any]) -> bool:
    """Whether any image is built from the repository."""
    return any(body.get("build") for body in document["services"].values())


def _service(name: str, body: Document, *, publish: Publish, labels: Mapping[str, str], rename: bool) -> Document:
    service = {**body, "labels": _labelled(body.get("labels"), labels)}
    if publish == "none" or (publish == "remapped" and not body.get("ports")):
        service.pop("ports", None)
    elif publish == "remapped":
        service["ports"] = remap(body["ports"], service=name)
    if rename and body.get("container_name"):
        alias = service.pop("container_name")
        if not body.get("network_mode"):
            service["networks"] = _aliased(body.get("networks"), alias)
    return service


def _aliased(networks: Any, alias: str) -> Document:
    known: Mapping[str, Any] = dict.fromkeys(networks) if isinstance(networks, list) else networks or {"default": None}
    return {
        network: {**(settings or {}), "aliases": [*((settings or {}).get("aliases") or ()), alias]}
        for network, settings in known.items()
    }


def _labelled(present: Any, labels: Mapping[str, str]) -> Document:
    if isinstance(present, list):
        present = dict(entry.partition("=")[::2] for entry in present)
    return {**(present or {}), **labels}


def _owned(section: Any, labels: Mapping[str, str]) -> Document:
    return {
        key: body
        if body and body.get("external")
        else {**_without_name(body or {}), "labels": _labelled((body or {}).get("labels"), labels)}
        for key, body in (section or {}).items()
    }


def _without_name(body: Mapping[str, Any]) -> Document:
    return {key: value for key, value in body.items() if key != "name"}


def _replicas(service: Mapping[str, Any]) -> int:
    scale = _count(service.get("scale"))
    if scale is not None:
        return scale
    return 0 if _count((service.get("deploy") or {}).get("replicas")) == 0 else 1


def _count(value: Any) -> int | None:
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError):
        return None


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
