"""A host as sandboxer knows it: an sshd whose sessions talk to an engine, and its entry for `config.yaml`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from .components import need
from .engines import Docker, Engine, Podman
from .sshd import Sshd

Kind = Literal["docker compose", "docker-compose", "podman-compose"]
KINDS: tuple[Kind, ...] = ("docker compose", "docker-compose", "podman-compose")


def engine_for(kind: Kind) -> type[Engine]:
    """The engine that a compose front end works with."""
    return Podman if kind == "podman-compose" else Docker


def need_kind(kind: Kind) -> None:
    """Skip (or, with CI=true, fail) unless the front end, its engine and sshd are here."""
    need("sshd", "rsync", kind)


class ComposeHost:
    """One host with one compose front end, on an engine that may serve several hosts.

    name      its name in `config.yaml`, and its alias in `sshd.ssh_config`
    compose   its front end's words on that host, also where the path has another program of that name
    work_dir  where sandboxes are made; empty
    config    the host's entry: `{"hosts": {host.name: host.config}}` is a `config.yaml`
    """

    def __init__(
        self,
        directory: Path,
        kind: Kind,
        engine: Engine,
        *,
        name: str = "alpha",
        set_env: Mapping[str, str] | None = None,
        user_ca: bool = False,
        host_ca: bool = False,
        wrong_host_key: bool = False,
        jump: Sshd | None = None,
        options: Sequence[str] = (),
    ) -> None:
        if not isinstance(engine, engine_for(kind)):
            raise TypeError(f"{kind} does not work with {engine.kind}")
        self.name, self.kind, self.engine = name, kind, engine
        self.compose = next(command for command in engine.compose if Path(command).name == kind)
        self.work_dir = directory / "work"
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self.sshd = Sshd(
            directory / "sshd",
            alias=name,
            set_env={**engine.env, **(set_env or {})},
            user_ca=user_ca,
            host_ca=host_ca,
            wrong_host_key=wrong_host_key,
            jump=jump,
            options=options,
        )

    @property
    def config(self) -> dict[str, object]:
        """Plain values, as YAML would give them. `env` is the engine's; sshd sets it as well, either is enough."""
        return {
            "address": self.sshd.host,
            "user": self.sshd.user,
            "port": self.sshd.port,
            "identity": str(self.sshd.identity),
            "known_hosts": str(self.sshd.known_hosts),
            "work_dir": str(self.work_dir),
            "compose": self.kind,
            "env": dict(self.engine.env),
        }

    def close(self) -> None:
        """End the sshd and its sessions; the engine goes on. Twice is once."""
        self.sshd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
