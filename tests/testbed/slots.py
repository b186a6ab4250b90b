"""Numbered places for engines, so that test runs on one machine do not meet.

An engine makes things with machine-wide names: bridges, subnets, folders, sockets. Each engine takes the first free
slot, which decides all of these; the slot is held by a lock that dies with its holder, so the next one to take it knows
that whatever it finds there is left over from a killed run.
"""

import fcntl
import os
from ipaddress import IPv4Network
from pathlib import Path

SLOTS = 16
_FIRST_PORT = {"podman": 20000, "docker": 21000}
PORTS = 50
"""How many ports of this machine are a slot's."""
_FIRST_NET = {"podman": 160, "docker": 180}  # 10.160.0.0/16 and up: far from what engines pick by themselves


class Slot:
    """A slot of a kind, ours until `release` or until this process ends."""

    def __init__(self, kind: str) -> None:
        # fixed and short: a unix socket's path ends at 107 characters
        self.home = Path(f"/tmp/sbt-{os.geteuid()}")
        self.home.mkdir(mode=0o700, exist_ok=True)
        if self.home.stat().st_uid != os.geteuid():
            raise RuntimeError(f"{self.home} belongs to somebody else")
        for number in range(SLOTS):
            descriptor = os.open(self.home / f"{kind}{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            self._descriptor: int | None = descriptor
            self.first_port = _FIRST_PORT[kind] + number * PORTS
            self.kind, self.number = kind, number
            self.root = self.home / f"{kind}{number}"
            self.net = IPv4Network((f"10.{_FIRST_NET[kind] + number}.0.0", 16))
            return
        raise RuntimeError(f"all {SLOTS} {kind} slots in {self.home} are taken")

    def release(self) -> None:
        """Let the next one have it. Twice is once."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
