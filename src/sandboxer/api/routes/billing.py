"""Show credits and usage."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from sandboxer.api.json_body import JsonRoute
from sandboxer.api.openapi import responses_of
from sandboxer.api.responses import json_response
from sandboxer.api.routes.parameters import Context

router = APIRouter(route_class=JsonRoute)

_WHEN = "a time, a day (UTC), or a duration before now, such as 7d"


@router.get("/v1/credits", responses=responses_of((200, "Balance", "The credits")), operation_id="credits")
async def credits_(context: Context) -> Response:
    """What was added, spent and set aside; the budgets."""
    return json_response(await context.lookups.run(context.manager.credits))


@router.get("/v1/usage", responses=responses_of((200, "UsageList", "The usage")), operation_id="usage")
async def usage(
    context: Context,
    since: Annotated[str | None, Query(max_length=80, description=f"only usage after this: {_WHEN}")] = None,
    until: Annotated[
        str | None, Query(max_length=80, description=f"only usage that began before this: {_WHEN}")
    ] = None,
) -> Response:
    """What each sandbox was used for, and what it cost, oldest first; living ones with what has accrued."""
    return json_response({"usage": await context.lookups.run(partial(context.manager.usage, since=since, until=until))})
