"""Take, restore, list, verify and delete snapshots."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi import Path as InPath
from starlette.responses import Response

from sandboxer.api import pagination
from sandboxer.api.json_body import JsonRoute
from sandboxer.api.openapi import responses_of
from sandboxer.api.request_context import RequestContext
from sandboxer.api.requests import RestoreBody, SnapshotBody, SnapshotQuery
from sandboxer.api.responses import json_response
from sandboxer.api.routes.parameters import Context, SandboxParameter
from sandboxer.api.routes.sandboxes import ESTABLISHING, Key, Wait, established
from sandboxer.api.server_context import StartedCreate

router = APIRouter(route_class=JsonRoute)

SnapshotParameter = Annotated[
    str, InPath(alias="id", min_length=1, max_length=63, description="an id, a unique prefix (4 characters), or a name")
]


@router.post(
    "/v1/sandboxes/{id}/snapshots",
    status_code=201,
    responses=responses_of(
        (201, "SnapshotDocument", "Its files are kept"),
        problems=(404, 409, 424, 501, 502, 504),
        headers={"Location": "the path of the snapshot"},
    ),
    operation_id="snapshot",
)
async def take(context: Context, sandbox: SandboxParameter, body: SnapshotBody | None = None) -> Response:
    """Keep a sandbox's files as they are now. Answers when they are kept; it goes on when the client goes."""
    name, manager = (body or SnapshotBody()).name, context.manager
    taken = await context.commands.run(lambda: manager.snapshot(sandbox, name=name))
    headers = {"Location": f"/v1/snapshots/{taken.id}"}
    return json_response(manager.snapshot_document(taken), status=201, headers=headers)


@router.get(
    "/v1/snapshots", responses=responses_of((200, "SnapshotList", "A page of snapshots")), operation_id="snapshots"
)
async def list_(context: Context, query: Annotated[SnapshotQuery, Query()]) -> Response:
    """List snapshots, oldest first."""
    return json_response(await context.lookups.run(partial(_list, context, query)))


def _list(context: RequestContext, query: SnapshotQuery) -> dict[str, Any]:
    manager = context.manager
    start = (-math.inf, "") if query.cursor is None else pagination.decode_cursor(query.cursor)
    found = [one for one in manager.snapshots(sandbox=query.sandbox) if (one.created_at, one.id) > start]
    shown, following = pagination.page(found, limit=query.limit)
    return {"snapshots": [manager.snapshot_document(one) for one in shown], "next_cursor": following}


@router.get(
    "/v1/snapshots/{id}",
    responses=responses_of((200, "SnapshotDocument", "The snapshot"), problems=(404, 409)),
    operation_id="get-snapshot",
)
async def get(context: Context, snapshot: SnapshotParameter) -> Response:
    """Show one snapshot."""
    manager = context.manager
    return json_response(await context.lookups.run(lambda: manager.snapshot_document(manager.get_snapshot(snapshot))))


@router.delete(
    "/v1/snapshots/{id}",
    responses=responses_of((200, "SnapshotDocument", "It is gone"), problems=(404, 409, 424, 502, 504)),
    operation_id="delete-snapshot",
)
async def delete(context: Context, snapshot: SnapshotParameter) -> Response:
    """Delete a snapshot; one that is being restored or verified is a conflict."""
    manager = context.manager
    gone = await context.host_calls.run(lambda: manager.delete_snapshot(snapshot))
    return json_response(manager.snapshot_document(gone))


@router.post(
    "/v1/snapshots/{id}/verify",
    responses=responses_of((200, "VerifyReport", "All of it was read"), problems=(404, 409)),
    operation_id="verify-snapshot",
)
async def verify(context: Context, snapshot: SnapshotParameter) -> Response:
    """Read all of a snapshot and prove that it is what was kept. What a provider keeps is not read."""
    manager = context.manager
    return json_response(await context.commands.run(lambda: manager.verify_snapshot(snapshot)))


@router.post("/v1/snapshots/{id}/restore", status_code=202, responses=ESTABLISHING, operation_id="restore")
async def restore(
    context: Context,
    snapshot: SnapshotParameter,
    body: RestoreBody | None = None,
    wait: Wait = False,
    idempotency_key: Key = None,
) -> Response:
    """Make a new sandbox of a snapshot, on another host too. Answers as soon as the intent is durable."""
    asked = body or RestoreBody()
    slot = context.creates.reserve()
    try:
        started = await context.lookups.run(partial(_restore, context, snapshot, asked, slot, idempotency_key))
    finally:
        slot.close()
    return await established(context, started, wait=wait)


def _restore(context: RequestContext, snapshot: str, body: RestoreBody, slot: Any, key: str | None) -> StartedCreate:
    context.check_host(body.host)
    found = context.manager.restore_request(snapshot, body.asked)
    plan = context.manager.plan(
        found.request, actor=found.actor, idempotency_key=key, base=Path("/"), roots=context.roots
    )
    return context.establish(plan, slot)
