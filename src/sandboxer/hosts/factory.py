"""From a placement's name and settings to a host."""

from __future__ import annotations

from pathlib import Path

from sandboxer.hosts.base import Host
from sandboxer.models import HostSettings

LOCAL = "local"


def open_host(name: str, settings: HostSettings | None = None, *, ssh_config: Path | None = None) -> Host:
    """The host of that name, not yet connected: this machine for `local` (also as `address`), else by SSH, where a
    name without settings is what ~/.ssh/config knows, or `user@host:port`. Raises Invalid for a malformed name.
    `ssh_config` stands in for ~/.ssh/config."""
    chosen = settings or HostSettings()
    if (chosen.address or name) == LOCAL:
        from sandboxer.hosts.local import LocalHost

        return LocalHost(name, chosen)
    from sandboxer.hosts.ssh.host import SshHost

    return SshHost(name, chosen, ssh_config=ssh_config)
