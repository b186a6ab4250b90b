"""Define the options of ext.modal, and fit them to requirements. Pure."""

from __future__ import annotations

import math
import re
from typing import Final

import msgspec

from sandboxer.errors import Unsupported
from sandboxer.models import Requirements, Resources, Written
from sandboxer.names import ENV_NAME
from sandboxer.timing import parse_duration

LONGEST: Final = 24 * 3600
"""The longest life that Modal grants a sandbox, in seconds (modal.com/docs/guide/sandbox, read 2026-11)."""
VCPU_PER_CORE: Final = 2
"""Modal counts physical cores; everybody else two virtual processors to each."""
LEAST_CORES: Final = 0.125
"""Less than this cannot be asked for, and is not billed (modal.com/docs/guide/resources)."""
_GPU = re.compile(r"([A-Z0-9][A-Z0-9-]{0,30}!?)(?::([1-8]))?")
_ALIASES: Final = {"A10G": "A10", "A100": "A100-40GB", "RTX-PRO-6000": "RTX-PRO-6000"}
GPUS: Final = (
    "T4", "L4", "A10", "L40S", "A100-40GB", "A100-80GB", "RTX-PRO-6000", "H100", "H200", "B200",
)  # fmt: skip
"""Models that a requirement may name: those with a price in the manifest."""
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")
_REGION_OR_CLOUD = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class ModalOptions(Written, frozen=True, kw_only=True):
    """Options of ext.modal.

    image: a registry tag; None is Debian with Python. It needs a POSIX shell, and `tar` for `cp`.
    command: a program that the sandbox runs beside what is executed in it; its output is `logs`.
    cpu: physical cores (two virtual processors each). memory_gib: GiB. What is asked for is also the limit, so that
        a sandbox cannot cost more than was estimated.
    gpu: a model with an optional count, `T4` or `H100:2`. A GPU may have to be waited for: `capacity_timeout`.
    region, cloud: where it runs, in Modal's words; prices may differ by region.
    ports: reached from outside by TLS tunnels, told in `reachability.services`.
    env, workdir: of every program inside. block_network: nothing outside can be reached.
    idle_timeout: Modal ends a sandbox that has been idle for so long.
    max_life: how long Modal itself lets it live at most. Modal cannot prolong a life afterwards, so `extend-ttl`
        works up to here and no further; None is the agreed TTL (decision 0016).
    capacity_timeout: how long a free machine is waited for.
    """

    image: str | None = None
    command: list[str] = []
    cpu: float = 1.0
    memory_gib: float = 2.0
    gpu: str | None = None
    region: str | None = None
    cloud: str | None = None
    ports: list[int] = []
    env: dict[str, str] = {}
    workdir: str | None = None
    block_network: bool = False
    idle_timeout: str | int | None = None
    max_life: str | int | None = None
    capacity_timeout: str | int = "5m"

    def __post_init__(self) -> None:
        if not LEAST_CORES <= self.cpu <= 64:
            raise ValueError(f"`cpu` must be from {LEAST_CORES} to 64 physical cores")
        if not 0.125 <= self.memory_gib <= 512:
            raise ValueError("`memory_gib` must be from 0.125 to 512")
        if self.gpu is not None:
            parse_gpu(self.gpu)
        if self.image is not None and not _TAG.fullmatch(self.image):
            raise ValueError(f"`image`: {self.image[:80]!r} is not an image of a registry")
        for name in ("region", "cloud"):
            value = getattr(self, name)
            if value is not None and not _REGION_OR_CLOUD.fullmatch(value):
                raise ValueError(f"`{name}`: {value[:80]!r} is not a {name}")
        if bad := [port for port in self.ports if not 0 < port < 65536]:
            raise ValueError(f"`ports`: {bad[0]} is not a port")
        if len(set(self.ports)) != len(self.ports):
            raise ValueError("`ports`: a port is listed twice")
        if self.ports and self.block_network:
            raise ValueError("`ports` cannot be reached with `block_network`")
        if bad_names := [name for name in self.env if not ENV_NAME.fullmatch(name)]:
            raise ValueError(f"`env`: {bad_names[0][:80]!r} is not the name of an environment variable")
        if any("\0" in text for text in [*self.env.values(), *self.command, self.workdir or ""]):
            raise ValueError("a value holds a NUL character")
        if self.command and not self.command[0]:
            raise ValueError("`command` needs a program, as a list of words")
        if self.workdir is not None and not self.workdir.startswith("/"):
            raise ValueError("`workdir` must be an absolute path inside the sandbox")
        for name in ("idle_timeout", "max_life", "capacity_timeout"):
            self._duration(name)

    def _duration(self, name: str) -> None:
        value = getattr(self, name)
        if value is None:
            return
        from sandboxer.errors import Invalid

        try:
            seconds = parse_duration(value, what=f"`{name}`")
        except Invalid as error:
            raise ValueError(error.message) from None
        if seconds > LONGEST:
            raise ValueError(f"`{name}`: Modal ends every sandbox after 24h")


def parse_gpu(text: str) -> tuple[str, int]:
    """Parse model and count of `T4` or `h100:2`, in Modal's own spelling; raises ValueError."""
    match = _GPU.fullmatch(text.upper())
    if match is None:
        raise ValueError(f"`gpu`: {text[:80]!r} is not a GPU like T4 or H100:2 (1 to 8 of one model)")
    model = match[1]
    return _ALIASES.get(model, model), int(match[2] or 1)


def fit(options: ModalOptions, require: Requirements) -> ModalOptions:
    """Fit the options, so that a sandbox has at least the processors and memory required, exactly the GPUs and the
    network. Raises Unsupported."""
    if require.disk_gib is not None:
        raise Unsupported("Modal sells sandboxes no disk of a given size", hint="leave out require.disk_gib")
    block = _network(options, require)
    cores = options.cpu if require.vcpu is None else max(options.cpu, require.vcpu / VCPU_PER_CORE)
    memory = options.memory_gib if require.memory_gib is None else max(options.memory_gib, require.memory_gib)
    try:
        return msgspec.structs.replace(
            options, cpu=cores, memory_gib=memory, block_network=block, gpu=_gpu(options, require)
        )
    except ValueError as error:
        raise Unsupported(f"Modal cannot give that: {error}", hint="ask for less") from None


def _network(options: ModalOptions, require: Requirements) -> bool:
    if require.network == "internet" and options.block_network:
        raise Unsupported("its option `block_network` rules out network: internet", hint="leave out one of the two")
    if require.network == "none" and options.ports:
        raise Unsupported("ports cannot be reached without a network", hint="leave out `ports` or network: none")
    return options.block_network or require.network == "none"


def _gpu(options: ModalOptions, require: Requirements) -> str | None:
    if require.gpu is None:
        return options.gpu
    try:
        model, count = parse_gpu(require.gpu)
    except ValueError as error:
        raise Unsupported(f"require.gpu: {error}", hint="write it like T4 or H100:2") from None
    if model not in GPUS:
        raise Unsupported(f"Modal has no GPU {model}", hint=f"it has {', '.join(GPUS)}")
    if options.gpu is not None and parse_gpu(options.gpu) != (model, count):
        raise Unsupported(
            f"its option `gpu` is {options.gpu}, and {require.gpu} is required", hint="leave out one of the two"
        )
    return f"{model}:{count}" if count > 1 else model


def resources(options: ModalOptions) -> Resources:
    """List what a sandbox is allotted, and billed for."""
    model, count = parse_gpu(options.gpu) if options.gpu is not None else (None, 0)
    return Resources(
        vcpu=options.cpu * VCPU_PER_CORE,
        memory_gib=memory_mib(options) / 1024,
        gpu=None if model is None else model.rstrip("!"),
        gpus=count,
    )


def memory_mib(options: ModalOptions) -> int:
    """Convert memory to Modal's unit."""
    return math.ceil(options.memory_gib * 1024)


def seconds(value: str | int | None) -> int | None:
    """Parse a duration of an option, which was checked before."""
    return None if value is None else parse_duration(value)
