"""Parse what a container engine shows of a stack, and tell whether it is ready.

Pure; docker and podman answer in nearly one shape."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from sandboxer import document_bounds
from sandboxer.errors import BackendError
from sandboxer.models import Service

Item = Mapping[str, Any]
PROJECT_LABEL: Final = "com.docker.compose.project"
SERVICE_LABEL: Final = "com.docker.compose.service"
_NEVER_STARTED: Final = frozenset({"created", "configured", "initialized"})
KERNELS_OWN: Final = ("/dev", "/proc", "/sys")
"""Mounts of every container that no engine's `cp` sees."""
_ENDED: Final = frozenset({"exited", "stopped", "dead"})


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a declared health check. `interval` and `start_period` are in seconds."""

    status: str
    log: str
    interval: float
    start_period: float
    timeout: float
    retries: int


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """One container. `age` is seconds since its last start by the host's clock. `restart` is its restart policy's name,
    and `most_restarts` how many restarts that allows, 0 for any number. `mounts` are kinds by their places. `pid` is
    its first process by the host's number, 0 when it does not run."""

    id: str
    name: str
    service: str
    number: int
    status: str
    exit_code: int
    age: float
    restarts: int
    restart: str
    most_restarts: int
    error: str
    health: HealthCheck | None
    ports: tuple[Service, ...]
    working_dir: str
    image: str
    podman: bool
    mounts: Mapping[str, str]
    pid: int

    @property
    def running(self) -> bool:
        """Whether a command can be run in it."""
        return self.status == "running"

    def out_of_reach(self, path: str) -> str | None:
        """The mount that `path` lies on where `cp` reaches what is below the mount instead: nothing that the container
        sees. `path` is absolute and without links."""
        places = [mount for mount in self.mounts if path == mount or path.startswith(f"{mount}/")]
        place = max(places, key=len, default=None)
        if place is None or self.mounts[place] not in ("tmpfs", "kernel"):
            return None
        # podman's `cp` enters a container that runs, and sees what is mounted there
        return None if self.podman and self.running and self.mounts[place] == "tmpfs" else place

    @property
    def comes_back(self) -> bool:
        """Whether the engine starts it again, now that it has ended."""
        if self.restart == "on-failure":
            return bool(self.exit_code) and not 0 < self.most_restarts <= self.restarts
        return self.restart in ("always", "unless-stopped")


class StackReady(msgspec.Struct, frozen=True):
    """Everything is up."""


class StackPending(msgspec.Struct, frozen=True):
    """Not yet: look again in `seconds`. `what` says what is missing, for the message of a time-out."""

    seconds: float
    what: str


class StackFailed(msgspec.Struct, frozen=True):
    """It will not come up. `container` is the one to blame, if there is one."""

    reason: str
    container: Container | None = None


Verdict = StackReady | StackPending | StackFailed


def parse_containers(output: str) -> list[Container]:
    """The answer of the `look` script: the host's time on the first line, then what `inspect` says.

    Raises BackendError when it is not that: an answer that is cut off must never read as "nothing is there"."""
    first, _, rest = output.partition("\n")
    try:
        seconds, _, fraction = first.partition(".")
        now = float(f"{seconds}.{fraction if fraction.isdigit() else 0}")
        found = document_bounds.decode(rest)
        containers = [_container(item, now) for item in found]
    except (msgspec.DecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackendError(
            f"the container engine's answer makes no sense: {output[:200]!r}",
            hint="run the engine's `ps -a` on the host",
            outcome="unknown",
        ) from error
    return sorted(containers, key=lambda c: (c.service, c.number, c.name))


def _container(item: Mapping[str, Any], now: float) -> Container:
    state, config = item["State"], item["Config"]
    labels = config.get("Labels") or {}
    service = str(labels.get(SERVICE_LABEL, ""))
    number = str(labels.get("com.docker.compose.container-number", "1"))
    policy = (item.get("HostConfig") or {}).get("RestartPolicy") or {}
    return Container(
        id=str(item["Id"]),
        name=str(item.get("Name", "")).lstrip("/"),
        service=service,
        number=int(number) if number.isdigit() else 1,
        status=str(state["Status"]).lower(),
        exit_code=int(state.get("ExitCode") or 0),
        age=max(0.0, now - parse_instant(str(state.get("StartedAt") or ""))),
        restarts=int(item.get("RestartCount") or 0),
        restart=str(policy.get("Name") or ""),
        most_restarts=int(policy.get("MaximumRetryCount") or 0),
        error=str(state.get("Error") or ""),
        health=_health(state.get("Health") or state.get("Healthcheck"), config.get("Healthcheck")),
        ports=tuple(_ports(service, (item.get("NetworkSettings") or {}).get("Ports") or {})),
        working_dir=str(config.get("WorkingDir") or "/"),
        image=str(item.get("Image", "")),
        podman="ConmonPidFile" in item or "OCIRuntime" in item,
        mounts=_mounts(item),
        pid=int(state.get("Pid") or 0),
    )


def _mounts(item: Mapping[str, Any]) -> dict[str, str]:
    found = dict.fromkeys(KERNELS_OWN, "kernel")
    found |= dict.fromkeys((item.get("HostConfig") or {}).get("Tmpfs") or (), "tmpfs")
    found |= {str(mount["Destination"]): str(mount.get("Type")) for mount in item.get("Mounts") or ()}
    return {posixpath.normpath(path): kind for path, kind in found.items()}


def _health(state: Any, declared: Any) -> HealthCheck | None:
    test = declared.get("Test") if isinstance(declared, dict) else None
    if not isinstance(test, list) or not test or test[0] == "NONE":
        return None
    state = state if isinstance(state, dict) else {}
    outputs = [str(entry.get("Output", "")).strip() for entry in state.get("Log") or () if isinstance(entry, dict)]
    return HealthCheck(
        status=str(state.get("Status") or "starting").lower(),
        log="\n".join(output for output in outputs[-3:] if output)[-1000:],
        interval=_seconds(declared.get("Interval"), 30.0),
        start_period=_seconds(declared.get("StartPeriod"), 0.0),
        timeout=_seconds(declared.get("Timeout"), 30.0),
        retries=int(declared.get("Retries") or 3),
    )


def _seconds(nanoseconds: Any, default: float) -> float:
    return nanoseconds / 1e9 if isinstance(nanoseconds, int | float) and nanoseconds > 0 else default


def parse_instant(text: str) -> float:
    """An engine's time stamp (RFC 3339, nanoseconds) as unix seconds; 0.0 for none. Raises ValueError."""
    if not text or text.startswith("0001-"):
        return 0.0
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(\.\d+)? ?(Z|[+-]\d\d:?\d\d)(?: \w+)?", text)
    if match is None:
        raise ValueError(text)
    zone = "+00:00" if match[3] == "Z" else match[3]
    return datetime.fromisoformat(match[1].replace(" ", "T") + zone).timestamp() + float(match[2] or 0)


def _ports(service: str, ports: Mapping[str, Any]) -> list[Service]:
    found: dict[tuple[int, str, int], Service] = {}
    for key, bindings in ports.items():
        inner, _, protocol = str(key).partition("/")
        for binding in bindings or ():
            host, outer = str(binding.get("HostIp") or "0.0.0.0"), int(binding["HostPort"])  # noqa: S104
            address = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104
            shown = f"[{address}]" if ":" in address else address
            scheme = "http" if protocol in ("", "tcp") else protocol
            url = f"{scheme}://{shown}:{outer}"
            entry = Service(name=service, container_port=int(inner), host=address, port=outer, url=url)
            found.setdefault((int(inner), protocol, outer), entry)
    return [found[key] for key in sorted(found)]


def readiness(
    containers: Sequence[Container], required: Mapping[str, int], *, settle: float, looked_for: float
) -> Verdict:
    """Is the stack up? `looked_for` is how many seconds it has been looked at since `up` returned."""
    for container in containers:
        reason = _broken(container, looked_for)
        if reason:
            return StackFailed(f"service {container.service!r} {reason}", container)
    for service, count in required.items():
        present = sum(1 for container in containers if container.service == service)
        if present < count:
            if looked_for > 1.0:
                return StackFailed(f"service {service!r} has {present} of {count} containers")
            return StackPending(0.5, f"service {service!r} has {present} of {count} containers")
    waits = [wait for wait in (_wait(container, settle) for container in containers) if wait]
    return max(waits, key=lambda wait: wait.seconds) if waits else StackReady()


def _broken(container: Container, looked_for: float) -> str | None:
    if container.status in _ENDED and container.exit_code and not container.comes_back:
        return f"ended with exit code {container.exit_code}"
    if container.status == "dead":
        return "could not be removed by the engine and is dead"
    if container.status in _NEVER_STARTED and (container.error or looked_for > 1.0):
        return f"was never started: {container.error or 'the engine gives no reason'}"
    health = container.health
    if container.running and health and health.status == "unhealthy":
        # without systemd it is we who run podman's checks, and more often than declared: give what was declared
        if container.podman and container.age < health.start_period + health.interval * health.retries:
            return None
        return "is unhealthy"
    return None


def _wait(container: Container, settle: float) -> StackPending | None:
    if container.status in _ENDED and not container.comes_back:
        return None
    if crashing(container, settle):
        return StackPending(
            0.5, f"service {container.service!r} has ended {container.restarts or 1} times, and starts again"
        )
    if not container.running:
        return StackPending(0.5, f"service {container.service!r} is {container.status}")
    if container.health and container.health.status != "healthy":
        return StackPending(0.4, f"the health check of service {container.service!r} says {container.health.status}")
    if container.age < settle:
        return StackPending(max(0.05, settle - container.age), f"service {container.service!r} has just started")
    return None


def crashing(container: Container, settle: float) -> bool:
    """Whether it ends again and again, and is started again by its restart policy: it may come up yet."""
    if container.running:
        return container.restarts > 0 and container.age < settle
    return container.status == "restarting" or (container.status in _ENDED and container.comes_back)


def unchecked(containers: Sequence[Container]) -> list[Container]:
    """Containers whose health check must be run by us: podman runs them only where there is systemd."""
    return [c for c in containers if c.podman and c.running and c.health and c.health.status != "healthy"]


def published_services(containers: Sequence[Container]) -> list[Service]:
    """One entry for each published port."""
    return [port for container in containers for port in container.ports]


class StackInspection(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine shows of a stack: `inspect` of its containers, of their volumes and networks (by name), its own
    `info`, and where the sources of bind mounts really lead."""

    containers: Sequence[Item]
    volumes: Mapping[str, Item] = {}
    networks: Mapping[str, Item] = {}
    info: Item = {}
    real: Mapping[str, str] = {}


def parse_inspection(text: str) -> StackInspection:
    """The answer of the `describe` script. Raises BackendError when it is cut off or no such answer."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.split("\n"):
        if line.startswith("== "):
            current = sections.setdefault(line[3:], [])
        else:
            current.append(line)
    try:
        if "end" not in sections:
            raise ValueError
        found = {name: json.loads("\n".join(sections[name])) for name in ("containers", "volumes", "networks", "info")}
        paths = sections["paths"]
        return StackInspection(
            containers=found["containers"],
            volumes={str(item["Name"]): item for item in found["volumes"]},
            networks={str(item.get("Name") or item["name"]): item for item in found["networks"]},
            info=found["info"],
            real=dict(zip(paths[::2], paths[1::2], strict=False)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackendError(
            f"what the container engine shows of the stack makes no sense: {text[:200]!r}",
            hint="run the engine's `inspect` on the host",
            outcome="unknown",
        ) from error
