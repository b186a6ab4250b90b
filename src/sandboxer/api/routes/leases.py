"""Use a sandbox: run commands, hold leases."""

from __future__ import annotations

import io
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from sandboxer.api.json_body import JsonRoute
from sandboxer.api.openapi import responses_of
from sandboxer.api.request_context import RequestContext
from sandboxer.api.requests import ExecBody, LeaseBody, RenewBody
from sandboxer.api.responses import MAX_STREAM, json_response, lease_document
from sandboxer.api.routes.parameters import Context, SandboxParameter
from sandboxer.documents import ExecResult, OutputCapture, exec_result, output_in_timeout
from sandboxer.errors import NotFound
from sandboxer.hosts.base import Streams

router = APIRouter(route_class=JsonRoute)

LeaseId = Annotated[str, Path(min_length=1, max_length=63, description="the id of a lease")]


@router.post(
    "/v1/sandboxes/{id}/exec",
    responses=responses_of(
        (200, "ExecResult", "The command has ended, with whatever exit code"), problems=(404, 409, 424, 501, 502, 504)
    ),
    operation_id="exec",
)
async def exec_(service: Context, sandbox: SandboxParameter, body: ExecBody) -> Response:
    """Run a command inside the isolation boundary, and answer what it wrote."""
    return json_response(await service.running.run(partial(_exec, service, sandbox, body)))


def _exec(service: RequestContext, sandbox: str, body: ExecBody) -> ExecResult:
    stdout, stderr = OutputCapture(MAX_STREAM), OutputCapture(MAX_STREAM)
    streams = Streams(stdin=io.BytesIO(body.input), stdout=stdout, stderr=stderr)
    with output_in_timeout(stdout, stderr):
        code = service.manager.exec(sandbox, body.command, streams, timeout=body.seconds)
    return exec_result(code, stdout, stderr)


@router.get(
    "/v1/sandboxes/{id}/leases",
    responses=responses_of((200, "LeaseList", "The leases that live"), problems=(404, 409)),
    operation_id="leases",
)
async def leases(service: Context, sandbox: SandboxParameter) -> Response:
    """Who uses a sandbox now; a running exec is shown too."""
    found = await service.short.run(partial(service.manager.leases, sandbox))
    return json_response({"leases": [lease_document(lease) for lease in found]})


@router.post(
    "/v1/sandboxes/{id}/leases",
    status_code=201,
    responses=responses_of((201, "LeaseDocument", "The lease is held"), problems=(404, 409)),
    operation_id="lease",
)
async def grant(service: Context, sandbox: SandboxParameter, body: LeaseBody | None = None) -> Response:
    """Hold a sandbox for a time: it is `active`, and does not expire meanwhile."""
    asked = body or LeaseBody()
    work = partial(service.manager.grant_lease, sandbox, holder=asked.holder, seconds=asked.seconds)
    return json_response(lease_document(await service.short.run(work)), status=201)


@router.get(
    "/v1/sandboxes/{id}/leases/{lease}",
    responses=responses_of((200, "LeaseDocument", "The lease lives"), problems=(404, 409)),
    operation_id="show-lease",
)
async def show(
    service: Context, sandbox: SandboxParameter, lease_id: Annotated[LeaseId, Path(alias="lease")]
) -> Response:
    """One lease, as long as it lives."""
    found = await service.short.run(partial(service.manager.leases, sandbox))
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
    service: Context,
    sandbox: SandboxParameter,
    lease_id: Annotated[LeaseId, Path(alias="lease")],
    body: RenewBody | None = None,
) -> Response:
    """Let a lease last for `duration` from now on."""
    seconds = (body or RenewBody()).seconds
    work = partial(service.manager.renew_lease, sandbox, lease_id, seconds=seconds)
    return json_response(lease_document(await service.short.run(work)))


@router.delete(
    "/v1/sandboxes/{id}/leases/{lease}",
    status_code=204,
    responses=responses_of((204, "", "The lease has ended"), problems=(404, 409)),
    operation_id="release-lease",
)
async def release(
    service: Context, sandbox: SandboxParameter, lease_id: Annotated[LeaseId, Path(alias="lease")]
) -> Response:
    """End a lease."""
    await service.short.run(partial(service.manager.release_lease, sandbox, lease_id))
    return Response(status_code=204)
