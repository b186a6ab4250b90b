"""How many networks a container engine of a host has, and how many its address pools give (docs/host-telemetry.md): a
stack takes one at least, and an engine whose pool is used up starts no more."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

import msgspec

from sandboxer import document_bounds
from sandboxer.hosts.base import Host
from sandboxer.models import Value
from sandboxer.telemetry import sections
from sandboxer.timing import Deadline

DOCKER_DEFAULT: Final = 31
"""What docker's own pools give where its settings name none: 15 of 172.16.0.0/12, and 16 of 192.168.0.0/16."""
_LIMIT: Final = 1024 * 1024
_SCRIPT: Final = r"""
command -v timeout >/dev/null || timeout() { shift; "$@"; }
for sbx_engine in docker podman; do
  command -v $sbx_engine >/dev/null || continue
  sbx_networks=$(timeout 5 $sbx_engine network ls --format '{{.Driver}}' 2>/dev/null </dev/null) || continue
  printf '@%s\n%s\n' $sbx_engine "$sbx_networks"
done
echo "@dockerpools"
command -v docker >/dev/null && timeout 5 docker info --format '{{json .DefaultAddressPools}}' 2>/dev/null </dev/null
exit 0
"""


class NetworkPool(Value, frozen=True, kw_only=True):
    """An engine's bridges, and how many its pools give in all; None where it does not tell."""

    engine: str
    networks: int
    most: int | None


def network_pools(host: Host, deadline: Deadline) -> list[NetworkPool]:
    """The pools of the engines that answer. One round trip; raises what `Host.run` raises."""
    return pools_in(host.run(["sh", "-c", _SCRIPT, "sandboxer-networks"], deadline, limit=_LIMIT).text)


def pools_in(text: str) -> list[NetworkPool]:
    """The pools in the script's answer. Never raises."""
    parts = sections(text)
    most = {"docker": _most("".join(parts.get("dockerpools", [])))}
    return [
        NetworkPool(engine=engine, networks=drivers.count("bridge"), most=most.get(engine))
        for engine, drivers in parts.items()
        if engine in ("docker", "podman")
    ]


def _most(text: str) -> int | None:
    try:
        pools: Any = document_bounds.decode(text, bounds=document_bounds.SMALL)
        return DOCKER_DEFAULT if pools is None else sum(_gives(pool) for pool in pools)
    except (msgspec.DecodeError, ValueError, KeyError, TypeError):
        return None


def _gives(pool: Any) -> int:
    network, size = ipaddress.ip_network(pool["Base"], strict=False), int(pool["Size"])
    if network.version != 4:
        return 0
    return 1 << min(32, max(0, size - network.prefixlen))
