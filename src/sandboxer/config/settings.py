"""config.yaml with the environment laid over it. Precedence: flag, environment, config.yaml, default (contract §2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from sandboxer.config.document import load
from sandboxer.errors import Invalid
from sandboxer.models import HostSettings, Settings
from sandboxer.names import parse_actor
from sandboxer.timing import parse_duration

LOCAL = "local"
"""The name of this machine as a placement host."""


def load_settings(directory: Path, environment: Mapping[str, str]) -> Settings:
    """What config.yaml in `directory` says, the environment over it. Raises Invalid."""
    file = directory / "config.yaml"
    settings = load(file, Settings) if file.exists() else Settings()
    settings = _with_environment(settings, environment)
    _check(settings)
    return settings


def _with_environment(settings: Settings, environment: Mapping[str, str]) -> Settings:
    replace = msgspec.structs.replace
    get = environment.get
    if url := get("SANDBOXER_STATE_HUB_URL"):
        settings = replace(settings, state_hub=replace(settings.state_hub, url=url))
    if url := get("SANDBOXER_FIN_HUB_URL"):
        settings = replace(settings, fin_hub=replace(settings.fin_hub, url=url))
    if token := get("SANDBOXER_API_TOKEN"):
        settings = replace(settings, api=replace(settings.api, token=token))
    if actor := get("SANDBOXER_ACTOR"):
        settings = replace(settings, defaults=replace(settings.defaults, actor=actor))
    return settings


def _check(settings: Settings) -> None:
    for name, host in settings.hosts.items():
        if not name or name.startswith("-") or any(c.isspace() for c in name):
            raise Invalid(f"config.yaml: {name!r} is not a host's name", hint="use letters, digits, '.', '-' and '_'")
        if host.work_dir is not None and not host.work_dir.startswith(("/", "~/")):
            raise Invalid(
                f"config.yaml: hosts.{name}.work_dir {host.work_dir!r} is not absolute",
                hint="start it with / or ~/",
            )
        if host.port is not None and not 0 < host.port < 65536:
            raise Invalid(f"config.yaml: hosts.{name}.port {host.port} is not a port", hint="use 1 to 65535")
    if settings.defaults.actor is not None:
        parse_actor(settings.defaults.actor)
    if settings.defaults.ttl is not None:
        parse_duration(settings.defaults.ttl, what="defaults.ttl")


def host_settings(settings: Settings, name: str, environment: Mapping[str, str]) -> HostSettings:
    """The settings of one placement host; a host that is not configured has all defaults."""
    host = settings.hosts.get(name) or HostSettings()
    if compose := environment.get("SANDBOXER_COMPOSE_CMD"):
        host = msgspec.structs.replace(host, compose=compose)
    return host
