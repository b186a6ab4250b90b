"""Published ports: on the loopback of the host, unless the operator grants more. Pure."""

from __future__ import annotations

from typing import Any, Final

from sandboxer.extensions.compose_ssh.policy.checks import plain, wrong
from sandboxer.extensions.compose_ssh.policy.gate import Gate
from sandboxer.extensions.compose_ssh.policy.names import address_of

LOOPBACK: Final = "127.0.0.1"
MAX_PORTS: Final = 1000
"""Ports of one service: each becomes a proxy or a rule of the engine."""


def publish(gate: Gate, document: dict[str, Any]) -> None:
    """Put each port of each service at its address."""
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
