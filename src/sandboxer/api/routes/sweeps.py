"""Run expire, reconcile and reap-stale: dry runs, unless told to apply."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter
from starlette.responses import Response

from sandboxer.api.json_body import JsonRoute
from sandboxer.api.openapi import responses_of
from sandboxer.api.requests import ExpireBody, ReapStaleBody, ReconcileBody
from sandboxer.api.responses import json_response
from sandboxer.api.routes.parameters import Context
from sandboxer.errors import Partial
from sandboxer.manager.sweeps.report import Report

router = APIRouter(route_class=JsonRoute)

_SWEEPING = responses_of(
    (200, "Report", "What was done, or would be"), (207, "Report", "Some of it was done; the rest is in `remaining`")
)


@router.post("/v1/expire", responses=_SWEEPING, operation_id="expire")
async def expire(context: Context, body: ExpireBody | None = None) -> Response:
    """End the sandboxes whose TTL is over."""
    asked = body or ExpireBody()
    return _told(await context.host_calls.run(partial(context.manager.expire, apply=asked.apply)))


@router.post("/v1/reconcile", responses=_SWEEPING, operation_id="reconcile")
async def reconcile(context: Context, body: ReconcileBody | None = None) -> Response:
    """Settle every record and every labelled resource against what the backends really show."""
    asked = body or ReconcileBody()
    return _told(await context.host_calls.run(partial(context.manager.reconcile, apply=asked.apply, force=asked.force)))


@router.post("/v1/reap-stale", responses=_SWEEPING, operation_id="reap-stale")
async def reap_stale(context: Context, body: ReapStaleBody | None = None) -> Response:
    """Take away what no live record knows, on all hosts and at all providers."""
    asked = body or ReapStaleBody()
    reap = partial(context.manager.reap_stale, apply=asked.apply, force=asked.force, install=asked.install)
    return _told(await context.host_calls.run(reap))


@router.get(
    "/v1/stale",
    responses=responses_of((200, "StaleReport", "What is stale, and what is others'")),
    operation_id="stale",
)
async def stale(context: Context) -> Response:
    """What is stale on all hosts and at all providers, and what other installations have there."""
    return json_response(await context.host_calls.run(context.manager.inspect_stale))


def _told(report: Report) -> Response:
    partly = report.applied and report.remaining
    return json_response(report, status=Partial.http_status if partly else 200)
