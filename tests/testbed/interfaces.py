"""Network interfaces of this machine by address."""

import json
import subprocess
from ipaddress import IPv4Address, IPv4Network
from typing import Any


def addresses(*, namespace: str | None = None) -> dict[str, list[IPv4Address]]:
    """IPv4 addresses by interface, here or in a network namespace given by its path."""
    prefix = [] if namespace is None else ["nsenter", f"--net={namespace}"]
    done = subprocess.run([*prefix, "ip", "-j", "-4", "addr"], capture_output=True, text=True, check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return {link["ifname"]: [IPv4Address(a["local"]) for a in link["addr_info"]] for link in found if link}


def within(net: IPv4Network) -> list[str]:
    """The interfaces that have an address in `net`."""
    return sorted(name for name, theirs in addresses().items() if any(address in net for address in theirs))


def add_bridge(name: str, address: str) -> None:
    """A bridge that is up, with this address."""
    for words in (("add", name, "type", "bridge"), ("set", name, "up")):
        subprocess.run(["ip", "link", *words], check=True)
    subprocess.run(["ip", "addr", "add", address, "dev", name], check=True)


def delete(net: IPv4Network) -> None:
    """Remove the interfaces with an address in `net`."""
    for name in within(net):
        subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)
