"""Create a sandbox, find out what became of a create that was not answered, and end one."""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec

from sandboxer.errors import Denied, Outcome, SandboxerError, Unavailable
from sandboxer.extensions.base import Context, Spec
from sandboxer.extensions.modal import client, handle, options, scripts
from sandboxer.extensions.modal.client import ModalClient, ModalScope
from sandboxer.extensions.modal.event_loop import ask as run
from sandboxer.extensions.modal.event_loop import bridge
from sandboxer.extensions.modal.handle import ModalHandleData
from sandboxer.extensions.modal.options import ModalOptions
from sandboxer.extensions.provider.account import other_key
from sandboxer.extensions.provider.lost_create import Look, Trouble, needs_look, settle, trouble_of, with_outcome
from sandboxer.timing import Deadline

SETTLE_SECONDS: Final = 15.0
"""How long may be spent, beyond the deadline, on finding out whether a sandbox exists."""
PROBE_MS: Final = 50
"""How often it is tried whether a starting sandbox is ready; each try is a tiny program inside."""


class Prerequisites(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be there before a sandbox is asked for."""

    account: ModalClient
    app: Any
    image: Any


def intent(spec: Spec, chosen: ModalOptions, scope: ModalScope, *, within: float) -> ModalHandleData:
    """Make the data of the handle that is saved before Modal is asked, which happens `within` seconds."""
    _, longest = handle.lives(spec, chosen)
    return msgspec.structs.replace(
        handle.bare(spec.resource, scope),
        ends=time.time() + within + longest,
        ports=chosen.ports,
        blocked=chosen.block_network,
        gpu=chosen.gpu,
    )


def shape(chosen: ModalOptions) -> str:
    """Word what is asked for, for people."""
    words = [f"{chosen.cpu:g} cores", f"{chosen.memory_gib:g} GiB", *([chosen.gpu] if chosen.gpu else [])]
    return ", ".join(words)


async def prepare(ctx: Context, scope: ModalScope, chosen: ModalOptions, image: str | None) -> Prerequisites:
    """Look up the connection, the App and the image; nothing that is billed exists after it. `image` is that of a
    snapshot."""
    account = await client.account(ctx)
    app = await account.app(scope)
    if image is not None:
        return Prerequisites(account=account, app=app, image=client.load().Image.from_id(image, client=account.client))
    return Prerequisites(account=account, app=app, image=await account.image(chosen, app))


async def ask(base: Prerequisites, spec: Spec, chosen: ModalOptions, intended: ModalHandleData) -> str:
    """Ask for a sandbox; Modal's id of it. For one with a GPU the SDK waits until there is a machine; when it is
    cancelled it terminates what it was waiting for."""
    modal = client.load()
    life, longest = handle.lives(spec, chosen)
    memory = options.memory_mib(chosen)
    sandbox = await modal.Sandbox.create.aio(
        "sh",
        "-c",
        scripts.KEEPER,
        "sh",
        str(life),
        *chosen.command,
        app=base.app,
        client=base.account.client,
        name=intended.name,
        tags=handle.tags(spec.labels, intended),
        image=base.image,
        env=dict(chosen.env),
        timeout=longest,
        idle_timeout=options.seconds(chosen.idle_timeout),
        workdir=chosen.workdir,
        gpu=chosen.gpu,
        cloud=chosen.cloud,
        region=chosen.region,
        cpu=(chosen.cpu, chosen.cpu),
        memory=(memory, memory),
        block_network=chosen.block_network,
        encrypted_ports=chosen.ports,
        readiness_probe=modal.Probe.with_exec("sh", "-c", scripts.READY, interval_ms=PROBE_MS),
    )
    return str(base.account.keep(sandbox).object_id)


async def by_name(account: ModalClient, known: ModalHandleData) -> Any:
    """Look up the running sandbox of a name; raises the SDK's NotFoundError."""
    return await client.load().Sandbox.from_name.aio(
        known.app, known.name, environment_name=known.environment, client=account.client
    )


async def look(ctx: Context, intended: ModalHandleData, sandbox_id: str) -> tuple[Look, ModalHandleData | None]:
    """Look at what runs under this name: the one that this installation means by it, another one, or nothing."""
    account = await client.account(ctx)
    try:
        sandbox = await by_name(account, intended)
        tags = await sandbox.get_tags.aio()
    except client.load().exception.NotFoundError:
        return "nothing", None
    if not handle.is_ours(tags, install=ctx.install, sandbox_id=sandbox_id):
        return "others", None
    account.keep(sandbox)
    return "ours", handle.again(intended.name, intended.scope, tags, provider_id=str(sandbox.object_id))


async def sandbox(ctx: Context, known: ModalHandleData) -> Any:
    """Look up the SDK's object of a sandbox, by Modal's id, else by name."""
    account = await client.account(ctx)
    if known.provider_id is not None:
        return await account.sandbox(known.provider_id)
    return await by_name(account, known)


def create(
    base: Prerequisites, spec: Spec, chosen: ModalOptions, intended: ModalHandleData, ctx: Context
) -> ModalHandleData:
    """Ask for a sandbox, and find out what became of it when there is no answer."""
    deadline = ctx.deadline
    if chosen.gpu is not None:  # the SDK itself would wait for a machine for 21 minutes
        deadline = deadline.shorter(options.seconds(chosen.capacity_timeout))
    try:
        provider_id = run(lambda: ask(base, spec, chosen, intended), deadline, "creating a sandbox")
    except SandboxerError as error:
        if error.code in ("not_found", "backend_error"):
            bridge().loop.call_soon_threadsafe(base.account.forget_base, intended.scope, chosen)
        return _settled(error, spec, chosen, intended, ctx)
    return msgspec.structs.replace(intended, provider_id=provider_id)


def _settled(
    error: SandboxerError, spec: Spec, chosen: ModalOptions, intended: ModalHandleData, ctx: Context
) -> ModalHandleData:
    """Settle a create that was not answered with success, by `provider.lost_create`: the sandbox, when it is
    there and still wanted. Otherwise raises the error, saying what became of it."""
    late = error.code == "timeout" or (error.outcome == "unknown" and ctx.deadline.passed)
    trouble: Trouble = "late" if late else trouble_of(error)
    if not needs_look(trouble, doubt=False):
        error.made_nothing = isinstance(error, Denied)  # else an earlier try of the SDK's may have arrived
        raise error
    deadline = ctx.deadline.shorter(SETTLE_SECONDS)  # without time left, who asked takes it back by its name
    try:
        seen, found = run(lambda: look(ctx, intended, spec.sandbox_id), deadline, "looking for the sandbox")
    except SandboxerError:
        seen, found = "unseen", None
    verdict = settle(trouble, seen, again=False)
    if verdict == "adopt" and found is not None:
        return msgspec.structs.replace(intended, provider_id=found.provider_id)
    if verdict == "remove" and found is not None:
        try:
            end(found, ctx, deadline)
        except SandboxerError:
            verdict = "unknown"
    raise _no_machine(error, chosen, ctx, "unknown" if verdict == "unknown" else "failed") from None


def _no_machine(error: SandboxerError, chosen: ModalOptions, ctx: Context, outcome: Outcome) -> SandboxerError:
    """Choose the error to raise: that there was no machine, when that is what was waited for."""
    if chosen.gpu is None or error.code != "timeout" or ctx.deadline.passed:
        return with_outcome(error, outcome)
    return Unavailable(
        f"Modal had no free {chosen.gpu} for {chosen.capacity_timeout}",
        hint="try again later, choose another gpu, or raise the option `capacity_timeout`",
        outcome=outcome,
    )


def end(known: ModalHandleData, ctx: Context, deadline: Deadline) -> None:
    """Terminate a sandbox and wait for its end. Raises BackendError when "not found" proves nothing."""
    scope = client.scope_of(ctx)

    async def work() -> bool:
        account = await client.account(ctx)
        modal = client.load()
        try:
            found = await sandbox(ctx, known)
            account.forget(found.object_id)
            await found.terminate.aio(wait=True)
        except modal.exception.SandboxTimeoutError:
            return True  # it had ended by itself
        except modal.exception.NotFoundError:
            return handle.proves_absence(known, scope)
        return True

    if not run(work, deadline, "terminating the sandbox"):
        raise other_key(known.name, provider="Modal", variables="MODAL_TOKEN_ID and MODAL_TOKEN_SECRET")
