"""Merge one compose file over another, by docker compose v2's rules for each key. Works on long forms."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader.nodes import RESET, Map, Override, Seq, invalid

Route = tuple[str, ...]
"""A path with `*` for every name that the file's author chose."""

_REPLACED: Final = frozenset(
    {
        ("services", "*", "command"),
        ("services", "*", "entrypoint"),
        ("services", "*", "healthcheck", "test"),
    }
)
_VARIABLES: Final = frozenset({("services", "*", "environment"), ("services", "*", "build", "args")})
_NAMED: Final = frozenset({"services", "networks", "volumes", "secrets", "configs", "models"})


def merged(base: Any, over: Any, route: Route = ()) -> Any:
    """`over` on top of `base`; `base` may be changed. Raises Invalid where one is a list and the other a mapping."""
    if isinstance(over, Override):
        return over.value
    if route in _REPLACED:
        return over
    if over is None:
        # a name alone means the variable of that name, also where an earlier file gave a value
        return None if route[:-1] in _VARIABLES else base
    if base is None or base is RESET or isinstance(base, Override):
        return over
    if isinstance(base, Map) and isinstance(over, Map):
        return over if _other_driver(base, over, route) else _mappings(base, over, route)
    if isinstance(base, Seq) and isinstance(over, Seq):
        if route == ("networks", "*", "ipam", "config"):
            return _pools(base, over)
        for index, item in enumerate(over):
            base.add(item, over.at[index])
        return base
    if route[2:3] != ("ulimits",) and _form(base) != _form(over):
        raise invalid(f"{'.'.join(route)} cannot be merged: it has another form in an earlier file", (), None)
    return over


def _form(value: Any) -> str:
    return "mapping" if isinstance(value, Map) else "list" if isinstance(value, Seq) else "scalar"


def _mappings(base: Map, over: Map, route: Route) -> Map:
    for key, item in over.items():
        if item is RESET:
            base.drop(key)
        elif key not in base or key.startswith("x-"):
            base.put(key, item, over.at.get(key))
        else:
            step = "*" if len(route) == 1 and route[0] in _NAMED else key
            before = base[key]
            base[key] = merged(before, item, (*route, step))
            # a mapping that is merged keeps its first place; its keys have their own
            if base[key] is not before and key in over.at:
                base.at[key] = over.at[key]
    return base


def _other_driver(base: Map, over: Map, route: Route) -> bool:
    """Options of a log driver mean nothing to another."""
    if route != ("services", "*", "logging"):
        return False
    return "driver" in base and "driver" in over and base["driver"] != over["driver"]


def _pools(base: Seq, over: Seq) -> Seq:
    for index, pool in enumerate(over):
        same = [known for known in base if isinstance(pool, Map) and known.get("subnet") == pool.get("subnet")]
        if same:
            _mappings(same[0], pool, ("networks", "*", "ipam", "config", "*"))
        else:
            base.add(pool, over.at[index])
    return base


def _itself(item: Any) -> Hashable:
    return str(item)


def _by(*keys: str) -> Callable[[Any], Hashable]:
    return lambda item: tuple(str(item.get(key)) for key in keys)


_PORT: Final = _by("host_ip", "published", "target", "protocol", "mode", "name", "app_protocol")
_UNIQUE: Final[Mapping[str, Callable[[Any], Hashable]]] = {
    "volumes": _by("target"),
    "devices": _by("target"),
    "env_file": _by("path"),
    "secrets": _by("target"),
    "configs": lambda item: item.get("target") or "/" + item["source"],
    "ports": _PORT,
    **dict.fromkeys(
        ("cap_add", "cap_drop", "dns", "dns_opt", "dns_search", "expose", "extra_hosts", "external_links", "group_add",
         "label_file", "links", "profiles", "security_opt", "tmpfs", "volumes_from", "device_cgroup_rules"),
        _itself,
    ),
}  # fmt: skip


def unified(service: Map) -> None:
    """Drop what a later item of the same list replaces: a second mount of one target, a name given twice."""
    for key, index in _UNIQUE.items():
        items = service.get(key)
        if isinstance(items, Seq) and len(items) > 1:
            service[key] = _unique(items, index)
    build = service.get("build")
    for owner, key in ((build, "tags"), (build, "platforms"), (build, "extra_hosts")):
        if isinstance(owner, Map) and isinstance(owner.get(key), Seq):
            owner[key] = _unique(owner[key], _itself)
    networks = service.get("networks")
    for network in networks.values() if isinstance(networks, Map) else ():
        if isinstance(network, Map) and isinstance(network.get("aliases"), Seq):
            network["aliases"] = _unique(network["aliases"], _itself)


def _unique(items: Seq, index: Callable[[Any], Hashable]) -> Seq:
    result = Seq()
    places: dict[Hashable, int] = {}
    for number, item in enumerate(items):
        key = index(item)
        if key in places:
            result[places[key]] = item
            result.at[places[key]] = items.at[number]
        else:
            places[key] = len(result)
            result.add(item, items.at[number])
    return result


def settled(value: Any) -> Any:
    """`value` without the tags that had nothing to replace or to take away."""
    if isinstance(value, Override):
        return settled(value.value)
    if isinstance(value, Map):
        for key in [key for key, item in value.items() if item is RESET]:
            value.drop(key)
        for key, item in value.items():
            value[key] = settled(item)
    elif isinstance(value, Seq):
        kept = [(settled(item), at) for item, at in zip(value, value.at, strict=True) if item is not RESET]
        value.clear()
        value.at.clear()
        for item, at in kept:
            value.add(item, at)
    return value
