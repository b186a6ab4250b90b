"""List the keys of a whole compose file, with the kind of each."""

from __future__ import annotations

from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader.nodes import Map, Seq
from sandboxer.extensions.compose_ssh.loader.schema import (
    ValueContext,
    flag,
    keyed,
    labels,
    listed,
    mapping,
    options,
    record,
    scalar,
    text,
    text_or_texts,
)
from sandboxer.extensions.compose_ssh.loader.schema_service import SERVICE
from sandboxer.extensions.compose_ssh.loader.service_syntax import path


def _external(value: Any, spot: ValueContext) -> Any:
    if isinstance(value, Map):
        return record({"name": text})(value, spot)
    return flag(value, spot)


_POOL: Final = record({"subnet": text, "ip_range": text, "gateway": text, "aux_addresses": labels})
_NETWORK: Final = record(
    {
        "name": text,
        "driver": text,
        "driver_opts": options,
        "ipam": record({"driver": text, "config": listed(_POOL), "options": options}),
        "external": _external,
        "internal": flag,
        "enable_ipv4": flag,
        "enable_ipv6": flag,
        "attachable": flag,
        "labels": labels,
    }
)
_VOLUME_KEYS: Final = record(
    {"name": text, "driver": text, "driver_opts": options, "external": _external, "labels": labels}
)


def _volume(value: Any, spot: ValueContext) -> Map:
    """A volume; one that is a bind in disguise has an absolute path, as every bind has."""
    body: Map = _VOLUME_KEYS(value, spot)
    options = body.get("driver_opts")
    if isinstance(options, Map) and body.get("driver") == "local" and options.get("o") == "bind":
        device = options.get("device")
        if isinstance(device, str) and device:
            options["device"] = spot.absolute(device)
    return body


_SECRET: Final = record(
    {
        "name": text,
        "environment": text,
        "file": path,
        "content": text,
        "external": _external,
        "labels": labels,
        "driver": text,
        "driver_opts": options,
        "template_driver": text,
    }
)

_INCLUDE: Final = record({"path": text_or_texts, "env_file": text_or_texts, "project_directory": text})


def _include(value: Any, spot: ValueContext) -> Map:
    if isinstance(value, str):
        return Map().put("path", Seq().add(value, spot.origin), spot.origin)
    body: Map = _INCLUDE(value, spot)
    if not body.get("path"):
        raise spot.bad("has no path")
    return body


DOCUMENT: Final = record(
    {
        "version": scalar,
        "name": text,
        "include": listed(_include),
        "services": keyed(record(SERVICE)),
        "networks": keyed(_NETWORK),
        "volumes": keyed(_volume),
        "secrets": keyed(_SECRET),
        "configs": keyed(_SECRET),
        "models": mapping,
    }
)
"""A whole compose file to its long forms. Paths become absolute, below the directory of the spot."""
