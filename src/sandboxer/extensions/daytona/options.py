"""Define the options of ext.daytona, and fit them to requirements."""

from __future__ import annotations

import math
import re
from ipaddress import ip_network
from typing import Final, Literal

import msgspec

from sandboxer.errors import NotConfigured, Unsupported
from sandboxer.models import Requirements, Resources, Written
from sandboxer.names import ENV_NAME

_IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,510}")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")
_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_GPU: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]{0,31})(?::([1-9][0-9]?))?")
GPUS: Final = ("H100", "H200", "B200", "B300", "RTX-PRO-6000", "RTX-4090", "RTX-5090", "MI355X")
"""Models that Daytona's client of 2026-11 (0.226.1) knows."""
MOST_GPUS: Final = 8
MAX_MINUTES: Final = 10 * 365 * 24 * 60

_WITH_GPU: Final = {"cpu": 256, "memory_gib": 2048, "disk_gib": 4096}
"""No machine is known that has more; what an organization may have beside a GPU is Daytona's to say."""

DEFAULT: Final = Resources(vcpu=1, memory_gib=1, disk_gib=3)
"""What Daytona allots where nothing is said (its page on sandboxes, as of 2026-11): an estimate, replaced by what the
sandbox shows once it is there."""


class SandboxSizeLimits(Written, frozen=True, kw_only=True):
    """The most that the organization lets one sandbox have (one with a GPU may have more). The defaults are Daytona's
    for an organization that has not asked for more (its page on sandboxes, as of 2026-11)."""

    cpu: int = 4
    memory_gib: int = 8
    disk_gib: int = 10


class DaytonaOptions(Written, frozen=True, kw_only=True):
    """Options of ext.daytona.

    image: a registry image, built by Daytona; snapshot: one of the organization's snapshots; neither is Daytona's
    default snapshot. cpu, memory_gib, disk_gib, gpu (`H100`, `H100:2`): what an image is allotted; with a snapshot they
    are not sent (Daytona takes the snapshot's own) but are what the estimate counts with. target: a region.
    env: variables of the sandbox; Daytona keeps them readable, so no secrets. user: whom commands run as.
    ports: told with their preview address in `reachability.services`; public: without Daytona's own login before them.
    network: `none` blocks everything outside; network_allow_list: only these ranges.
    auto_stop_minutes (0 never), auto_archive_minutes, auto_delete_minutes (0: as soon as it stops; negative: not before
    its TTL, so that one which somebody else stops keeps its files):
    Daytona's own timers, beside the TTL. queue_minutes: how long it may wait for capacity.
    ssh: tell in `reachability` how a login over SSH is had. largest: what may be asked for, checked before anything
    starts.
    """

    image: str | None = None
    snapshot: str | None = None
    cpu: int | None = None
    memory_gib: int | None = None
    disk_gib: int | None = None
    gpu: str | None = None
    target: str | None = None
    env: dict[str, str] = {}
    user: str | None = None
    ports: list[int] = []
    public: bool = False
    network: Literal["internet", "none"] = "internet"
    network_allow_list: list[str] = []
    auto_stop_minutes: int = 0
    auto_archive_minutes: int | None = None
    auto_delete_minutes: int = -1
    queue_minutes: int | None = None
    ssh: bool = False
    largest: SandboxSizeLimits = SandboxSizeLimits()

    def __post_init__(self) -> None:
        if self.image is not None and self.snapshot is not None:
            raise ValueError("`image` and `snapshot` exclude each other")
        if self.image is not None and not _IMAGE.fullmatch(self.image):
            raise ValueError(f"`image`: {self.image[:80]!r} is not the name of an image")
        for name, pattern in (("snapshot", _WORD), ("target", _WORD), ("user", _USER)):
            value = getattr(self, name)
            if value is not None and not pattern.fullmatch(value):
                raise ValueError(f"`{name}`: {value[:80]!r} is not allowed")
        for name in ("cpu", "memory_gib", "disk_gib", "queue_minutes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be a whole number from 1")
        for name in ("auto_stop_minutes", "auto_archive_minutes", "auto_delete_minutes"):
            value = getattr(self, name)
            lowest = -1 if name == "auto_delete_minutes" else 0
            if value is not None and not lowest <= value <= MAX_MINUTES:
                raise ValueError(f"`{name}` must be from {lowest} to {MAX_MINUTES}")
        if self.gpu is not None and not _GPU.fullmatch(self.gpu):
            raise ValueError(f"`gpu`: {self.gpu[:40]!r} is not a model with an optional count, like H100 or H100:2")
        if bad := [name for name in self.env if not ENV_NAME.fullmatch(name)]:
            raise ValueError(f"`env`: {bad[0][:80]!r} is not the name of an environment variable")
        if any("\0" in value for value in self.env.values()):
            raise ValueError("`env`: a value holds a NUL character")
        if bad_ports := [port for port in self.ports if not 1 <= port <= 65535]:
            raise ValueError(f"`ports`: {bad_ports[0]} is not a port")
        if len(set(self.ports)) != len(self.ports):
            raise ValueError("`ports` names one twice")
        if self.network == "none" and self.network_allow_list:
            raise ValueError("`network: none` and `network_allow_list` exclude each other")
        for text in self.network_allow_list:
            _check_range(text)


def _check_range(text: str) -> None:
    try:
        ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"`network_allow_list`: {text[:80]!r} is not a range like 192.0.2.0/24") from None


def fit(options: DaytonaOptions, require: Requirements) -> DaytonaOptions:
    """Fit the options to `require`'s network and resources; raises Unsupported. Pure.

    What a snapshot is allotted is Daytona's to say, so only an image can be promised a size."""
    if require.network == "none" and options.network_allow_list:
        raise Unsupported(
            "`require.network: none` cannot be met with options.network_allow_list", hint="leave one of them out"
        )
    if require.network == "internet" and (options.network == "none" or options.network_allow_list):
        raise Unsupported(
            "`require.network: internet` cannot be met with the options' own limits of the network",
            hint="leave out options.network and options.network_allow_list",
        )
    sized = {name: getattr(require, name) for name in ("vcpu", "memory_gib", "disk_gib", "gpu")}
    if options.image is None and (asked := [name for name, value in sized.items() if value is not None]):
        raise Unsupported(
            f"it cannot promise {asked[0]}: {sized[asked[0]]} for a snapshot, only for an image",
            hint="name an image in options.image",
        )
    fitted = msgspec.structs.replace(
        options,
        network="none" if require.network == "none" else options.network,
        cpu=_at_least(options.cpu, require.vcpu),
        memory_gib=_at_least(options.memory_gib, require.memory_gib),
        disk_gib=_at_least(options.disk_gib, require.disk_gib),
        gpu=_gpu(options.gpu, require.gpu),
    )
    _check_largest(fitted)
    return fitted


def _check_largest(options: DaytonaOptions) -> None:
    if options.gpu is not None:
        model, count = gpu(options.gpu)
        if model not in GPUS or count > MOST_GPUS:
            raise Unsupported(f"Daytona has no GPU {options.gpu}", hint=f"it has {', '.join(GPUS)}; up to {MOST_GPUS}")
    if options.image is None:
        return
    for name in ("cpu", "memory_gib", "disk_gib"):
        value, most = getattr(options, name), getattr(options.largest, name)
        if value is not None and value > (_WITH_GPU[name] if options.gpu is not None else most):
            raise Unsupported(
                f"{name}: {value} is more than one sandbox may have",
                hint=f"ask for {most} at most; if the organization may have more, say so in options.largest.{name}",
            )


def _at_least(given: int | None, needed: float | None) -> int | None:
    if needed is None:
        return given
    return max(given or 0, math.ceil(needed), 1)


def _gpu(given: str | None, needed: str | None) -> str | None:
    if needed is None:
        return given
    if not _GPU.fullmatch(needed):
        raise Unsupported(f"{needed[:40]!r} is not a GPU that Daytona could be asked for", hint="write it like H100:2")
    if given is None:
        return needed
    (model, count), (wanted, least) = gpu(given), gpu(needed)
    if model != wanted:
        raise Unsupported(f"options.gpu asks for {model}, and the profile requires {wanted}", hint="name one of them")
    return given if count >= least else f"{model}:{least}"


def gpu(text: str) -> tuple[str, int]:
    """Parse model (as Daytona spells it: upper case) and count in `H100` or `h100:2`."""
    model, _, count = text.partition(":")
    return model.upper(), int(count or 1)


def allotted(options: DaytonaOptions) -> Resources:
    """List what a sandbox with these options is allotted as far as it is known before: the estimate. Pure."""
    model, count = gpu(options.gpu) if options.gpu is not None else (None, 0)
    return Resources(
        vcpu=options.cpu or DEFAULT.vcpu,
        memory_gib=options.memory_gib or DEFAULT.memory_gib,
        disk_gib=options.disk_gib or DEFAULT.disk_gib,
        gpu=model,
        gpus=count,
    )


def decode(options: object) -> DaytonaOptions:
    """Decode the options of a spec, whether the core has decoded them or not. Raises msgspec.ValidationError."""
    return options if isinstance(options, DaytonaOptions) else msgspec.convert(options, DaytonaOptions)


def with_target(options: DaytonaOptions, target: str | None) -> DaytonaOptions:
    """Fill in the region that DAYTONA_TARGET names, where they name none. Raises NotConfigured. Pure."""
    if options.target is not None or not target:
        return options
    if not _WORD.fullmatch(target):
        raise NotConfigured("DAYTONA_TARGET is not the name of a region", hint="unset it, or write it like eu")
    return msgspec.structs.replace(options, target=target)
