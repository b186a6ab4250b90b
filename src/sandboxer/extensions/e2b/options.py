"""Define the options of ext.e2b, and fit them to requirements."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from sandboxer.errors import Unsupported
from sandboxer.models import Requirements, Resources, Written
from sandboxer.names import ENV_NAME

BASE_VCPU: Final = 2.0
BASE_MEMORY_GIB: Final = 0.5
"""What a template has unless it was built with other figures (E2B's guide to customizing CPU and RAM, 2026-08)."""

_TEMPLATE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,254}")
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


class E2BOptions(Written, frozen=True, kw_only=True):
    """Options of ext.e2b.

    template: a template's id or name. vcpu, memory_gib, disk_gib: what that template was built with, and so what its
    sandboxes have. What is declared here is checked when the sandbox is up; what is not is taken as E2B's default (2
    vCPU, 0.5 GiB) for the estimate. allow_internet_access: whether programs inside reach the internet. env: variables
    of every process inside. ports: ports of programs inside whose addresses are told. user: who commands and files
    belong to (default: the template's own).
    """

    template: str = "base"
    vcpu: float | None = None
    memory_gib: float | None = None
    disk_gib: float | None = None
    allow_internet_access: bool = True
    env: dict[str, str] = {}
    ports: list[int] = []
    user: str | None = None

    def __post_init__(self) -> None:
        if not _TEMPLATE.fullmatch(self.template):
            raise ValueError(f"`template`: {self.template[:80]!r} is not a template's id or name")
        for name in ("vcpu", "memory_gib", "disk_gib"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 4096:
                raise ValueError(f"`{name}` must be more than 0 and at most 4096")
        if bad := [name for name in self.env if not ENV_NAME.fullmatch(name)]:
            raise ValueError(f"`env`: {bad[0][:80]!r} is not the name of an environment variable")
        if any("\0" in value for value in self.env.values()):
            raise ValueError("`env`: a value holds a NUL character")
        if any(not 0 < port < 65536 for port in self.ports) or len(self.ports) > 64:
            raise ValueError("`ports` are at most 64 numbers from 1 to 65535")
        if self.user is not None and not _USER.fullmatch(self.user):
            raise ValueError(f"`user`: {self.user[:80]!r} is not the name of a user")


def decode(options: object) -> E2BOptions:
    """Decode the options of a spec, whether the core has decoded them or not. Raises msgspec.ValidationError."""
    return options if isinstance(options, E2BOptions) else msgspec.convert(options, E2BOptions)


def allotted(options: E2BOptions) -> Resources:
    """List the resources that a sandbox with these options is billed for. Pure."""
    return Resources(
        vcpu=BASE_VCPU if options.vcpu is None else options.vcpu,
        memory_gib=BASE_MEMORY_GIB if options.memory_gib is None else options.memory_gib,
        disk_gib=options.disk_gib or 0,
    )


def fitted(options: E2BOptions, require: Requirements) -> E2BOptions:
    """Fit the options to the requirements, exactly; raises Unsupported. Pure.

    What is taken as E2B's default becomes a declaration, so that it is checked like one once the sandbox is up."""
    if require.gpu is not None:
        raise Unsupported(f"E2B has no GPUs ({require.gpu} is required)", hint="choose a profile of another extension")
    changed: dict[str, object] = {}
    if require.network == "none":
        changed["allow_internet_access"] = False
    if require.network == "internet" and not options.allow_internet_access:
        raise Unsupported(
            "the options close the network, and internet is required", hint="leave out `allow_internet_access: false`"
        )
    has = allotted(options)
    for name, unit in (("vcpu", "vCPU"), ("memory_gib", "GiB of memory"), ("disk_gib", "GiB of disk")):
        wanted, there = getattr(require, name), getattr(has, name)
        if wanted is None:
            continue
        if wanted > there:
            told = f"has {there:g} {unit}" if there else f"declares no {unit}"
            raise Unsupported(
                f"template {options.template!r} {told}, {wanted:g} are required",
                hint=f"build a larger template at E2B, name it in `options.template` and declare `options.{name}`",
            )
        changed[name] = there
    return msgspec.structs.replace(options, **changed)
