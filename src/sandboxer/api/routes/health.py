"""Whether the server lives, and whether it can work."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter
from starlette.responses import Response

from sandboxer.api.answers import Health, answer
from sandboxer.api.description import answers_with
from sandboxer.api.reading import JsonRoute
from sandboxer.api.routes.service import Running

router = APIRouter(route_class=JsonRoute)


@router.get("/healthz", responses=answers_with((200, "Health", "It answers")), operation_id="healthz")
async def healthz() -> Response:
    """It answers. The only route without a token."""
    return answer(Health(status="alive"))


@router.get("/readyz", responses=answers_with((200, "Health", "It can work")), operation_id="readyz")
async def readyz(service: Running) -> Response:
    """The store can be read."""
    await service.short.run(partial(service.manager.events, limit=1))
    return answer(Health(status="ready"))
