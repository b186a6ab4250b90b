"""Which backend would serve a request, and why."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

from sandboxer.api.answers import answer
from sandboxer.api.bodies import ExplainBody
from sandboxer.api.call import Call
from sandboxer.api.description import answers_with
from sandboxer.api.reading import JsonRoute
from sandboxer.api.routes.service import Running
from sandboxer.api.service import DEFAULT_ACTOR
from sandboxer.manager.plan import Explanation

router = APIRouter(route_class=JsonRoute)


@router.post(
    "/v1/route/explain",
    responses=answers_with((200, "Explanation", "What was decided about each candidate"), problems=(404,)),
    operation_id="explain",
)
async def explain(service: Running, body: ExplainBody | None = None) -> Response:
    """Which backend would serve a request now, and why not the others; nothing is touched. `chosen` is null when none
    would."""
    return answer(await service.short.run(partial(_explain, service, body or ExplainBody())))


def _explain(service: Call, body: ExplainBody) -> Explanation:
    defaults = service.settings.defaults
    service.check_host(body.host)
    return service.manager.explain(
        body.request(default_profile=defaults.profile),
        actor=body.actor or defaults.actor or DEFAULT_ACTOR,
        base=Path("/"),  # a relative path would mean the server's own working directory
        roots=service.roots,
    )
