"""Run commands inside a sandbox."""

from __future__ import annotations

import asyncio
import io
from functools import partial

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from sandboxer.api.json_body import JsonRoute
from sandboxer.api.openapi import responses_of
from sandboxer.api.request_context import RequestContext
from sandboxer.api.requests import ExecBody
from sandboxer.api.responses import MAX_STREAM, json_response
from sandboxer.api.routes.parameters import Context, SandboxParameter
from sandboxer.documents import ExecResult, OutputCapture, exec_result, output_in_timeout
from sandboxer.hosts.base import Streams
from sandboxer.timing import Deadline

router = APIRouter(route_class=JsonRoute)


@router.post(
    "/v1/sandboxes/{id}/exec",
    responses=responses_of(
        (200, "ExecResult", "The command has ended, with whatever exit code"), problems=(404, 409, 424, 501, 502, 504)
    ),
    operation_id="exec",
)
async def exec_(context: Context, request: Request, sandbox: SandboxParameter, body: ExecBody) -> Response:
    """Run a command inside the isolation boundary, and answer what it wrote. It ends with its client."""
    wanted = Deadline(None)
    watch = asyncio.ensure_future(_cancel_when_gone(request, wanted))
    try:
        return json_response(await context.commands.run(partial(_exec, context, sandbox, body, wanted)))
    finally:
        watch.cancel()


async def _cancel_when_gone(request: Request, wanted: Deadline) -> None:
    """Cancel the deadline when the client hangs up: its body was read, so nothing else can come."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    wanted.cancel()


def _exec(context: RequestContext, sandbox: str, body: ExecBody, wanted: Deadline) -> ExecResult:
    wanted.check("waiting for a free worker")  # the client may have gone meanwhile
    stdout, stderr = OutputCapture(MAX_STREAM), OutputCapture(MAX_STREAM)
    streams = Streams(stdin=io.BytesIO(body.input), stdout=stdout, stderr=stderr)
    with output_in_timeout(stdout, stderr):
        code = context.manager.exec(sandbox, body.command, streams, timeout=body.seconds, wanted=wanted)
    return exec_result(code, stdout, stderr)
