"""Hold a sandbox, so that it is not idle meanwhile."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from sandboxer.api.json_body import JsonRoute
from sandboxer.api.openapi import responses_of
from sandboxer.api.requests import LeaseBody, RenewBody
from sandboxer.api.responses import json_response, lease_document
from sandboxer.api.routes.parameters import Context, SandboxParameter
from sandboxer.errors import NotFound

router = APIRouter(route_class=JsonRoute)

LeaseId = Annotated[str, Path(min_length=1, max_length=63, description="the id of a lease")]


@router.get(
    "/v1/sandboxes/{id}/leases",
    responses=responses_of((200, "LeaseList", "The leases that live"), problems=(404, 409)),
    operation_id="leases",
)
async def leases(context: Context, sandbox: SandboxParameter) -> Response:
    """Who uses a sandbox now; a running exec is shown too."""
    found = await context.lookups.run(partial(context.manager.leases, sandbox))
    return json_response({"leases": [lease_document(lease) for lease in found]})


@router.post(
    "/v1/sandboxes/{id}/leases",
    status_code=201,
    responses=responses_of((201, "LeaseDocument", "The lease is held"), problems=(404, 409)),
    operation_id="lease",
)
async def grant(context: Context, sandbox: SandboxParameter, body: LeaseBody | None = None) -> Response:
    """Hold a sandbox for a time: it is `active`, and not idle. Its TTL ends it all the same."""
    asked = body or LeaseBody()
    work = partial(context.manager.grant_lease, sandbox, holder=asked.holder, seconds=asked.seconds)
    return json_response(lease_document(await context.lookups.run(work)), status=201)


@router.get(
    "/v1/sandboxes/{id}/leases/{lease}",
    responses=responses_of((200, "LeaseDocument", "The lease lives"), problems=(404, 409)),
    operation_id="show-lease",
)
async def show(
    context: Context, sandbox: SandboxParameter, lease_id: Annotated[LeaseId, Path(alias="lease")]
) -> Response:
    """One lease, as long as it lives."""
    found = await context.lookups.run(partial(context.manager.leases, sandbox))
    for one in found:
        if one.lease_id == lease_id:
            return json_response(lease_document(one))
    raise NotFound(f"no lease {lease_id[:80]!r} is held", hint=f"GET /v1/sandboxes/{sandbox}/leases lists what is")


@router.put(
    "/v1/sandboxes/{id}/leases/{lease}",
    responses=responses_of((200, "LeaseDocument", "The lease lasts longer"), problems=(404, 409)),
    operation_id="renew-lease",
)
@router.post(
    "/v1/sandboxes/{id}/leases/{lease}",
    responses=responses_of((200, "LeaseDocument", "The lease lasts longer"), problems=(404, 409)),
    operation_id="extend-lease",
)
async def renew(
    context: Context,
    sandbox: SandboxParameter,
    lease_id: Annotated[LeaseId, Path(alias="lease")],
    body: RenewBody | None = None,
) -> Response:
    """Let a lease last for `duration` from now on."""
    seconds = (body or RenewBody()).seconds
    work = partial(context.manager.renew_lease, sandbox, lease_id, seconds=seconds)
    return json_response(lease_document(await context.lookups.run(work)))


@router.delete(
    "/v1/sandboxes/{id}/leases/{lease}",
    status_code=204,
    responses=responses_of((204, "", "The lease has ended"), problems=(404, 409)),
    operation_id="release-lease",
)
async def release(
    context: Context, sandbox: SandboxParameter, lease_id: Annotated[LeaseId, Path(alias="lease")]
) -> Response:
    """End a lease."""
    await context.lookups.run(partial(context.manager.release_lease, sandbox, lease_id))
    return Response(status_code=204)
