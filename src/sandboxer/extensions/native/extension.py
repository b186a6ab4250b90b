"""ext.native: the contract, from the parts beside this file."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import msgspec

from sandboxer.errors import BackendError, Invalid, SandboxerError, Unsupported
from sandboxer.extensions.base import (
    CanCopy,
    CanExec,
    CanLogs,
    CanMeter,
    CanRenew,
    CanShowUsage,
    CanSnapshot,
    CanStop,
    Context,
    Exec,
    Found,
    LeftOut,
    PathKind,
    SandboxExtension,
    Spec,
    Status,
    kept_streams,
)
from sandboxer.extensions.base import from_handle as read_handle
from sandboxer.extensions.native import client, describe, files, logs, power
from sandboxer.extensions.native.create import create
from sandboxer.extensions.native.exec import run
from sandboxer.extensions.native.handle import (
    SNAPSHOT_VERSION,
    NativeSnapshotData,
    SandboxPaths,
    from_handle,
    to_handle,
)
from sandboxer.extensions.native.options import WORKSPACE, NativeOptions, decode, size
from sandboxer.hosts.base import Streams
from sandboxer.hosts.trees import strict_modes
from sandboxer.models import Handle, Ready, Resources


class NativeExtension(
    SandboxExtension, CanExec, CanCopy, CanLogs, CanRenew, CanMeter, CanShowUsage, CanSnapshot, CanStop
):
    """Namespaces and a persistent directory, on any host that this machine can run words on."""

    Options = NativeOptions

    def check(self, ctx: Context) -> None:
        """Looks for the programs, and makes one namespace for nothing."""
        client.probe(ctx)

    def provision(self, spec: Spec, ctx: Context) -> Handle:
        """Directory with marker, the tree if one is given, then one start."""
        return create(spec, ctx, filter_program=self.filter_program)

    def filter_program(self, machine: str) -> bytes:
        """The filter of system calls for a host of that kind; empty where there is no table for it."""
        from sandboxer.extensions.native import seccomp

        try:
            return seccomp.program(machine)
        except Unsupported:
            return b""

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        """Waits until the services have settled."""
        sandbox = from_handle(handle)
        paths = sandbox.paths
        if sandbox.services:
            ctx.progress("wait", f"services: {', '.join(sandbox.services)}")
            logs.settle(sandbox, ctx)
        else:
            presence = describe.running(paths, ctx)
            if presence != "running":
                raise BackendError(f"{paths.name} is {presence}", hint="run `sandboxer doctor`, then create it again")
        return describe.ready(sandbox, ctx)

    def status(self, handle: Handle, ctx: Context) -> Status:
        """One look at the directory and at /proc."""
        try:
            return describe.look(from_handle(handle).paths, ctx)[0]
        except SandboxerError as error:
            return Status("unknown", error.message)

    def find(self, sandbox_id: str, ctx: Context) -> Handle | None:
        """By the directory or by the processes."""
        if not strict_modes.is_utf8(ctx.host.work_dir(ctx.deadline)):
            return None  # nothing of ours was ever made there
        paths = SandboxPaths(client.work_dir(ctx), sandbox_id, ctx.install)
        sandbox = describe.find(paths, ctx)
        return None if sandbox is None else to_handle(sandbox)

    def inventory(self, ctx: Context) -> Sequence[Found]:
        """All directories with our marker, and processes that have lost theirs."""
        return describe.inventory(client.work_dir(ctx), ctx)

    def teardown(self, handle: Handle, ctx: Context) -> None:
        """Sessions, processes, control groups, directory; then a look."""
        client.remove(from_handle(handle).paths, ctx)

    def stop(self, handle: Handle, ctx: Context) -> None:
        """Ends what runs inside; what is in the workspace stays. Nothing but `start` starts it again then."""
        power.stop(from_handle(handle), ctx)

    def start(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        """Writes the end that is agreed, runs the start file again, and waits until the services have settled."""
        sandbox = from_handle(handle)
        client.renew(sandbox.paths, expires_at, ctx)
        power.start(sandbox, ctx)

    def estimate_cost(self, options: Any) -> Resources:
        """Its limits. What has none takes what the host gives, and is no share that could be billed."""
        limits = decode(options).limits
        memory = 0 if limits.memory is None else size(limits.memory)
        return Resources(vcpu=limits.cpu or 0, memory_gib=memory / 2**30)

    def meter_actual(self, handle: Handle, ctx: Context) -> Resources | None:
        """Nothing is measured: the limits are the allotment."""
        return None

    def first_processes(self, handles: Sequence[Handle], ctx: Context) -> Sequence[Sequence[int]]:
        """One look at their records and at /proc."""
        return describe.first_processes([from_handle(handle).paths for handle in handles], ctx)

    def exec(self, handle: Handle, request: Exec, streams: Streams, ctx: Context) -> int:
        """Joins the sandbox's namespaces. A sandbox that does not run (its host was restarted) is started first."""
        _no_service(request.service)
        cwd = posixpath.join(WORKSPACE, request.cwd or "")
        return run(from_handle(handle), request.argv, streams, ctx, cwd=cwd, env=request.env, tty=request.tty)

    def path_kind(self, handle: Handle, path: str, ctx: Context, *, service: str | None = None) -> PathKind:
        """Looks from inside."""
        _no_service(service)
        return files.kind(from_handle(handle), path, ctx)

    def knows_holes(self, handle: Handle, ctx: Context, *, service: str | None = None) -> bool:
        """Whether tar inside does."""
        _no_service(service)
        return files.knows_holes(from_handle(handle), ctx)

    def put_archive(
        self, handle: Handle, directory: str, archive: BinaryIO, ctx: Context, *, service: str | None = None
    ) -> None:
        """tar runs inside: whatever the archive says, it stays there."""
        _no_service(service)
        files.put(from_handle(handle), directory, archive, ctx)

    def get_archive(
        self, handle: Handle, path: str, sink: Callable[[bytes], None], ctx: Context, *, service: str | None = None
    ) -> LeftOut | None:
        """tar runs inside: links cannot lead out."""
        _no_service(service)
        return files.take(from_handle(handle), path, sink, ctx)

    def logs(
        self, handle: Handle, streams: Streams, ctx: Context, *, service: str | None, follow: bool, tail: int | None
    ) -> None:
        """What services wrote, stdout and stderr together; also of a sandbox that does not run."""
        logs.show(from_handle(handle), streams, ctx, service=service, follow=follow, tail=tail)

    def renew(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        """Rewrites the marker."""
        client.renew(from_handle(handle).paths, expires_at, ctx)

    def snapshot(self, handle: Handle, name: str, ctx: Context) -> Handle:
        """The workspace goes to the core; nothing stays here."""
        files.snapshot(from_handle(handle), kept_streams(ctx), ctx)
        return Handle(version=SNAPSHOT_VERSION, data={})

    def restore_from_snapshot(self, spec: Spec, snapshot: Handle, ctx: Context) -> Handle:
        """A create without the tree of the request; then the files, unpacked inside."""
        read_handle(snapshot, NativeSnapshotData, version=SNAPSHOT_VERSION)
        kept = kept_streams(ctx)
        if decode(spec.options).services:
            raise Unsupported(
                "a native sandbox with services cannot be restored: they would start before their files are there",
                hint="restore it with a profile without services, and start them by `sandboxer exec`",
            )
        inputs = {name: value for name, value in spec.inputs.items() if name != "repo"}
        bare = msgspec.structs.replace(spec, inputs=inputs)
        handle = create(bare, ctx, filter_program=self.filter_program)
        files.restore(from_handle(handle), kept, ctx)
        return handle

    def delete_snapshot(self, snapshot: Handle, ctx: Context) -> None:
        """The core has all of it."""
        read_handle(snapshot, NativeSnapshotData, version=SNAPSHOT_VERSION)


def _no_service(service: str | None) -> None:
    if service is not None:
        raise Invalid(
            f"service {service!r}: all services of a native sandbox share one place",
            hint="leave out --service; commands run beside the services",
        )
