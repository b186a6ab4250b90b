"""Read what has a short form in a service into its long form."""

from __future__ import annotations

from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader.nodes import Map, Seq
from sandboxer.extensions.compose_ssh.loader.schema import (
    Shape,
    ValueContext,
    flag,
    keyed,
    labels,
    listed,
    mode,
    number,
    one_or_more,
    options,
    record,
    text,
    texts,
    whole,
    within,
)

_CONDITIONS: Final = ("service_started", "service_healthy", "service_completed_successfully")


def path(value: Any, spot: ValueContext) -> str:
    return spot.absolute(text(value, spot))


def _condition(value: Any, spot: ValueContext) -> str:
    if value not in _CONDITIONS:
        raise spot.bad(f"must be one of {', '.join(_CONDITIONS)}")
    return str(value)


_DEPENDENCY: Final = record({"condition": _condition, "required": flag, "restart": flag})


def depends_on(value: Any, spot: ValueContext) -> Map:
    result = Map()
    if isinstance(value, Map):
        for key, entry in value.items():
            here = spot.key(value, key)
            body = within(_DEPENDENCY, entry, here)
            if isinstance(body, Map):
                if body.get("condition") is None:
                    raise here.bad("has no condition", hint="write `condition: service_started`")
                body.setdefault("required", True)
            elif body is None:
                raise here.bad("has no condition", hint="write `condition: service_started`")
            result.put(key, body, here.origin)
        return result
    names: Seq = texts(value, spot)
    for index, name in enumerate(names):
        body = Map()
        body.update(condition=_CONDITIONS[0], required=True)
        result.put(name, body, names.at[index])
    return result


_SERVICE_NETWORK: Final = record(
    {
        "aliases": texts,
        "link_local_ips": texts,
        "ipv4_address": text,
        "ipv6_address": text,
        "mac_address": text,
        "driver_opts": options,
        "priority": number,
        "gw_priority": number,
        "interface_name": text,
    }
)


def networks(value: Any, spot: ValueContext) -> Map:
    if isinstance(value, Map):
        return keyed(_SERVICE_NETWORK)(value, spot)  # type: ignore[no-any-return]
    result = Map()
    names: Seq = texts(value, spot)
    for index, name in enumerate(names):
        result.put(name, None, names.at[index])
    return result


def mounted(directory: str) -> Shape:
    """A secret or config of a service; its short form is mounted below `directory`."""
    long = record({"source": text, "target": text, "uid": text, "gid": text, "mode": mode})

    def shape(value: Any, spot: ValueContext) -> Map:
        if isinstance(value, str):
            body = Map().put("source", value, spot.origin)
            return body.put("target", f"{directory}{value}", spot.origin) if directory else body
        result: Map = long(value, spot)
        if not isinstance(result.get("source"), str):
            raise spot.bad("has no source")
        if directory and result.get("target") is None:
            result.put("target", f"{directory}{result['source']}", spot.origin)
        return result

    return shape


def ulimits(value: Any, spot: ValueContext) -> Map:
    return keyed(_ulimit)(value, spot)  # type: ignore[no-any-return]


def _ulimit(value: Any, spot: ValueContext) -> Any:
    if not isinstance(value, Map):
        return whole(value, spot)
    return record({"soft": whole, "hard": whole})(value, spot)


def device(value: Any, spot: ValueContext) -> Map:
    if not isinstance(value, str):
        return record({"source": text, "target": text, "permissions": text})(value, spot)  # type: ignore[no-any-return]
    parts = value.split(":")
    if len(parts) > 3 or not parts[0]:
        raise spot.bad("is no device: write SOURCE:TARGET:PERMISSIONS")
    body = Map()
    body.update(source=parts[0], target=parts[1] if len(parts) > 1 else parts[0])
    body["permissions"] = parts[2] if len(parts) > 2 else "rwm"
    return body


def extra_hosts(value: Any, spot: ValueContext) -> Seq:
    """Hosts as NAME=ADDRESS, one each."""
    result = Seq()
    if isinstance(value, Map):
        for key, entry in value.items():
            here = spot.key(value, key)
            for address in one_or_more(text)(entry, here):
                result.add(f"{key}={_address(address)}", here.origin)
        return result
    for index, entry in enumerate(texts(value, spot)):
        here = spot.item(value, index)
        name, found, address = entry.partition("=" if "=" in entry else ":")
        if not found or not name or not address:
            raise here.bad("is no host: write NAME=ADDRESS")
        result.add(f"{name}={_address(address)}", here.origin)
    return result


def _address(address: str) -> str:
    return address[1:-1] if address.startswith("[") and address.endswith("]") else address


def env_files(value: Any, spot: ValueContext) -> Seq:
    return one_or_more(_env_file)(value, spot)  # type: ignore[no-any-return]


def _env_file(value: Any, spot: ValueContext) -> Map:
    if isinstance(value, str):
        body = Map()
        body.update(path=spot.absolute(value), required=True)
        return body
    long: Map = record({"path": path, "required": flag, "format": text})(value, spot)
    if not isinstance(long.get("path"), str):
        raise spot.bad("has no path")
    long.setdefault("required", True)
    return long


def extends(value: Any, spot: ValueContext) -> Map:
    if isinstance(value, str):
        return Map().put("service", value, spot.origin)
    body: Map = record({"service": text, "file": text})(value, spot)
    return body


def _count(value: Any, spot: ValueContext) -> int:
    return -1 if value == "all" else whole(value, spot)


DEVICE_REQUEST: Final = record(
    {"capabilities": texts, "count": _count, "device_ids": texts, "driver": text, "options": labels}
)


def gpus(value: Any, spot: ValueContext) -> Seq:
    if isinstance(value, str):
        if value != "all":
            raise spot.bad("must be `all` or a list")
        body = Map()
        body["count"] = -1
        return Seq().add(body, spot.origin)
    return listed(DEVICE_REQUEST)(value, spot)  # type: ignore[no-any-return]
