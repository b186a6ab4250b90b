"""Check networks, volumes and published ports of the whole project."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader import Path
from sandboxer.extensions.compose_ssh.policy.checks import bytes_of, flag_of, plain, wrong
from sandboxer.extensions.compose_ssh.policy.gate import LEFT_OUT, Gate
from sandboxer.extensions.compose_ssh.policy.names import address_of
from sandboxer.extensions.compose_ssh.policy.services import TMPFS_MAX

LOOPBACK: Final = "127.0.0.1"
MAX_PORTS: Final = 1000
"""Ports of one service: each becomes a proxy or a rule of the engine."""
POOLS: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("172.18.0.0/15", "172.20.0.0/14", "172.24.0.0/14", "172.28.0.0/15", "172.30.0.0/16", "fd00::/8")
)
"""Where engines put networks themselves; 172.31 is a large cloud's default network, the rest other people's LANs."""
_OPTIONS: Final = {
    "com.docker.network.bridge.enable_icc": r"true|false",
    "com.docker.network.bridge.enable_ip_masquerade": r"true|false",
    "com.docker.network.driver.mtu": r"[1-9]\d{2,3}",
    "mtu": r"[1-9]\d{2,3}",
}


def network_options(gate: Gate, path: Path, value: Any) -> Any:
    """Options of a network's driver."""
    if not isinstance(value, dict):
        return wrong(gate, path, "a mapping")
    for name, item in value.items():
        if name not in _OPTIONS:
            gate.refuse((*path, name), "an interface or an address of the host")
        elif not re.fullmatch(_OPTIONS[name], plain(item) or ""):
            wrong(gate, (*path, name), "a value of this option")
    return value


def driver(gate: Gate, path: Path, value: Any) -> Any:
    """The driver of a network."""
    if value in ("bridge", "", "default"):
        return "bridge" if value == "bridge" else LEFT_OUT
    if value == "host":
        return value if gate.granted(path, "the network of the host", "network:host") else LEFT_OUT
    return gate.refuse(path, "an interface of the host, or a network beyond it")


def subnet(gate: Gate, path: Path, value: Any) -> Any:
    """The addresses of a network: the host sends all its traffic to them there."""
    try:
        found = ipaddress.ip_network(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None:
        return wrong(gate, path, "a subnet such as 172.28.0.0/16")
    inside = any(found.version == pool.version and found.subnet_of(pool) for pool in POOLS)  # type: ignore[arg-type]
    if not inside or found.prefixlen < (16 if found.version == 4 else 48):
        return gate.refuse(
            path, "traffic of the host to those addresses: it may be a /16 or less of 172.18-172.30, or of fd00::/8"
        )
    return value


def aux_addresses(gate: Gate, path: Path, value: Any) -> Any:
    """Addresses that the engine keeps free."""
    if isinstance(value, dict) and all(
        re.fullmatch(r"[0-9A-Fa-f.:]{2,45}", plain(item) or "") for item in value.values()
    ):
        return value
    return wrong(gate, path, "a mapping of addresses")


def volume_options(gate: Gate, path: Path, value: Any) -> Any:
    """Options of a volume: what the engine would hand to mount(2)."""
    if value in (None, {}):
        return LEFT_OUT
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return wrong(gate, path, "a mapping")
    kind, options, source = (plain(value.get(key, "")) or "" for key in ("type", "o", "device"))
    parts = {part for part in options.split(",") if part}
    if set(value) <= {"type", "o", "device"} and kind == "tmpfs" and source in ("tmpfs", "none", ""):
        sizes = [bytes_of(part.removeprefix("size=")) for part in parts if part.startswith("size=")]
        rest = [part for part in parts if not re.fullmatch(r"(size|uid|gid|mode)=\w{1,15}|noexec|nosuid|nodev", part)]
        if rest or len(sizes) != 1 or sizes[0] is None or not 0 < sizes[0] <= TMPFS_MAX:
            return gate.refuse((*path, "o"), f"the memory of the host: give one size, up to {TMPFS_MAX >> 20} MiB")
        return value
    bound = set(value) <= {"type", "o", "device"} and kind in ("none", "bind", "") and {"bind", "rbind"} & parts
    if bound and parts <= {"bind", "rbind", "ro", "rw"} and re.fullmatch(r"/[^:,\x00-\x1f\x7f]*", source):
        return value  # paths.py judges where it leads
    return gate.refuse(path, "a file system that the host mounts for it")


def external(gate: Gate, path: Path, value: Any) -> Any:
    """A network or volume that exists already. `path` ends with its section, name, and `external`."""
    found = flag_of(value)
    if found is None:
        return wrong(gate, path, "true or false")
    if not found:
        return LEFT_OUT
    section, key = str(path[0]), str(path[1])
    name = plain(gate.project.document[section][key].get("name")) or key
    kind = section.removesuffix("s")
    gives = f"the host's {kind} {name}, which was not made for this sandbox"
    if kind in ("network", "volume"):
        return True if gate.granted(path, gives, f"{kind}:{name}") else LEFT_OUT
    return gate.refuse(path, gives)


def publish(gate: Gate, document: dict[str, Any]) -> None:
    """Put each port of each service at its address: on the loopback of the host, unless the operator grants more."""
    public = gate.grants.has("port:public")
    for name, service in document.get("services", {}).items():
        total = 0
        for index, port in enumerate(service.get("ports") or []):
            path = ("services", name, "ports", index)
            low, high = _range(port.get("target"))
            first, last = _range(port.get("published") or "0")
            if not 0 < low <= high < 65536 or not 0 <= first <= last < 65536 or high - low > last - first > 0:
                wrong(gate, path, "a port from 1 to 65535, or a range")
                continue
            port.pop("mode", None)  # outside of a swarm both mean the same, and older programs know one
            total += max(high - low, last - first) + 1
            _place(gate, path, name, port, public=public)
        if total > MAX_PORTS:
            gate.refuse(("services", name, "ports"), f"ports of the host: at most {MAX_PORTS} of a service")


def _range(value: Any) -> tuple[int, int]:
    first, _, last = (plain(value) or "-1").partition("-")
    if not first.isdigit() or (last and not last.isdigit()):
        return -1, -1
    return int(first[:6]), int((last or first)[:6])


def _place(gate: Gate, path: tuple[str | int, ...], service: str, port: dict[str, Any], *, public: bool) -> None:
    given = (plain(port.get("host_ip")) or "").strip("[]")
    found = address_of(given) if given else None
    if given and found is None:
        wrong(gate, (*path, "host_ip"), "an address")
    elif found is not None and found.is_loopback:
        port["host_ip"] = given
    elif not public:
        port["host_ip"] = LOOPBACK
        shown = plain(port.get("published")) or plain(port.get("target"))
        gate.port_notes[
            f"port {shown} of {service} is published on {LOOPBACK} alone, not on {given or 'all'} (grant: port:public)"
        ] = None
