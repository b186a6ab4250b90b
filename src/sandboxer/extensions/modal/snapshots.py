"""Create and delete snapshots: images of a sandbox's file system, kept until they are deleted. Modal knows them by an
id alone, so one whose answer was lost can't be found again; the SDK sends the same request again before it comes to
that."""

from __future__ import annotations

from typing import Final

from sandboxer.extensions.base import Context
from sandboxer.extensions.modal import client, create, handle
from sandboxer.extensions.modal.event_loop import ask
from sandboxer.extensions.modal.handle import ModalHandleData, ModalSnapshotData
from sandboxer.extensions.provider.account import other_key

SNAPSHOT_SECONDS: Final = 600.0
DELETE_SECONDS: Final = 60.0


def keep(known: ModalHandleData, ctx: Context) -> ModalSnapshotData:
    """Keep the files as they are now."""
    deadline = ctx.deadline.shorter(SNAPSHOT_SECONDS)
    scope = client.scope_of(ctx)

    async def work() -> str:
        sandbox = await create.sandbox(ctx, known)
        seconds = max(1, int(deadline.seconds(SNAPSHOT_SECONDS)))
        image = await sandbox.snapshot_filesystem.aio(timeout=seconds, ttl=None)
        return str(image.object_id)

    image = ask(work, deadline, "keeping the files")
    return ModalSnapshotData(image=image, server=scope.server, account=scope.account)


def delete(snapshot: ModalSnapshotData, ctx: Context) -> None:
    """Delete it; one that is gone is success. Raises BackendError when "not found" proves nothing."""
    scope = client.scope_of(ctx)
    handle.check_server(snapshot.server, scope.server)

    async def work() -> bool:
        account = await client.account(ctx)
        modal = client.load()
        try:
            await modal.experimental.image_delete.aio(snapshot.image, client=account.client)
        except modal.exception.NotFoundError:
            return snapshot.account == scope.account
        return True

    if not ask(work, ctx.deadline.shorter(DELETE_SECONDS), "deleting a snapshot"):
        raise other_key("the snapshot", provider="Modal", variables="MODAL_TOKEN_ID and MODAL_TOKEN_SECRET")
