"""Explain which backend would serve a request, and why."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

from sandboxer.api.json_body import JsonRoute
from sandboxer.api.openapi import responses_of
from sandboxer.api.request_context import RequestContext
from sandboxer.api.requests import ExplainBody
from sandboxer.api.responses import json_response
from sandboxer.api.routes.parameters import Context
from sandboxer.api.server_context import DEFAULT_ACTOR
from sandboxer.manager.establish.plan import Explanation

router = APIRouter(route_class=JsonRoute)


@router.post(
    "/v1/route/explain",
    responses=responses_of((200, "Explanation", "What was decided about each candidate"), problems=(404,)),
    operation_id="explain",
)
async def explain(context: Context, body: ExplainBody | None = None) -> Response:
    """Which backend would serve a request now, and why not the others; nothing is touched. `chosen` is null when none
    would."""
    return json_response(await context.lookups.run(partial(_explain, context, body or ExplainBody())))


def _explain(context: RequestContext, body: ExplainBody) -> Explanation:
    defaults = context.settings.defaults
    context.check_host(body.host)
    return context.manager.explain(
        body.request(default_profile=defaults.profile),
        actor=body.actor or defaults.actor or DEFAULT_ACTOR,
        base=Path("/"),  # a relative path would mean the server's own working directory
        roots=context.roots,
    )
