"""Tell whether the server lives, and whether it can work."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter
from starlette.responses import Response

from sandboxer.api.json_body import JsonRoute
from sandboxer.api.openapi import responses_of
from sandboxer.api.responses import HealthDocument, json_response
from sandboxer.api.routes.parameters import Context

router = APIRouter(route_class=JsonRoute)


@router.get("/healthz", responses=responses_of((200, "HealthDocument", "It answers")), operation_id="healthz")
async def healthz() -> Response:
    """It answers. The only route without a token."""
    return json_response(HealthDocument(status="alive"))


@router.get("/readyz", responses=responses_of((200, "HealthDocument", "It can work")), operation_id="readyz")
async def readyz(context: Context) -> Response:
    """The store can be read."""
    await context.lookups.run(partial(context.manager.events, limit=1))
    return json_response(HealthDocument(status="ready"))
