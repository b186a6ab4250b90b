"""Describe what Modal shows of sandboxes: whether one is ready, whether it is there, and which there are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from sandboxer.errors import BackendError, Conflict, NotFound
from sandboxer.extensions.base import Context, Found, Status
from sandboxer.extensions.modal import client, create, handle, options
from sandboxer.extensions.modal.event_loop import ask
from sandboxer.extensions.modal.handle import ModalHandleData
from sandboxer.models import Isolation, Reachability, Ready, Service
from sandboxer.names import LABEL_EXPIRES, LABEL_ID, LABEL_INSTALL, resource_name, sandbox_id_of
from sandboxer.timing import Deadline

_TOGETHER: Final = 16
"""How many sandboxes are asked for their tags at the same time."""


def ready(known: ModalHandleData, ctx: Context) -> Ready:
    """Wait until its main program runs; how it is reached then. Raises BackendError when it ended instead."""
    left = ctx.deadline.left(at_most=options.LONGEST)

    async def wait() -> tuple[str, Mapping[int, Any]]:
        sandbox = await create.sandbox(ctx, known)
        try:
            await sandbox.wait_until_ready.aio(timeout=max(1, int(left or 1)))
        except (
            client.load().exception.UnimplementedError
        ):  # a server that knows no probes: one that runs commands is up
            await (await sandbox.exec.aio("sh", "-c", ":")).wait.aio()
        return sandbox.object_id, ({} if known.ports == [] else await sandbox.tunnels.aio())

    try:
        provider_id, tunnels = ask(wait, ctx.deadline, "waiting for the sandbox")
    except (BackendError, Conflict, NotFound) as error:
        raise BackendError(
            f"{known.name} ended before it was ready: {error.message}",
            hint="its image needs a POSIX shell and `sleep`; see its logs at modal.com",
        ) from None
    reachability = Reachability(
        kind="api",
        provider_id=provider_id,
        command=f"sandboxer exec {sandbox_id_of(known.name) or known.name} -- sh",
        services=[_service(port, tunnels[port]) for port in sorted(tunnels)],
    )
    return Ready(reachability=reachability, isolation=_isolation(known, open_ports=bool(tunnels)))


def _service(port: int, tunnel: Any) -> Service:
    return Service(name=f"port-{port}", container_port=port, host=tunnel.host, port=tunnel.port, url=tunnel.url)


def _isolation(known: ModalHandleData, *, open_ports: bool) -> Isolation:
    notes = ["system calls are served by gVisor, not by the host's kernel"]
    if known.gpu is not None:
        notes.append("the GPU's driver is the host's own, reached through gVisor")
    if open_ports:
        notes.append("its ports are open to the Internet, by TLS")
    return Isolation(class_="container", network="none" if known.blocked else "internet", notes=notes)


def status(known: ModalHandleData, ctx: Context, deadline: Deadline) -> Status:
    """Describe the state of a sandbox, by Modal's id, else by name; Modal knows no stopped ones. "Not found" is
    believed only of the credentials that made it, or when its end is over anyway."""
    scope = client.scope_of(ctx)

    async def look() -> Status:
        account = await client.account(ctx)
        modal = client.load()
        try:
            if known.provider_id is not None:
                sandbox = await modal.Sandbox.from_id.aio(known.provider_id, client=account.client)
            else:
                sandbox = await create.by_name(account, known)
        except modal.exception.NotFoundError as error:
            if not handle.proves_absence(known, scope):
                return Status("unknown", "it was made with other credentials, and these do not see it")
            return Status("absent", str(error)[:200])
        ended = sandbox.returncode
        return Status("running") if ended is None else Status("absent", f"it ended with {ended}")

    return ask(look, deadline, "looking at the sandbox")


async def listed(ctx: Context, scope: client.ModalScope) -> list[Found]:
    """List all that runs in our App with the installation's tag. Tags have to be asked for one by one."""
    account = await client.account(ctx)
    modal = client.load()
    try:
        app = await account.app(scope, make=False)
    except modal.exception.NotFoundError:
        return []  # nothing was ever made
    listing = modal.Sandbox.list.aio(app_id=app.app_id, tags=handle.listing_filter(ctx.install), client=account.client)
    slots = asyncio.Semaphore(_TOGETHER)

    async def look(found: Any) -> Found | None:
        async with slots:
            try:
                tags = await found.get_tags.aio()
            except modal.exception.NotFoundError:
                return None  # it ended since it was listed
        return _found(tags, scope, str(found.object_id), install=ctx.install)

    running = [found async for found in listing]
    return [found for found in await asyncio.gather(*map(look, running)) if found is not None]


def _found(tags: dict[str, str], scope: client.ModalScope, provider_id: str, *, install: str) -> Found | None:
    labels = handle.labels(tags)
    sandbox_id = labels.get(LABEL_ID)
    if sandbox_id is None or labels.get(LABEL_INSTALL) != install:  # a filter that a server does not know is none
        return None
    created, expires = labels.get(handle.CREATED), labels.get(LABEL_EXPIRES, "never")
    return Found(
        sandbox_id=sandbox_id,
        handle=handle.again(resource_name(sandbox_id), scope, tags, provider_id=provider_id).handle(),
        labels={name: value for name, value in labels.items() if name not in handle.OWN},
        created_at=None if created is None else float(created),
        expires_at=None if expires == "never" else float(expires),
        detail=provider_id,
    )


def spare(known: ModalHandleData) -> int:
    """Compute the seconds until Modal ends it by itself."""
    return max(0, int(known.ends - time.time()))
