"""Fulfil the extension contract for Daytona, from the modules beside this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, ClassVar

import msgspec

from sandboxer import document_bounds
from sandboxer.errors import BackendError, Invalid, SandboxerError, Unsupported
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
from sandboxer.extensions.daytona import create, describe, files, logs, snapshots
from sandboxer.extensions.daytona import exec as daytona_exec
from sandboxer.extensions.daytona.client import DaytonaClient
from sandboxer.extensions.daytona.create import create_body, minutes
from sandboxer.extensions.daytona.handle import DaytonaHandleData, check_base, from_handle, proves_absence, to_handle
from sandboxer.extensions.daytona.options import DaytonaOptions, allotted, decode, fit, with_target
from sandboxer.extensions.daytona.sandbox import DaytonaSandbox
from sandboxer.hosts.base import Streams
from sandboxer.http import segment
from sandboxer.models import Handle, Ready, Requirements, Resources, Written
from sandboxer.names import LABEL_EXPIRES, LABEL_ID, LABEL_INSTALL, resource_name
from sandboxer.timing import now

STATUS_SECONDS = 30.0


class DaytonaExtension(SandboxExtension, CanExec, CanCopy, CanLogs, CanRenew, CanMeter, CanStop, CanSnapshot):
    """Sandboxes of one Daytona organization: the one that the key belongs to."""

    Options: ClassVar[type[Written]] = DaytonaOptions

    def check(self, ctx: Context) -> None:
        """Asks for one sandbox of this installation: the key is good and the address is right when that is answered."""
        cloud = DaytonaClient(ctx)
        cloud.api.call("GET", "/sandbox", ctx.deadline, params={"limit": 1}, retry="safe")

    def fit(self, options: Any, require: Requirements) -> DaytonaOptions:
        """Sizes go with an image only; `network: none` blocks everything."""
        return fit(decode(options), require)

    # -- life -----------------------------------------------------------------------------------------------------

    def provision(self, spec: Spec, ctx: Context) -> Handle:
        """One create, asked until its outcome is known."""
        return self._made(spec, decode(spec.options), ctx)

    def _made(self, spec: Spec, options: DaytonaOptions, ctx: Context) -> Handle:
        cloud, options = DaytonaClient(ctx), with_target(options, ctx.endpoints.get("target"))
        ctx.deadline.check(f"asking Daytona for {spec.resource}")
        began = now()
        body = create_body(options, name=spec.resource, labels=spec.labels, expires_at=spec.expires_at, now=began)
        ttl = body.get("ttlMinutes")
        data = DaytonaHandleData(
            name=spec.resource,
            base=cloud.base,
            key=cloud.key,
            until=None if ttl is None else began + ttl * 60,
            keeps=options.auto_delete_minutes,
            ports=options.ports,
            ssh=options.ssh,
        )
        # Its name is all that is needed to find it again; and whose key can see it must be known before it exists.
        ctx.save(to_handle(data))
        ctx.progress("start", f"{spec.resource} at {cloud.api.base.host}")
        made = create.create(cloud, body, ctx.deadline)
        seen = made if made.phase == "up" else None
        handle = to_handle(msgspec.structs.replace(data, id=made.id, toolbox=made.toolbox, seen=seen))
        ctx.save(handle)
        return handle

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        """Waits until it has started and its toolbox answers. What had started when it was made (out of a warm pool) is
        not asked about again: its toolbox shows whether it is up."""
        cloud, data = self._handle_data(handle, ctx)
        up = data.seen or create.until_up(cloud, data.name, ctx.deadline, lambda text: ctx.progress("wait", text))
        workspace = create.until_answering(cloud, up, ctx.deadline)
        return Ready(
            reachability=describe.reachability(cloud, data, up, workspace=workspace, deadline=ctx.deadline),
            isolation=describe.isolation(up, data),
            resources=up.resources,
            ends_at=up.destroyed_at,
        )

    def status(self, handle: Handle, ctx: Context) -> Status:
        """One look by name, which reads Daytona's database; `absent` only by a key that would see it."""
        try:
            cloud, data = self._handle_data(handle, ctx)
            found = cloud.sandbox(data.name, ctx.deadline.shorter(STATUS_SECONDS))
        except SandboxerError as error:
            return Status("unknown", error.message)
        if found is not None and found.phase != "gone":
            return describe.status(found)
        if proves_absence(data, cloud.key, now=now()):
            return Status("absent")
        return Status("unknown", "it was made with another key, which alone can show whether it is gone")

    def find(self, sandbox_id: str, ctx: Context) -> Handle | None:
        """By name. Raises unless Daytona answers."""
        cloud = DaytonaClient(ctx)
        found = cloud.sandbox(resource_name(sandbox_id), ctx.deadline)
        if found is None or found.phase == "gone":
            return None
        if not found.labels:
            raise BackendError(
                f"{found.name} exists at Daytona without labels: it cannot be told whose it is",
                hint="look at it at app.daytona.io",
                outcome="unknown",
            )
        if not create.is_ours(found, sandbox_id, ctx.install):
            return None
        return to_handle(_data_of(found, cloud))

    def inventory(self, ctx: Context) -> Sequence[Found]:
        """Every page of the listing, or it raises. The listing is Daytona's index, which may lag: what it lacks is not
        therefore gone, and `status` says whether it is."""
        cloud = DaytonaClient(ctx)
        listed = cloud.listed({LABEL_INSTALL: ctx.install}, ctx.deadline)
        # A filter that a server does not know is none: the labels are looked at here, too.
        return [
            _found(view, cloud)
            for view in listed
            if view.phase != "gone" and view.labels.get(LABEL_INSTALL) == ctx.install and LABEL_ID in view.labels
        ]

    def teardown(self, handle: Handle, ctx: Context) -> None:
        """Deletes it and waits until Daytona shows it no more."""
        data = from_handle(handle)
        cloud = DaytonaClient(ctx)
        if data.kind == "snapshot":
            snapshots.forget(cloud, data, ctx.deadline)
            return
        create.remove(cloud, data, ctx.deadline)

    def renew(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        """Daytona's own timer first, which is what keeps it alive, then the label that shows it."""
        cloud, data = self._handle_data(handle, ctx)
        path = f"/sandbox/{segment(data.name)}"
        began = now()
        ttl = minutes(expires_at, began)
        timed = cloud.ask("POST", f"{path}/ttl/{ttl}", ctx.deadline, absent_ok=True, known=False)
        found = cloud.sandbox(data.name, ctx.deadline)
        if found is None or found.phase == "gone":
            raise BackendError(f"{data.name} is gone from Daytona", hint="run `sandboxer reconcile`")
        expires = "never" if expires_at is None else str(int(expires_at))
        labels = {**found.labels, LABEL_EXPIRES: expires}
        cloud.ask("PUT", f"{path}/labels", ctx.deadline, json={"labels": labels})
        until = began + ttl * 60 if timed is not None and ttl else None
        ctx.save(to_handle(msgspec.structs.replace(data, until=until)))

    # -- use ------------------------------------------------------------------------------------------------------

    def exec(self, handle: Handle, request: Exec, streams: Streams, ctx: Context) -> int:
        """By the toolbox, in a session of its own."""
        _no_service(request.service)
        if request.tty:
            raise Unsupported(
                "a command at Daytona gets no terminal", hint="leave out --tty; for a terminal use options.ssh"
            )
        with self._using(handle, ctx) as toolbox:
            return daytona_exec.run(toolbox, request.argv, streams, ctx.deadline, cwd=request.cwd, env=request.env)

    def path_kind(self, handle: Handle, path: str, ctx: Context, *, service: str | None = None) -> PathKind:
        """One look inside."""
        _no_service(service)
        with self._using(handle, ctx) as toolbox:
            return files.kind(toolbox, path, ctx.deadline)

    def knows_holes(self, handle: Handle, ctx: Context, *, service: str | None = None) -> bool:
        """Whether tar inside does."""
        _no_service(service)
        with self._using(handle, ctx) as toolbox:
            return files.knows_holes(toolbox, ctx.deadline)

    def put_archive(
        self, handle: Handle, directory: str, archive: BinaryIO, ctx: Context, *, service: str | None = None
    ) -> None:
        """tar runs inside."""
        _no_service(service)
        with self._using(handle, ctx) as toolbox:
            files.put(toolbox, directory, archive, ctx.deadline)

    def get_archive(
        self, handle: Handle, path: str, sink: Callable[[bytes], None], ctx: Context, *, service: str | None = None
    ) -> LeftOut | None:
        """tar runs inside."""
        _no_service(service)
        with self._using(handle, ctx) as toolbox:
            return files.take(toolbox, path, sink, ctx.deadline)

    def logs(
        self, handle: Handle, streams: Streams, ctx: Context, *, service: str | None, follow: bool, tail: int | None
    ) -> None:
        """Of the entry point; of the build while it does not run yet."""
        _no_service(service)
        cloud, data = self._handle_data(handle, ctx)
        logs.show(cloud, data.name, streams, ctx.deadline, follow=follow, tail=tail)

    # -- money, stops, snapshots -----------------------------------------------------------------------------------

    def estimate_cost(self, options: Any) -> Resources:
        """By the options; Daytona's defaults where they are silent."""
        return allotted(decode(options))

    def meter_actual(self, handle: Handle, ctx: Context) -> Resources | None:
        """What Daytona shows now."""
        cloud, data = self._handle_data(handle, ctx)
        found = cloud.sandbox(data.name, ctx.deadline)
        return None if found is None else found.resources

    def stop(self, handle: Handle, ctx: Context) -> None:
        """Stops it; one that Daytona would delete as soon as it stops is kept from that first."""
        cloud, data = self._handle_data(handle, ctx)
        found = create.until_state(
            cloud, data.name, ctx.deadline, wanted=lambda view: view.phase != "coming", doing="stopping"
        )
        if found.phase == "up":
            if 0 in (data.keeps, found.auto_delete):
                create.change(cloud, data.name, "autodelete/-1", ctx.deadline)
            create.change(cloud, data.name, "stop", ctx.deadline)
        create.until_state(
            cloud,
            data.name,
            ctx.deadline,
            wanted=lambda view: view.state in ("stopped", "archived", "paused"),
            doing="stopping",
        )

    def start(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        """Starts it, with the TTL that is agreed now, and lets a stop by Daytona's own timers delete it again."""
        cloud, data = self._handle_data(handle, ctx)
        found = cloud.sandbox(data.name, ctx.deadline)
        if found is None or found.phase == "gone":
            raise BackendError(f"{data.name} is gone from Daytona", hint="run `sandboxer reconcile`")
        if found.phase == "resting":
            create.change(cloud, data.name, "start", ctx.deadline)
        create.until_up(cloud, data.name, ctx.deadline, lambda text: ctx.progress("wait", text))
        if data.keeps == 0:
            create.change(cloud, data.name, "autodelete/0", ctx.deadline)
        self.renew(handle, expires_at, ctx)

    def snapshot(self, handle: Handle, name: str, ctx: Context) -> Handle:
        """Daytona keeps the files under the snapshot's name."""
        cloud, data = self._handle_data(handle, ctx)
        kept = snapshots.keep(cloud, data.name, name, ctx.deadline)
        return to_handle(DaytonaHandleData(name=name, base=cloud.base, key=cloud.key, kind="snapshot", id=kept))

    def restore_from_snapshot(self, spec: Spec, snapshot: Handle, ctx: Context) -> Handle:
        """A sandbox of the same options, from the snapshot instead of their image."""
        kept = from_handle(snapshot)
        check_base(kept, DaytonaClient(ctx).base)
        options = msgspec.structs.replace(decode(spec.options), image=None, snapshot=kept.name)
        return self._made(spec, options, ctx)

    def find_snapshot(self, name: str, ctx: Context) -> Handle | None:
        """By its name, which is ours alone."""
        cloud = DaytonaClient(ctx)
        found = snapshots.named(cloud, name, ctx.deadline)
        if found is None:
            return None
        return to_handle(DaytonaHandleData(name=name, base=cloud.base, key=cloud.key, kind="snapshot", id=found))

    def delete_snapshot(self, snapshot: Handle, ctx: Context) -> None:
        """Removes it and sees that it is gone."""
        snapshots.forget(DaytonaClient(ctx), from_handle(snapshot), ctx.deadline)

    # -- parts ----------------------------------------------------------------------------------------------------

    def _handle_data(self, handle: Handle, ctx: Context) -> tuple[DaytonaClient, DaytonaHandleData]:
        data = from_handle(handle)
        cloud = DaytonaClient(ctx)
        check_base(data, cloud.base)
        return cloud, data

    def _using(self, handle: Handle, ctx: Context) -> create.ToolboxSession:
        cloud, data = self._handle_data(handle, ctx)
        return create.ToolboxSession(cloud, data, ctx.deadline)


def _no_service(service: str | None) -> None:
    if service is not None:
        raise Invalid(
            f"service {service!r}: a Daytona sandbox is one place", hint="leave out --service; everything runs there"
        )


def _data_of(found: DaytonaSandbox, cloud: DaytonaClient) -> DaytonaHandleData:
    return DaytonaHandleData(
        name=found.name,
        base=cloud.base,
        key=cloud.key,
        id=found.id,
        toolbox=found.toolbox,
        until=found.destroyed_at,
        keeps=-1 if found.auto_delete is None else found.auto_delete,
    )


def _found(view: DaytonaSandbox, cloud: DaytonaClient) -> Found:
    expires = view.labels.get(LABEL_EXPIRES, "never")
    return Found(
        sandbox_id=view.labels[LABEL_ID],
        handle=to_handle(_data_of(view, cloud)),
        labels=view.labels,
        created_at=view.created_at,
        expires_at=document_bounds.number(expires),
        detail=f"{view.name} {view.trouble}",
    )
