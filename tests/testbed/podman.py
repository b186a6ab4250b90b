"""A private podman."""

import fcntl
import json
import os
from ipaddress import IPv4Network
from pathlib import Path

from . import firewall, interfaces, mounts
from .components import have
from .engine import Engine, Resources, lines


class Podman(Engine):
    """Podman with settings of our own; it needs no daemon. Its front end is podman-compose, by its path."""

    kind = "podman"
    program = "podman"
    # Podman calls its bridges podman1, podman2, ... : the first name that is neither in its own settings nor up. A
    # network of another slot may be in that one's settings only, so each slot has the names of slots before as taken.
    bridges = 24
    reserved = "testbed-reserved-"

    def _start(self) -> None:
        self._users = os.open(self._slot.home / "netavark.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._users, fcntl.LOCK_SH)
        networks = self.root / "networks"
        networks.mkdir()
        self._reserve(networks)
        pool, default = next(self.net.subnets(new_prefix=17)), IPv4Network(f"{self.net[-256]}/24")
        (self.root / "containers.conf").write_text(
            f"""\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
# the default, shared memory, is one set of locks for all podmans of the machine, and a new one frees them all
lock_type = "file"
tmp_dir = "{self.root}/tmp"
image_copy_tmp_dir = "{self.root}/tmp"
[network]
network_backend = "netavark"
network_config_dir = "{networks}"
default_subnet = "{default}"
default_subnet_pools = [{{"base" = "{pool}", "size" = 24}}]
"""
        )
        driver = "overlay" if self._overlay_works() else "vfs"
        storage = f'[storage]\ndriver = "{driver}"\ngraphroot = "{self.root}/storage"\nrunroot = "{self.root}/run"\n'
        (self.root / "storage.conf").write_text(storage)
        # nothing is pulled, and failing to takes no time
        registries = ("docker.io", "quay.io", "ghcr.io")
        blocked = "".join(f'[[registry]]\nlocation = "{name}"\nblocked = true\n' for name in registries)
        (self.root / "registries.conf").write_text(f"unqualified-search-registries = []\n{blocked}")
        self.env |= self._settings()
        podman = have("podman")
        assert podman
        self._link("podman", podman)
        if front := have("podman-compose"):
            self.compose = (self._link("podman-compose", front),)
        self.run("podman", "info")  # makes the storage: two first commands at once would race

    def _reserve(self, networks: Path) -> None:
        for number in range(1, self._slot.number * self.bridges + 1):
            name = f"{self.reserved}{number}"
            settings = {
                "name": name,
                "id": f"{number:064x}",
                "driver": "bridge",
                "network_interface": f"podman{number}",
                "created": "2020-01-01T00:00:00Z",
                "internal": True,
                "ipv6_enabled": False,
                "dns_enabled": False,
                "ipam_options": {"driver": "none"},
            }
            (networks / f"{name}.json").write_text(json.dumps(settings))

    def _settings(self) -> dict[str, str]:
        return {
            "CONTAINERS_CONF": str(self.root / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.root / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.root / "registries.conf"),
        }

    def _stop(self) -> None:
        # in good order also for a run that was killed: some of what podman keeps is in places that all podmans share
        if (self.root / "registries.conf").exists():
            self.env |= self._settings()
            self.run("podman", "pod", "rm", "-a", "-f", "-t", "0", check=False)
            self.run("podman", "rm", "-a", "-f", "-t", "0", check=False)

    def _clear(self) -> None:
        abandoned = self.namespaces()  # to be known by their addresses, which go with the bridges
        super()._clear()
        for path in abandoned:
            mounts.detach_point(path)
            Path(path).unlink(missing_ok=True)
        users: int | None = getattr(self, "_users", None)
        if users is not None:
            try:  # the last to leave puts the light out
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                firewall.forget_skeleton()
            except BlockingIOError:
                pass
            os.close(users)
            del self._users

    def resources(self) -> Resources:
        """Containers (pods' own pause containers too), pods, networks and volumes of this podman."""
        networks = set(lines(self.run("podman", "network", "ls", "--format", "{{.Name}}")))
        return {
            "containers": set(lines(self.run("podman", "ps", "-a", "--format", "{{.Names}}"))),
            "pods": set(lines(self.run("podman", "pod", "ls", "--format", "{{.Name}}"))),
            "networks": {name for name in networks if name != "podman" and not name.startswith(self.reserved)},
            "volumes": set(lines(self.run("podman", "volume", "ls", "--format", "{{.Name}}"))),
        }

    def namespaces(self) -> set[str]:
        """All podmans keep theirs in one folder: ours are those with an address of ours."""
        mine = set[str]()
        for path in Path("/run/netns").glob("netns-*"):
            theirs = interfaces.addresses(namespace=str(path)).values()
            if any(address in self.net for found in theirs for address in found):
                mine.add(str(path))
        return mine
