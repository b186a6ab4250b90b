"""Fulfil the extension contract for E2B, from the modules beside this one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, Final, TypeVar

import msgspec

from sandboxer.errors import BackendError, Conflict, Denied, Invalid, SandboxerError, Timeout, Unavailable
from sandboxer.extensions.base import (
    CanCopy,
    CanExec,
    CanLogs,
    CanMeter,
    CanRenew,
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
)
from sandboxer.extensions.e2b import create, describe, files, logs, snapshots
from sandboxer.extensions.e2b import exec as e2b_exec
from sandboxer.extensions.e2b.client import AccessCache, E2BClient, running_sandbox
from sandboxer.extensions.e2b.envd import Envd, address_known
from sandboxer.extensions.e2b.handle import (
    E2BHandleData,
    check_address,
    other_key_error,
    proves_absence,
    sandbox_data,
    seconds_until,
    snapshot_data,
)
from sandboxer.extensions.e2b.options import E2BOptions, allotted, decode, fitted
from sandboxer.extensions.e2b.sandbox import E2BSandbox
from sandboxer.extensions.provider.errors import stopped
from sandboxer.hosts.base import Streams
from sandboxer.models import Handle, Ready, Requirements, Resources
from sandboxer.names import LABEL_ID, LABEL_INSTALL
from sandboxer.timing import Deadline

_SUPERUSER: Final = "root"
LOOK_SECONDS: Final = 10.0
"""How long it may take to find out why a sandbox could not be used."""
_Result = TypeVar("_Result")


class E2BExtension(SandboxExtension, CanExec, CanCopy, CanLogs, CanRenew, CanMeter, CanStop, CanSnapshot):
    """MicroVMs at E2B, or at a server that speaks its API."""

    Options = E2BOptions

    def __init__(self) -> None:
        self._accesses = AccessCache()

    def check(self, ctx: Context) -> None:
        """Asks for a list of one."""
        E2BClient(ctx).probe()

    def fit(self, options: E2BOptions, require: Requirements) -> E2BOptions:
        """A template has the resources that it was built with."""
        return fitted(decode(options), require)

    # -- life cycle -----------------------------------------------------------------------------------------------

    def provision(self, spec: Spec, ctx: Context) -> Handle:
        """One request, made good when its answer is lost."""
        return self._make(spec, ctx, template=None)

    def _make(self, spec: Spec, ctx: Context, *, template: str | None) -> Handle:
        options, control = decode(spec.options), E2BClient(ctx)
        ctx.deadline.check("asking E2B for a sandbox")
        ctx.progress("start", f"{template or options.template} at {control.base}")
        now = time.time()
        intent = E2BHandleData(
            sandbox_id=spec.sandbox_id,
            id="",
            api=control.base,
            key=control.key,
            born=now,
            ends=spec.expires_at if spec.expires_at is not None else now + create.MAX_TIMEOUT,
            declared=create.declared(options),
            ports=list(options.ports),
            user=options.user,
            lost=True,
        )
        # Where it was asked for, and with whose key, must be known before it exists: nobody else can say what became
        # of it.
        ctx.save(intent.handle())
        made = create.make(control, spec, create.body(spec, options, now=now, template=template), ctx)
        if made.access is not None:
            self._accesses.keep(control, made.id, made.access)
        handle = _changed(intent, id=made.id, lost=made.lost)
        ctx.save(handle)
        return handle

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        """E2B answers a create when the sandbox runs: one look at it, and one at its envd, both at once where it is
        known already how that is reached."""
        data, control = self._identified(handle, ctx)
        known = self._accesses.known(control, data)
        envd = None if known is None or not address_known(data, known, ctx) else Envd(data, known, ctx)
        asked = None if envd is None else describe.BackgroundCall(lambda: describe.reach(envd, ctx))
        looked = control.look(data.id)
        if looked is None:
            raise BackendError(f"E2B does not have {data.id} any more", hint="create it again")
        shown, access = looked
        if shown.state != "running":
            raise stopped(data.id, shown.state, provider="E2B", sandbox_id=data.sandbox_id)
        describe.check_declared(data, shown.resources)
        access = self._accesses.learn(control, data, shown, access)
        if asked is None:
            describe.reach(Envd(data, access, ctx), ctx)
        else:
            asked.wait(ctx.deadline)
        return describe.ready(data, shown, access, domain=ctx.endpoints.get("domain"))

    def status(self, handle: Handle, ctx: Context) -> Status:
        """One look, which is about this sandbox only where the address and the key are those it was made with."""
        try:
            data, control = self._handle_data(handle, ctx)
            shown = self._shown(data, control, ctx)
            if shown is None:
                return (
                    Status("absent") if proves_absence(data, ctx) else Status("unknown", other_key_error(data).message)
                )
        except SandboxerError as error:
            return Status("unknown", error.message)
        return describe.status(shown)

    def _shown(self, data: E2BHandleData, control: E2BClient, ctx: Context) -> E2BSandbox | None:
        if not data.id:
            found = create.find_surely(control, data.sandbox_id, ctx)
            return found[0] if found else None
        looked = control.look(data.id)
        return None if looked is None else looked[0]

    def find(self, sandbox_id: str, ctx: Context) -> Handle | None:
        """By metadata; a list that shows nothing is asked a second time, because it may lag behind a create."""
        control = E2BClient(ctx)
        found = create.find_surely(control, sandbox_id, ctx)
        return self._seen(found[0], control, several=len(found) > 1).handle() if found else None

    def inventory(self, ctx: Context) -> Sequence[Found]:
        """By metadata, page by page."""
        control = E2BClient(ctx)
        return [
            Found(
                sandbox_id=shown.metadata[LABEL_ID],
                handle=self._seen(shown, control).handle(),
                labels=dict(shown.metadata),
                created_at=shown.started_at,
                expires_at=None if shown.state == "paused" else shown.end_at,
                detail=f"{shown.id} ({shown.state}) at {control.base}",
            )
            for shown in control.all({LABEL_INSTALL: ctx.install})
            if LABEL_ID in shown.metadata
        ]

    def _seen(self, shown: E2BSandbox, control: E2BClient, *, several: bool = False) -> E2BHandleData:
        """What is remembered of a sandbox that only E2B remembered."""
        use = create.parse_use_label(shown.metadata)
        return E2BHandleData(
            sandbox_id=shown.metadata[LABEL_ID],
            id=shown.id,
            api=control.base,
            key=control.key,
            born=shown.started_at or time.time(),
            ends=shown.end_at,
            declared=use.declared,
            ports=use.ports,
            user=use.user,
            lost=several,
            paused=shown.state == "paused",
        )

    def teardown(self, handle: Handle, ctx: Context) -> None:
        """Kills it, and looks. Where an answer was lost while it was made, all that carries its label goes."""
        data, control = self._handle_data(handle, ctx)
        self._accesses.forget(control, data.id)
        if not data.id:
            create.remove_labelled(control, data.sandbox_id, ctx)
        else:
            if data.lost:
                for shown in create.find_labelled(control, data.sandbox_id, ctx.install):
                    control.kill(shown.id)
            create.kill(control, data.id)
        if not proves_absence(data, ctx):
            raise other_key_error(data)

    def renew(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        """E2B counts whole seconds from the request."""
        data, control = self._identified(handle, ctx)
        if not control.end_in(data.id, _seconds(expires_at)):
            running_sandbox(control, data, ctx)  # a paused one has no end that could be moved
            raise BackendError(f"E2B does not prolong {data.id}", hint="run `sandboxer reconcile`")

    # -- inside ---------------------------------------------------------------------------------------------------

    def exec(self, handle: Handle, request: Exec, streams: Streams, ctx: Context) -> int:
        """Over envd."""
        _no_service(request.service)

        def run(envd: Envd, root: Envd) -> int:
            return e2b_exec.run(
                envd, root, request.argv, streams, ctx.deadline, cwd=request.cwd, env=request.env, tty=request.tty
            )

        return self._with_envd(handle, ctx, run, again=streams.stdin is None)

    def path_kind(self, handle: Handle, path: str, ctx: Context, *, service: str | None = None) -> PathKind:
        """Looks from inside."""
        _no_service(service)
        return self._with_envd(handle, ctx, lambda envd, _root: files.kind(envd, path, ctx.deadline))

    def knows_holes(self, handle: Handle, ctx: Context, *, service: str | None = None) -> bool:
        """Whether tar inside does."""
        _no_service(service)
        return self._with_envd(handle, ctx, lambda envd, _root: files.knows_holes(envd, ctx.deadline))

    def put_archive(
        self, handle: Handle, directory: str, archive: BinaryIO, ctx: Context, *, service: str | None = None
    ) -> None:
        """tar runs inside: whatever the archive says, it stays there."""
        _no_service(service)
        self._with_envd(handle, ctx, lambda envd, _root: files.put(envd, directory, archive, ctx.deadline), again=False)

    def get_archive(
        self, handle: Handle, path: str, sink: Callable[[bytes], None], ctx: Context, *, service: str | None = None
    ) -> LeftOut | None:
        """tar runs inside: links cannot lead out."""
        _no_service(service)
        return self._with_envd(handle, ctx, lambda envd, _root: files.take(envd, path, sink, ctx.deadline))

    def logs(
        self, handle: Handle, streams: Streams, ctx: Context, *, service: str | None, follow: bool, tail: int | None
    ) -> None:
        """What E2B keeps: starts and ends of processes, and what they wrote."""
        _no_service(service)
        data, control = self._identified(handle, ctx)
        logs.write(control, data.id, streams.stdout, follow=follow, tail=tail)

    def _with_envd(
        self, handle: Handle, ctx: Context, call: Callable[[Envd, Envd], _Result], *, again: bool = True
    ) -> _Result:
        """Make a call on the sandbox's envd; once more with a fresh token when the one that was known is refused. Not
        `again`: what it reads from is used up by then. Raises Conflict, saying why, when the sandbox does not run."""
        data, control = self._identified(handle, ctx)
        access = self._accesses.of(control, data, ctx)
        try:
            return call(Envd(data, access, ctx), Envd(data, access, ctx, user=_SUPERUSER))
        except Denied:
            self._accesses.forget(control, data.id)
            if not again:
                raise
            fresh = self._accesses.of(control, data, ctx)
            return call(Envd(data, fresh, ctx), Envd(data, fresh, ctx, user=_SUPERUSER))
        except (BackendError, Conflict, Unavailable) as error:
            if isinstance(error, BackendError) and error.outcome != "unknown":
                raise  # it was answered from inside
            self._accesses.forget(control, data.id)
            with suppress(Unavailable, Timeout):  # then the first error says more
                running_sandbox(E2BClient(ctx, deadline=Deadline(LOOK_SECONDS)), data, ctx)
            raise error

    # -- money, pauses, snapshots ---------------------------------------------------------------------------------

    def estimate_cost(self, options: E2BOptions) -> Resources:
        """A template's resources are billed for as long as the sandbox runs, used or not."""
        return allotted(decode(options))

    def meter_actual(self, handle: Handle, ctx: Context) -> Resources | None:
        """As E2B shows it."""
        data, control = self._handle_data(handle, ctx)
        shown = self._shown(data, control, ctx)
        return None if shown is None else shown.resources

    def stop(self, handle: Handle, ctx: Context) -> None:
        """Pauses it with its memory. A paused sandbox costs nothing, and E2B never ends it by itself."""
        data, control = self._identified(handle, ctx)
        if not control.pause(data.id):
            raise BackendError(f"E2B does not have {data.id} any more", hint="run `sandboxer reconcile`")
        self._accesses.forget(control, data.id)
        ctx.save(_changed(data, paused=True))

    def start(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        """Resumes it; `connect` only extends, so the end is set once more."""
        data, control = self._identified(handle, ctx)
        if control.connect(data.id, _seconds(expires_at)) is None:
            raise BackendError(f"E2B does not have {data.id} any more", hint="run `sandboxer reconcile`")
        control.end_in(data.id, _seconds(expires_at))
        ctx.save(_changed(data, paused=False, born=time.time()))

    def snapshot(self, handle: Handle, name: str, ctx: Context) -> Handle:
        """A template of its own, found by its name where the answer is lost."""
        data, control = self._identified(handle, ctx)
        return snapshots.take(control, data, name, ctx).handle()

    def restore_from_snapshot(self, spec: Spec, snapshot: Handle, ctx: Context) -> Handle:
        """A create with the snapshot as its template."""
        data = snapshot_data(snapshot)
        check_address(data.api, ctx)
        return self._make(spec, ctx, template=data.snapshot)

    def find_snapshot(self, name: str, ctx: Context) -> Handle | None:
        """By its name."""
        found = snapshots.find(E2BClient(ctx), name)
        return None if found is None else found.handle()

    def delete_snapshot(self, snapshot: Handle, ctx: Context) -> None:
        """Removes the template that it is."""
        snapshots.delete(snapshot_data(snapshot), ctx)

    def _handle_data(self, handle: Handle, ctx: Context) -> tuple[E2BHandleData, E2BClient]:
        """What was asked for, whether E2B has told its id or not."""
        data = sandbox_data(handle)
        check_address(data.api, ctx)
        return data, E2BClient(ctx)

    def _identified(self, handle: Handle, ctx: Context) -> tuple[E2BHandleData, E2BClient]:
        """One whose id E2B has told. Raises Conflict."""
        data, control = self._handle_data(handle, ctx)
        if not data.id:
            raise Conflict(
                f"E2B has not told what became of the create of {data.sandbox_id}",
                hint="run `sandboxer reconcile --apply`",
                fault="backend",
            )
        return data, control


def _changed(data: E2BHandleData, **fields: Any) -> Handle:
    return msgspec.structs.replace(data, **fields).handle()


def _seconds(expires_at: float | None) -> int:
    return create.MAX_TIMEOUT if expires_at is None else seconds_until(expires_at, time.time())


def _no_service(service: str | None) -> None:
    if service is not None:
        raise Invalid(f"service {service!r}: a sandbox at E2B has no services", hint="leave out --service")
