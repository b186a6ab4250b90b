"""Fulfil the extension contract for Modal, from the modules beside this one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, Final

from sandboxer.errors import BackendError, Invalid, NotFound, SandboxerError, Unsupported
from sandboxer.extensions.base import (
    CanCopy,
    CanExec,
    CanLogs,
    CanMeter,
    CanRenew,
    CanSnapshot,
    Context,
    Exec,
    Found,
    LeftOut,
    PathKind,
    SandboxExtension,
    Spec,
    Status,
)
from sandboxer.extensions.modal import client, create, describe, files, logs, options, scripts, snapshots
from sandboxer.extensions.modal import exec as modal_exec
from sandboxer.extensions.modal import handle as modal_handle
from sandboxer.extensions.modal.event_loop import ask, bridge
from sandboxer.extensions.modal.handle import ModalHandleData
from sandboxer.extensions.modal.options import ModalOptions
from sandboxer.extensions.provider.lost_create import with_outcome
from sandboxer.extensions.shell import files as shell_files
from sandboxer.hosts.base import Streams
from sandboxer.models import Handle, Ready, Requirements, Resources
from sandboxer.names import LABEL_EXPIRES, resource_name

LOOK_SECONDS: Final = 60.0
"""One question to Modal takes no longer."""
LIST_SECONDS: Final = 120.0
BUILD_SECONDS: Final = 3600.0
"""An image is built in less, or the create has failed long since."""


class ModalExtension(SandboxExtension, CanExec, CanCopy, CanLogs, CanRenew, CanMeter, CanSnapshot):
    """Sandboxes at Modal, in an App that only this installation uses."""

    Options = ModalOptions

    def check(self, ctx: Context) -> None:
        """Looks the App up, which needs valid credentials; it need not be there yet."""
        scope = client.scope_of(ctx)
        modal = client.load()

        async def look() -> None:
            with suppress(modal.exception.NotFoundError):
                await (await client.account(ctx)).app(scope, make=False)

        ask(look, ctx.deadline.shorter(LOOK_SECONDS), "checking the credentials")

    def fit(self, options_: Any, require: Requirements) -> Any:
        """Raises processors and memory to what is required; sets the GPU and closes the network."""
        return options.fit(options_, require)

    def estimate_cost(self, options_: Any) -> Resources:
        """The limits that a sandbox is given: it can never be billed for more."""
        return options.resources(options_)

    def meter_actual(self, handle: Handle, ctx: Context) -> Resources | None:
        """Modal's public API does not show what a sandbox is allotted."""
        return None

    # -- life cycle -----------------------------------------------------------------------------------------------

    def provision(self, spec: Spec, ctx: Context) -> Handle:
        """The handle first, by name; then the image; then the sandbox, whose lost answer is settled by its name."""
        return self._create(spec, ctx, image=None)

    def _create(self, spec: Spec, ctx: Context, *, image: str | None) -> Handle:
        chosen: ModalOptions = spec.options
        scope = client.scope_of(ctx)
        client.load()
        ctx.deadline.check("creating a sandbox at Modal")
        ctx.save(create.intent(spec, chosen, scope, within=ctx.deadline.seconds(BUILD_SECONDS)).handle())
        ctx.progress("resolve", f"image {chosen.image or 'debian'} at Modal")
        base = self._base(scope, chosen, ctx, image)
        ctx.progress("start", f"{spec.resource} ({create.shape(chosen)})")
        intended = create.intent(spec, chosen, scope, within=0)
        try:
            known = create.create(base, spec, chosen, intended, ctx)
        except NotFound:
            # the App or the image that this process knew is gone at Modal
            known = create.create(self._base(scope, chosen, ctx, image), spec, chosen, intended, ctx)
        ctx.save(known.handle())
        return known.handle()

    def _base(
        self, scope: client.ModalScope, chosen: ModalOptions, ctx: Context, image: str | None
    ) -> create.Prerequisites:
        try:
            return ask(lambda: create.prepare(ctx, scope, chosen, image), ctx.deadline, "preparing the image")
        except SandboxerError as error:
            # no sandbox has been asked for
            raise with_outcome(error, "failed") from None

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        """Until its main program runs; then where its ports are reached."""
        known = self._known(handle, ctx)
        ctx.progress("wait", f"{known.name} at Modal")
        found = describe.ready(known, ctx)
        ctx.progress("ready", found.reachability.provider_id or known.name)
        return found

    def status(self, handle: Handle, ctx: Context) -> Status:
        """See `looking.status`."""
        try:
            return describe.status(self._known(handle, ctx), ctx, ctx.deadline.shorter(LOOK_SECONDS))
        except SandboxerError as error:
            return Status("unknown", error.message)

    def find(self, sandbox_id: str, ctx: Context) -> Handle | None:
        """By its name, which is unique in our App among what runs."""
        scope = client.scope_of(ctx)
        client.load()

        intended = modal_handle.bare(resource_name(sandbox_id), scope)
        _, found = ask(
            lambda: create.look(ctx, intended, sandbox_id), ctx.deadline.shorter(LOOK_SECONDS), "looking for it"
        )
        return None if found is None else found.handle()

    def inventory(self, ctx: Context) -> Sequence[Found]:
        """All that runs in our App with the installation's tag."""
        return ask(
            lambda: describe.listed(ctx, client.scope_of(ctx)), ctx.deadline.shorter(LIST_SECONDS), "listing sandboxes"
        )

    def teardown(self, handle: Handle, ctx: Context) -> None:
        """Terminate it, and wait until Modal says that it has ended."""
        create.end(self._known(handle, ctx), ctx, ctx.deadline)

    def renew(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        """Within what Modal was told at create: the keeper inside and the tag take the new end. Raises Unsupported
        beyond that: Modal prolongs nothing."""
        known = self._known(handle, ctx)
        if expires_at is None or expires_at > known.ends:
            raise Unsupported(
                f"Modal ends {known.name} in {describe.spare(known)}s, as it was told at create, and prolongs nothing",
                hint="run `sandboxer recreate`, or set the option `max_life` of the profile for the next one",
            )
        left = max(1, math.ceil(expires_at - time.time()))
        done = modal_exec.capture(
            bridge(), lambda: create.sandbox(ctx, known), ["sh", "-c", scripts.PROLONG, "sh", str(left)], ctx.deadline
        )
        if done.code != 0:
            raise BackendError(f"the end of {known.name} could not be moved: {done.complaint}", hint="try again")

        async def mark() -> None:
            sandbox = await create.sandbox(ctx, known)
            tags = await sandbox.get_tags.aio()
            await sandbox.set_tags.aio({**tags, LABEL_EXPIRES.replace(".", "-"): str(int(expires_at))})

        ask(mark, ctx.deadline.shorter(LOOK_SECONDS), "writing the tags")

    # -- inside ---------------------------------------------------------------------------------------------------

    def exec(self, handle: Handle, request: Exec, streams: Streams, ctx: Context) -> int:
        """Through a shell that becomes the command; see `inside`."""
        _no_service(request.service)
        known = self._known(handle, ctx)
        return modal_exec.RunningCommand(bridge(), lambda: create.sandbox(ctx, known), request, streams).run(
            ctx.deadline
        )

    def path_kind(self, handle: Handle, path: str, ctx: Context, *, service: str | None = None) -> PathKind:
        """Looks from inside."""
        return shell_files.path_kind(self._runner(handle, ctx, service), path)

    def knows_holes(self, handle: Handle, ctx: Context, *, service: str | None = None) -> bool:
        """Whether tar inside does."""
        return shell_files.knows_holes(self._runner(handle, ctx, service))

    def put_archive(
        self, handle: Handle, directory: str, archive: BinaryIO, ctx: Context, *, service: str | None = None
    ) -> None:
        """tar runs inside: whatever the archive says, it stays there."""
        hint = "may the image's user write there?"
        shell_files.put_archive(self._runner(handle, ctx, service), directory, archive, hint=hint)

    def get_archive(
        self, handle: Handle, path: str, sink: Callable[[bytes], None], ctx: Context, *, service: str | None = None
    ) -> LeftOut | None:
        """tar runs inside: links cannot lead out."""
        return shell_files.get_archive(self._runner(handle, ctx, service), path, sink)

    def _runner(self, handle: Handle, ctx: Context, service: str | None) -> shell_files.Run:
        _no_service(service)
        known = self._known(handle, ctx)
        return files.runner(bridge(), lambda: create.sandbox(ctx, known), ctx.deadline)

    def logs(
        self, handle: Handle, streams: Streams, ctx: Context, *, service: str | None, follow: bool, tail: int | None
    ) -> None:
        """What the option `command` writes. What was executed has its own output."""
        _no_service(service)
        known = self._known(handle, ctx)
        logs.show(lambda: create.sandbox(ctx, known), streams, ctx.deadline, follow=follow, tail=tail)

    # -- snapshots ------------------------------------------------------------------------------------------------

    def snapshot(self, handle: Handle, name: str, ctx: Context) -> Handle:
        """An image of the file system."""
        return snapshots.keep(self._known(handle, ctx), ctx).handle()

    def restore_from_snapshot(self, spec: Spec, snapshot: Handle, ctx: Context) -> Handle:
        """A new sandbox of that image; the option `image` does not matter then."""
        kept = modal_handle.snapshot(snapshot)
        modal_handle.check_server(kept.server, client.scope_of(ctx).server)
        return self._create(spec, ctx, image=kept.image)

    def delete_snapshot(self, snapshot: Handle, ctx: Context) -> None:
        """Deletes the image."""
        snapshots.delete(modal_handle.snapshot(snapshot), ctx)

    def _known(self, handle: Handle, ctx: Context) -> ModalHandleData:
        known = modal_handle.sandbox(handle)
        scope = client.scope_of(ctx)
        modal_handle.check_server(known.server, scope.server)
        if known.provider_id is None:  # it has to be looked for by name, which is one of its environment
            modal_handle.check_environment(known.environment, scope.environment)
        client.load()
        return known


def _no_service(service: str | None) -> None:
    if service is not None:
        raise Invalid(f"service {service!r}: a sandbox of Modal has only one place", hint="leave out --service")
