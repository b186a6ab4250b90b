"""Creating a sandbox, and finding out what became of a create that was not answered."""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec

from sandboxer.extensions.base import Context, Spec
from sandboxer.extensions.modal import client, handle, options, scripts
from sandboxer.extensions.modal.client import ModalClient, ModalScope
from sandboxer.extensions.modal.handle import ModalHandleData
from sandboxer.extensions.modal.options import ModalOptions
from sandboxer.extensions.provider.lost_create import Look

SETTLE_SECONDS: Final = 15.0
"""How long may be spent, beyond the deadline, on finding out whether a sandbox exists."""
PROBE_MS: Final = 50
"""How often it is tried whether a starting sandbox is ready; each try is a tiny program inside."""


class Prerequisites(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be there before a sandbox can be asked for."""

    account: ModalClient
    app: Any
    image: Any


def intent(spec: Spec, chosen: ModalOptions, where: ModalScope, *, within: float) -> ModalHandleData:
    """What is remembered before Modal is asked, which happens `within` seconds."""
    _, longest = handle.lives(spec, chosen)
    return msgspec.structs.replace(
        handle.bare(spec.resource, where),
        ends=time.time() + within + longest,
        ports=chosen.ports,
        blocked=chosen.block_network,
        gpu=chosen.gpu,
    )


def shape(chosen: ModalOptions) -> str:
    """What is asked for, for people."""
    words = [f"{chosen.cpu:g} cores", f"{chosen.memory_gib:g} GiB", *([chosen.gpu] if chosen.gpu else [])]
    return ", ".join(words)


async def prepare(ctx: Context, where: ModalScope, chosen: ModalOptions, image: str | None) -> Prerequisites:
    """The connection, the App and the image; nothing that is billed exists after it. `image` is that of a snapshot."""
    account = await client.account(ctx)
    app = await account.app(where)
    if image is not None:
        return Prerequisites(account=account, app=app, image=client.load().Image.from_id(image, client=account.client))
    return Prerequisites(account=account, app=app, image=await account.image(chosen, app))


async def ask(base: Prerequisites, spec: Spec, chosen: ModalOptions, wanted: ModalHandleData) -> str:
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
        name=wanted.name,
        tags=handle.tags(spec.labels, wanted),
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
    """The running sandbox of a name; raises the SDK's NotFoundError."""
    return await client.load().Sandbox.from_name.aio(
        known.app, known.name, environment_name=known.environment, client=account.client
    )


async def look(ctx: Context, wanted: ModalHandleData, sandbox_id: str) -> tuple[Look, ModalHandleData | None]:
    """What runs under this name: the one that this installation means by it, another one, or nothing."""
    account = await client.account(ctx)
    try:
        sandbox = await by_name(account, wanted)
        tags = await sandbox.get_tags.aio()
    except client.load().exception.NotFoundError:
        return "nothing", None
    if not handle.is_ours(tags, install=ctx.install, sandbox_id=sandbox_id):
        return "others", None
    account.keep(sandbox)
    return "ours", handle.again(wanted.name, wanted.place, tags, provider_id=str(sandbox.object_id))
