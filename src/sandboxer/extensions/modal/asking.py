"""Questions to Modal: each under a deadline, and its failures in our own words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import msgspec

from sandboxer.errors import Denied, Outcome, SandboxerError, Unavailable
from sandboxer.extensions.base import Context, Found, Spec
from sandboxer.extensions.modal import client, handle, options
from sandboxer.extensions.modal import create as modal_create
from sandboxer.extensions.modal.errors import translated
from sandboxer.extensions.modal.event_loop import bridge
from sandboxer.extensions.modal.handle import ModalHandleData
from sandboxer.extensions.modal.options import ModalOptions
from sandboxer.extensions.provider.account import other_key
from sandboxer.extensions.provider.lost_create import Trouble, needs_look, settle, trouble_of, with_outcome
from sandboxer.names import LABEL_EXPIRES, LABEL_ID, LABEL_INSTALL, resource_name
from sandboxer.timing import Deadline

T = TypeVar("T")

_TOGETHER: Final = 16
"""How many sandboxes are asked for their tags at the same time."""


def ask(work: Callable[[], Coroutine[Any, Any, T]], deadline: Deadline, doing: str) -> T:
    """Run coroutines of the SDK under a deadline; its failures as ours."""
    try:
        return bridge().run(work, deadline, doing)
    except SandboxerError:
        raise
    except Exception as error:
        known = translated(error, doing)
        if known is None:
            raise
        raise known from None


async def sandbox(ctx: Context, known: ModalHandleData) -> Any:
    """The SDK's object for a sandbox that is remembered, by Modal's id, else by name."""
    account = await client.account(ctx)
    if known.provider_id is not None:
        return await account.sandbox(known.provider_id)
    return await modal_create.by_name(account, known)


def create(
    base: modal_create.Prerequisites, spec: Spec, chosen: ModalOptions, wanted: ModalHandleData, ctx: Context
) -> ModalHandleData:
    """Ask for a sandbox, and find out what became of it when there is no answer."""
    deadline = ctx.deadline
    if chosen.gpu is not None:  # the SDK itself would wait for a machine for 21 minutes
        deadline = deadline.shorter(options.seconds(chosen.capacity_timeout))
    try:
        provider_id = ask(lambda: modal_create.ask(base, spec, chosen, wanted), deadline, "creating a sandbox")
    except SandboxerError as error:
        if error.code in ("not_found", "backend_error"):
            bridge().loop.call_soon_threadsafe(base.account.forget_base, wanted.place, chosen)
        return _settled(error, spec, chosen, wanted, ctx)
    return msgspec.structs.replace(wanted, provider_id=provider_id)


def _settled(
    error: SandboxerError, spec: Spec, chosen: ModalOptions, wanted: ModalHandleData, ctx: Context
) -> ModalHandleData:
    """What became of a create that was not answered with success, by `provider.lost_create`: the sandbox, when it is
    there and still wanted. Otherwise raises the error, saying what became of it."""
    late = error.code == "timeout" or (error.outcome == "unknown" and ctx.deadline.passed)
    trouble: Trouble = "late" if late else trouble_of(error)
    if not needs_look(trouble, doubt=False):
        error.made_nothing = isinstance(error, Denied)  # else an earlier try of the SDK's may have arrived
        raise error
    deadline = ctx.deadline.shorter(
        modal_create.SETTLE_SECONDS
    )  # without time left, who asked takes it back by its name
    try:
        look, found = ask(lambda: modal_create.look(ctx, wanted, spec.sandbox_id), deadline, "looking for the sandbox")
    except SandboxerError:
        look, found = "unseen", None
    verdict = settle(trouble, look, again=False)
    if verdict == "adopt" and found is not None:
        return msgspec.structs.replace(wanted, provider_id=found.provider_id)
    if verdict == "remove" and found is not None:
        try:
            end(found, ctx, deadline)
        except SandboxerError:
            verdict = "unknown"
    raise _no_machine(error, chosen, ctx, "unknown" if verdict == "unknown" else "failed") from None


def _no_machine(error: SandboxerError, chosen: ModalOptions, ctx: Context, outcome: Outcome) -> SandboxerError:
    """The error to raise: that there was no machine, when that is what was waited for."""
    if chosen.gpu is None or error.code != "timeout" or ctx.deadline.passed:
        return with_outcome(error, outcome)
    return Unavailable(
        f"Modal had no free {chosen.gpu} for {chosen.capacity_timeout}",
        hint="try again later, choose another gpu, or raise the option `capacity_timeout`",
        outcome=outcome,
    )


def end(known: ModalHandleData, ctx: Context, deadline: Deadline) -> None:
    """Terminate a sandbox and wait for its end. Raises BackendError when "not found" proves nothing."""
    where = client.place(ctx)

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
            return handle.is_gone(known, where)
        return True

    if not ask(work, deadline, "terminating the sandbox"):
        raise other_key(known.name, provider="Modal", variables="MODAL_TOKEN_ID and MODAL_TOKEN_SECRET")


async def listed(ctx: Context, where: client.ModalScope) -> list[Found]:
    """All that runs in our App with the installation's tag. Tags have to be asked for one by one."""
    account = await client.account(ctx)
    modal = client.load()
    try:
        app = await account.app(where, make=False)
    except modal.exception.NotFoundError:
        return []  # nothing was ever made
    listing = modal.Sandbox.list.aio(app_id=app.app_id, tags=handle.listing_filter(ctx.install), client=account.client)
    gate = asyncio.Semaphore(_TOGETHER)

    async def look(found: Any) -> Found | None:
        async with gate:
            try:
                tags = await found.get_tags.aio()
            except modal.exception.NotFoundError:
                return None  # it ended since it was listed
        return _found(tags, where, str(found.object_id), install=ctx.install)

    running = [found async for found in listing]
    return [found for found in await asyncio.gather(*map(look, running)) if found is not None]


def _found(tags: dict[str, str], where: client.ModalScope, provider_id: str, *, install: str) -> Found | None:
    labels = handle.labels(tags)
    sandbox_id = labels.get(LABEL_ID)
    if sandbox_id is None or labels.get(LABEL_INSTALL) != install:  # a filter that a server does not know is none
        return None
    created, expires = labels.get(handle.CREATED), labels.get(LABEL_EXPIRES, "never")
    return Found(
        sandbox_id=sandbox_id,
        handle=handle.again(resource_name(sandbox_id), where, tags, provider_id=provider_id).handle(),
        labels={name: value for name, value in labels.items() if name not in handle.OWN},
        created_at=None if created is None else float(created),
        expires_at=None if expires == "never" else float(expires),
        detail=provider_id,
    )
