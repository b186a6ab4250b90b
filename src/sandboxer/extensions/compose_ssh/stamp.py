"""What this sandbox adds to a resolved compose project: labels, free ports, no names that two would fight over. Pure.

Fixed names of networks and volumes always go (the project's prefix takes their place): a sandbox that shared a volume
with something else would delete it on teardown. External ones are left alone. Fixed container names
go with `remapped` and `none`, and always for podman-compose, whose `down` would remove a stranger's container of that
name; the old name stays as a network alias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandboxer.extensions.compose_ssh.options import Publish
from sandboxer.extensions.compose_ssh.ports import remap

Document = dict[str, Any]


def stamp(document: Mapping[str, Any], *, publish: Publish, labels: Mapping[str, str], podman: bool) -> Document:
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
