"""ext.native: the contract, from the parts beside this file."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from sandboxer.errors import BackendError, Invalid, NotFound, SandboxerError, Unsupported
from sandboxer.extensions.base import (
    CanCopy,
    CanExec,
    CanLogs,
    CanMeter,
    CanRenew,
    Context,
    Exec,
    Found,
    LeftOut,
    PathKind,
    SandboxExtension,
    Spec,
    Status,
)
from sandboxer.extensions.native import bubblewrap, client, create, scripts
from sandboxer.extensions.native import exec as native_exec
from sandboxer.extensions.native.handle import SandboxPaths
from sandboxer.extensions.native.host_facts import OldBubblewrap
from sandboxer.extensions.native.options import WORKSPACE, NativeOptions, decode, size
from sandboxer.extensions.native.plan import NativeHandleData, plan
from sandboxer.extensions.shell import files
from sandboxer.hosts.base import Command, Result, Sink, Streams
from sandboxer.models import Handle, Isolation, Reachability, Ready, Resources


class NativeExtension(SandboxExtension, CanExec, CanCopy, CanLogs, CanRenew, CanMeter):
    """Namespaces and a persistent directory, on any host that this machine can run words on."""

    Options = NativeOptions

    def check(self, ctx: Context) -> None:
        """Looks for the programs, and makes one namespace for nothing."""
        client.probe(ctx)

    def provision(self, spec: Spec, ctx: Context) -> Handle:
        """Directory with marker, the tree if one is given, then one start."""
        options = decode(spec.options)
        source = _source(spec)
        ctx.host.connect(ctx.deadline)
        place = SandboxPaths(_work_dir(ctx), spec.sandbox_id, ctx.install)
        facts = client.claim(place, spec, ctx)
        home = create.python_home(options, facts, ctx)
        program = self.filter_program(facts.machine)
        planned = plan(place, options, facts, python_home=home, synced=source is not None, program=program)
        handle = client.to_handle(planned.remembered)
        ctx.save(handle)
        if source is not None:
            ctx.progress("sync", f"{source} to {place.workspace}")
            report = ctx.host.sync(
                source,
                place.workspace,
                ctx.deadline,
                exclude=() if options.git else ("/.git",),
                gitignore=options.gitignore,
                progress=lambda text: ctx.progress("sync", text),
            )
            for note in report.notes:
                ctx.progress("sync", note)
        ctx.progress("start", place.name)
        if "bwrap" in facts.tools:
            try:
                client.start(planned, facts, ctx)
            except OldBubblewrap:
                ctx.progress("start", "the host's bubblewrap is too old; bringing ours")
            else:
                return handle
        brought = bubblewrap.install_bubblewrap(place, facts.machine, ctx)
        facts = facts.without_bwrap()
        planned = plan(
            place, options, facts, python_home=home, synced=source is not None, program=program, brought=brought
        )
        handle = client.to_handle(planned.remembered)
        ctx.save(handle)
        client.start(planned, facts, ctx)
        return handle

    def filter_program(self, machine: str) -> bytes:
        """The filter of system calls for a host of that kind; empty where there is no table for it."""
        from sandboxer.extensions.native import seccomp

        try:
            return seccomp.program(machine)
        except Unsupported:
            return b""

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        """Waits until the services have settled."""
        remembered = client.from_handle(handle)
        place = remembered.place
        if remembered.services:
            ctx.progress("wait", f"services: {', '.join(remembered.services)}")
            self._settle(remembered, ctx)
        else:
            presence = client.running(place, ctx)
            if presence != "running":
                raise BackendError(f"{place.name} is {presence}", hint="run `sandboxer doctor`, then create it again")
        address = ctx.host.address()
        return Ready(
            reachability=Reachability(
                kind="ssh" if address.kind == "ssh" else "local",
                host=address.host,
                port=address.port,
                user=address.user,
                remote_dir=place.workspace,
                command=address.command,
                host_key=address.host_key,
            ),
            isolation=Isolation(
                class_="namespace", network=remembered.network, syscalls=remembered.syscalls, notes=remembered.notes
            ),
        )

    def _settle(self, remembered: NativeHandleData, ctx: Context) -> None:
        place, wanted = remembered.place, str(int(remembered.settle * 100))
        words = ["sh", "/run/sandboxer/settle", wanted, *remembered.services]
        done = native_exec.capture(remembered, words, ctx)
        if done.code == 0 and done.text == "settled":
            return
        word, _, rest = done.text.partition(" ")
        name, _, code = rest.partition(" ")
        if word != "failed" or name not in remembered.services:
            raise BackendError(f"the services of {place.name} did not settle: {done.complaint}", hint="create it again")
        log = ctx.host.run(scripts.tail(place, [name], lines=20, follow=False), ctx.deadline)
        raise BackendError(
            f"service {name!r} ended with {code}: {log.complaint or 'it said nothing'}",
            hint=f"mend `options.services.{name}` of the profile; `--keep-failed` keeps the sandbox for a look",
            fault="caller",
        )

    def status(self, handle: Handle, ctx: Context) -> Status:
        """One look at the directory and at /proc."""
        try:
            return Status(client.look(client.from_handle(handle).place, ctx)[0])
        except SandboxerError as error:
            return Status("unknown", error.message)

    def find(self, sandbox_id: str, ctx: Context) -> Handle | None:
        """By the directory or by the processes."""
        place = SandboxPaths(_work_dir(ctx), sandbox_id, ctx.install)
        remembered = client.find(place, ctx)
        return None if remembered is None else client.to_handle(remembered)

    def inventory(self, ctx: Context) -> Sequence[Found]:
        """All directories with our marker, and processes that have lost theirs."""
        return client.inventory(_work_dir(ctx), ctx)

    def teardown(self, handle: Handle, ctx: Context) -> None:
        """Sessions, processes, control groups, directory; then a look."""
        client.remove(client.from_handle(handle).place, ctx)

    def estimate_cost(self, options: Any) -> Resources:
        """Its limits. What has none takes what the host gives, and is no share that could be billed."""
        limits = decode(options).limits
        memory = 0 if limits.memory is None else size(limits.memory)
        return Resources(vcpu=limits.cpu or 0, memory_gib=memory / 2**30)

    def meter_actual(self, handle: Handle, ctx: Context) -> Resources | None:
        """Nothing is measured: the limits are the allotment."""
        return None

    def exec(self, handle: Handle, request: Exec, streams: Streams, ctx: Context) -> int:
        """Joins the sandbox's namespaces. A sandbox that does not run (its host was restarted) is started first."""
        _no_service(request.service)
        cwd = posixpath.join(WORKSPACE, request.cwd or "")
        return native_exec.run(
            client.from_handle(handle), request.argv, streams, ctx, cwd=cwd, env=request.env, tty=request.tty
        )

    def path_kind(self, handle: Handle, path: str, ctx: Context, *, service: str | None = None) -> PathKind:
        """Looks from inside."""
        _no_service(service)
        return files.path_kind(_runner(handle, ctx), path)

    def put_archive(
        self, handle: Handle, directory: str, archive: BinaryIO, ctx: Context, *, service: str | None = None
    ) -> None:
        """tar runs inside: whatever the archive says, it stays there."""
        _no_service(service)
        hint = "only /workspace and /tmp can be written inside a sandbox"
        files.put_archive(_runner(handle, ctx), directory, archive, hint=hint)

    def get_archive(
        self, handle: Handle, path: str, sink: Callable[[bytes], None], ctx: Context, *, service: str | None = None
    ) -> LeftOut | None:
        """tar runs inside: links cannot lead out."""
        _no_service(service)
        return files.get_archive(_runner(handle, ctx), path, sink)

    def logs(
        self, handle: Handle, streams: Streams, ctx: Context, *, service: str | None, follow: bool, tail: int | None
    ) -> None:
        """What services wrote, stdout and stderr together; also of a sandbox that does not run."""
        remembered = client.from_handle(handle)
        if service is not None and service not in remembered.services:
            raise NotFound(
                f"the sandbox has no service {service!r}",
                hint=f"its services: {', '.join(remembered.services) or 'none'}",
            )
        if not remembered.services:
            return
        names = [service] if service is not None else remembered.services
        words = scripts.tail(remembered.place, names, lines=tail, follow=follow)
        code = ctx.host.stream(Command(argv=words, track=remembered.place.track), streams, ctx.deadline)
        if code != 0:
            raise BackendError("the logs could not be read", hint="run `sandboxer get ID` to see whether it is there")

    def renew(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        """Rewrites the marker."""
        client.renew(client.from_handle(handle).place, expires_at, ctx)


def _source(spec: Spec) -> Path | None:
    given = spec.inputs.get("repo")
    if not given:
        return None
    source = Path(str(given))
    if not source.is_dir():
        raise Invalid(f"input `repo`: {str(source)!r} is not a directory", hint="give the directory of the repository")
    return source


def _work_dir(ctx: Context) -> str:
    return posixpath.normpath(ctx.host.work_dir(ctx.deadline))


def _runner(handle: Handle, ctx: Context) -> files.Run:
    """Runs our own small scripts inside."""
    remembered = client.from_handle(handle)

    def run(
        words: Sequence[str],
        *,
        stdin: BinaryIO | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
    ) -> Result:
        return native_exec.capture(remembered, words, ctx, stdin=stdin, stdout=stdout, stderr=stderr)

    return run


def _no_service(service: str | None) -> None:
    if service is not None:
        raise Invalid(
            f"service {service!r}: all services of a native sandbox share one place",
            hint="leave out --service; commands run beside the services",
        )
