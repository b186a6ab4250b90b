"""Private container engines: podman and dockerd with their own storage, networks and names.

They live in the machine's own network namespace, because a test must be able to reach a port that a container publishes
on 127.0.0.1. What keeps them apart from each other and from the machine's own engines instead: a numbered slot decides
folder, subnets and bridge names (see slots.py), and dockerd runs without iptables, whose chains are one set for the
whole machine (a second dockerd removes the first one's): its userland proxy serves published ports, and no container
needs to get out.
"""

from .docker import Docker
from .engine import Engine, Resources
from .podman import Podman

__all__ = ["Docker", "Engine", "Podman", "Resources"]
