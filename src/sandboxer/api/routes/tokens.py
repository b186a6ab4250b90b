"""Manage tokens, and list the audit."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from sandboxer.api.json_body import JsonRoute
from sandboxer.api.openapi import responses_of
from sandboxer.api.requests import TokenBody
from sandboxer.api.responses import json_response
from sandboxer.api.routes.parameters import Context

router = APIRouter(route_class=JsonRoute)

TokenId = Annotated[str, Path(alias="token", min_length=1, max_length=80, description="the id of a token, or its name")]


@router.get("/v1/tokens", responses=responses_of((200, "TokenList", "The tokens")), operation_id="tokens")
async def tokens(context: Context) -> Response:
    """All tokens, also those that have ended lately; never the tokens themselves."""
    return json_response({"tokens": await context.lookups.run(context.manager.list_tokens)})


@router.post(
    "/v1/tokens",
    status_code=201,
    responses=responses_of((201, "NewToken", "The token, told this once"), problems=(404, 409)),
    operation_id="create-token",
)
async def create(context: Context, body: TokenBody) -> Response:
    """Make a token."""
    return json_response(await context.lookups.run(partial(context.manager.create_token, body.wanted)), status=201)


@router.delete(
    "/v1/tokens/{token}",
    responses=responses_of((200, "TokenDocument", "It counts no more"), problems=(404, 409)),
    operation_id="revoke-token",
)
async def revoke(context: Context, token: TokenId) -> Response:
    """End a token, at once; again is fine."""
    return json_response(await context.lookups.run(partial(context.manager.revoke_token, token)))


@router.get("/v1/audit", responses=responses_of((200, "AuditList", "What was changed")), operation_id="audit")
async def audit(
    context: Context,
    since: Annotated[
        str | None, Query(max_length=80, description="only after this: a time, a day (UTC), or a duration such as 7d")
    ] = None,
) -> Response:
    """What was changed, and by whom, oldest first."""
    return json_response({"audit": await context.lookups.run(partial(context.manager.audit, since=since))})
