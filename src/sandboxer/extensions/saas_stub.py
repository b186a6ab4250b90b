"""ext.saas-stub: a provider that is not one. It has prices and can do everything that a cloud can, and is a folder on
this machine: for trying out routes, budgets and bills without an account, and the last resort of a burst."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import msgspec

from sandboxer.errors import BackendError, NotFound, Unavailable, Unsupported
from sandboxer.extensions.base import CanMeter, CanSnapshot, CanStop, Context, Spec, from_handle
from sandboxer.extensions.directories.directory_extension import DirectoryExtension
from sandboxer.extensions.directories.files import copy_tree
from sandboxer.extensions.directories.sandbox import (
    STOPPED,
    WORKSPACE,
    directory_of,
    existing,
    marker,
    write_marker,
)
from sandboxer.models import Handle, Ready, Requirements, Resources, Value, Written
from sandboxer.names import LABEL_EXPIRES

_LARGEST: Final = {"vcpu": 8.0, "memory_gib": 32.0, "disk_gib": 100.0}
_SNAPSHOTS: Final = "snapshots"


class _Snapshot(Value, frozen=True, kw_only=True):
    snapshot: str


class SaasStubOptions(Written, frozen=True, kw_only=True):
    """What a sandbox is billed for: virtual processors, GiB of memory and of disk. Nothing enforces them.

    `fails` plays a provider in trouble: at `provision` it is out of capacity, at `ready` a sandbox comes up wrong."""

    vcpu: float = 2
    memory_gib: float = 1
    disk_gib: float = 5
    fails: Literal["never", "provision", "ready"] = "never"

    def __post_init__(self) -> None:
        for name in _LARGEST:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be 0 or more: it is what is billed")


class SaasStubExtension(DirectoryExtension, CanMeter, CanStop, CanSnapshot):
    """Directories in `saas-stub` below the work directory of this machine."""

    Options: ClassVar[type[Written]] = SaasStubOptions
    folder = "saas-stub"
    notes: ClassVar[list[str]] = [
        "it isolates nothing: a folder on this machine, with the rights of whoever runs sandboxer",
        "processors, memory and disk are billed by what was asked for, and not limited",
        "it is for trying out routes and money; nobody is paid",
    ]

    def fit(self, options: Any, require: Requirements) -> Any:
        """Raises what is billed to what is required, up to 8 virtual processors, 32 GiB and 100 GiB of disk. The
        network is that of the machine, so `internet` is met."""
        for name in ("network", "gpu"):
            if (asked := getattr(require, name)) is not None and asked != "internet":
                raise Unsupported(f"it cannot promise {name}: {asked}", hint="see docs/routing.md for what can")
        raised: dict[str, float] = {}
        for name, largest in _LARGEST.items():
            wanted = getattr(require, name)
            if wanted is not None and wanted > largest:
                raise Unsupported(f"it has no {name} of {wanted:g}", hint=f"require at most {largest:g}")
            raised[name] = max(getattr(options, name), wanted or 0)
        return msgspec.structs.replace(options, **raised)

    def provision(self, spec: Spec, ctx: Context) -> Handle:
        """See SandboxExtension."""
        if spec.options.fails == "provision":
            raise Unavailable("the stub has no capacity, as `fails` asks", hint="set options.fails to never")
        return self.make(spec, ctx, tree=None)

    def remembered(self, spec: Spec) -> Mapping[str, Any]:
        """Its allotment, and how it is to fail."""
        options: SaasStubOptions = spec.options
        allotted = {"vcpu": options.vcpu, "memory_gib": options.memory_gib, "disk_gib": options.disk_gib}
        return {"resources": allotted, "fails": options.fails}

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        """See SandboxExtension."""
        if marker(existing(handle)).get("fails") == "ready":
            raise BackendError("the sandbox came up wrong, as `fails` asks", hint="set options.fails to never")
        ready = super().wait_ready(handle, ctx)
        reached = msgspec.structs.replace(ready.reachability, provider_id=f"stub-{directory_of(handle).name}")
        return msgspec.structs.replace(ready, reachability=reached, resources=self.meter_actual(handle, ctx))

    def estimate_cost(self, options: Any) -> Resources:
        """The options."""
        return Resources(vcpu=options.vcpu, memory_gib=options.memory_gib, disk_gib=options.disk_gib)

    def meter_actual(self, handle: Handle, ctx: Context) -> Resources | None:
        """What the marker file says."""
        allotted = marker(directory_of(handle)).get("resources")
        return None if allotted is None else msgspec.convert(allotted, Resources)

    def stop(self, handle: Handle, ctx: Context) -> None:
        """End its commands; none starts until `start`."""
        directory = existing(handle)
        write_marker(directory, {**marker(directory), STOPPED: True})
        self.end_commands(directory, ctx)

    def start(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        """Allow commands again."""
        directory = existing(handle)
        expires = "never" if expires_at is None else str(int(expires_at))
        write_marker(directory, {**marker(directory), STOPPED: False, LABEL_EXPIRES: expires})

    def snapshot(self, handle: Handle, name: str, ctx: Context) -> Handle:
        """Copy the workspace; it appears under its name when it is whole."""
        ctx.deadline.check("copying the workspace")
        target = self.root(ctx) / _SNAPSHOTS / name
        target.parent.mkdir(exist_ok=True, mode=0o700)
        fresh = target.with_name(f".new-{name}")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        copy_tree(existing(handle) / WORKSPACE, fresh / WORKSPACE)
        write_marker(fresh, {"taken_at": time.time()})
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
        return Handle(version=1, data={"snapshot": str(target)})

    def restore_from_snapshot(self, spec: Spec, snapshot: Handle, ctx: Context) -> Handle:
        """Make a sandbox with a copy of what was kept."""
        files = _kept(snapshot) / WORKSPACE
        if not files.is_dir():
            raise NotFound("the snapshot is gone", hint="run `sandboxer snapshots list`", fault="backend")
        return self.make(spec, ctx, tree=files)

    def find_snapshot(self, name: str, ctx: Context) -> Handle | None:
        """The copy of this name; what of it is not whole is removed."""
        target = self.root(ctx) / _SNAPSHOTS / name
        shutil.rmtree(target.with_name(f".new-{name}"), ignore_errors=True)
        return Handle(version=1, data={"snapshot": str(target)}) if target.exists() else None

    def delete_snapshot(self, snapshot: Handle, ctx: Context) -> None:
        """Remove the copy."""
        kept = _kept(snapshot)
        shutil.rmtree(kept, ignore_errors=True)
        if kept.exists():
            raise BackendError(f"{kept} could not be removed", hint="look at its owner", outcome="unknown")


def _kept(snapshot: Handle) -> Path:
    """Where a snapshot's files are. Raises Conflict for a handle of another version."""
    return Path(from_handle(snapshot, _Snapshot, version=1).snapshot)
