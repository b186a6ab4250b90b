"""Refuse what docker compose refuses although each value is right: keys that contradict, circles, slips."""

from __future__ import annotations

from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader.nodes import Map, invalid
from sandboxer.extensions.compose_ssh.loader.schema import ValueContext
from sandboxer.extensions.compose_ssh.loader.schema_service import SERVICE

_MAY_BE_NULL: Final = frozenset({"command", "entrypoint", "deploy", "develop"})
_OPEN: Final = frozenset({"environment", "args", "networks", "ssh"})
"""Mappings of names to values that may be null."""


def check_nulls(value: Map, spot: ValueContext, *, top: bool = True) -> None:
    """Raise Invalid for a key of the specification with nothing behind it: a slip, and of another meaning elsewhere."""
    for key, item in value.items():
        if key.startswith("x-") or (top and key not in SERVICE):
            continue
        here = spot.key(value, key)
        if item is None and not (top and key in _MAY_BE_NULL):
            raise here.bad("is empty: give it a value, or take the line out")
        if isinstance(item, Map) and key not in _OPEN:
            check_nulls(item, here, top=False)


_TWICE: Final = (
    ("mem_limit", ("limits", "memory")),
    ("cpus", ("limits", "cpus")),
    ("pids_limit", ("limits", "pids")),
    ("mem_reservation", ("reservations", "memory")),
)
"""Keys of a service, and where `deploy.resources` says the same."""


def check_pairs(service: Map, spot: ValueContext) -> None:
    """Raise Invalid for two keys of a service that contradict each other."""
    if service.get("network_mode") and service.get("networks"):
        raise spot.bad("has both `network_mode` and `networks`")
    deploy = service.get("deploy")
    deploy = deploy if isinstance(deploy, Map) else Map()
    for key, (section, name) in _TWICE:
        value: Any = service.get(key)
        resources = deploy.get("resources")
        limits = resources.get(section) if isinstance(resources, Map) else None
        if value not in (None, 0, "0") and isinstance(limits, Map) and limits.get(name) != value:
            raise spot.key(service, key).bad(f"is not what `deploy.resources.{section}.{name}` says")
    scale, replicas = service.get("scale"), deploy.get("replicas")
    if scale is not None and replicas is not None and scale != replicas:
        raise spot.key(service, "scale").bad("is not what `deploy.replicas` says")
    count = replicas if scale is None else scale
    if service.get("container_name") and count is not None and count > 1:
        raise spot.key(service, "container_name").bad(f"cannot be the name of {count} containers")


def check_cycles(services: Map) -> None:
    """Raise Invalid if a service waits for itself: nothing would ever start."""
    pending = {name: set(service.get("depends_on") or ()) for name, service in services.items()}
    users: dict[str, list[str]] = {}
    for name, needs in pending.items():
        for need in needs:
            users.setdefault(need, []).append(name)
    free = [name for name, needs in pending.items() if not needs]
    while free:
        name = free.pop()
        del pending[name]
        for user in users.get(name, ()):
            pending[user].discard(name)
            if not pending[user]:
                free.append(user)
    if pending:
        name = min(pending)
        raise invalid("depends on itself, by way of others", ("services", name, "depends_on"), services.at.get(name))
