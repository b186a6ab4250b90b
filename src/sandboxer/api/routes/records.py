"""Rename and label sandboxes."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from sandboxer.api.json_body import JsonRoute
from sandboxer.api.openapi import responses_of
from sandboxer.api.requests import LabelsBody, RenameBody
from sandboxer.api.responses import json_response
from sandboxer.api.routes.parameters import Context, SandboxParameter

router = APIRouter(route_class=JsonRoute)


@router.post(
    "/v1/sandboxes/{id}/rename",
    responses=responses_of((200, "SandboxDocument", "It has the name"), problems=(404, 409)),
    operation_id="rename",
)
async def rename(context: Context, sandbox: SandboxParameter, body: RenameBody) -> Response:
    """Give a sandbox a name, in place of the one it may have."""
    manager = context.manager
    return json_response(await context.lookups.run(lambda: manager.document(manager.rename(sandbox, body.name))))


@router.post(
    "/v1/sandboxes/{id}/labels",
    responses=responses_of((200, "SandboxDocument", "It has the labels"), problems=(404, 409)),
    operation_id="label",
)
async def label(context: Context, sandbox: SandboxParameter, body: LabelsBody) -> Response:
    """Set labels of a sandbox, and take away those that are null; the others stay."""
    manager = context.manager
    return json_response(await context.lookups.run(lambda: manager.document(manager.label(sandbox, body.labels))))
