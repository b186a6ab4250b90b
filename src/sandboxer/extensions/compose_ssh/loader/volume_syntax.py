"""Read the volumes of a service into their long form."""

from __future__ import annotations

import posixpath
from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader.nodes import Map
from sandboxer.extensions.compose_ssh.loader.schema import ValueContext, flag, mode, record, size, text

_PROPAGATIONS: Final = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_LONG: Final = record(
    {
        "type": text,
        "source": text,
        "target": text,
        "read_only": flag,
        "consistency": text,
        "bind": record({"propagation": text, "create_host_path": flag, "selinux": text, "recursive": text}),
        "volume": record({"nocopy": flag, "subpath": text}),
        "tmpfs": record({"size": size, "mode": mode}),
        "image": record({"subpath": text}),
    }
)


def volume(value: Any, spot: ValueContext) -> Map:
    """A mount from its short or long form, a bind's source absolute."""
    if isinstance(value, str):
        return _short(value, spot)
    body: Map = _LONG(value, spot)
    for key in ("type", "target"):
        if not isinstance(body.get(key), str):
            raise spot.bad(f"has no {key}")
    if body["type"] == "bind":
        source = body.get("source")
        if not isinstance(source, str) or not source:
            raise spot.bad("is a bind without a source")
        body["source"] = spot.absolute(source)
    body["target"] = _clean(body["target"])
    return body


def _short(value: str, spot: ValueContext) -> Map:
    parts = value.split(":")
    if not value or not all(parts) or len(parts) > 3:
        raise spot.bad("is no volume: write SOURCE:TARGET or SOURCE:TARGET:MODE", hint="use the long form")
    body = Map()
    if len(parts) == 1:
        body.update(type="volume", target=_clean(value))
        return body
    source = parts[0]
    bind = source.startswith((".", "/", "~"))
    body["type"] = "bind" if bind else "volume"
    body["source"] = spot.absolute(source) if bind else source
    body["target"] = _clean(parts[1])
    more = Map()
    for option in parts[2].split(",") if len(parts) > 2 else ():
        if option in ("ro", "rw"):
            body["read_only"] = option == "ro"
        elif option in ("z", "Z"):
            more["selinux"] = option
        elif option in _PROPAGATIONS:
            more["propagation"] = option
        elif option == "nocopy":
            body["volume"] = Map().put("nocopy", True, None)
    if not body.get("read_only", True):
        del body["read_only"]
    if bind:
        more["create_host_path"] = True
    if more:
        body["bind"] = more
    return body


def _clean(target: str) -> str:
    """A path inside without doubled or trailing slashes."""
    cleaned = posixpath.normpath(target)
    return "/" + cleaned.lstrip("/") if cleaned.startswith("//") else cleaned
