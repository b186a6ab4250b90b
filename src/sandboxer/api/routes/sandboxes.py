"""Create, get, list, recreate, extend, stop, start and destroy sandboxes."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from sandboxer.api import pagination
from sandboxer.api.json_body import JsonRoute
from sandboxer.api.openapi import responses_of
from sandboxer.api.request_context import RequestContext
from sandboxer.api.requests import CreateBody, ExtendBody, ListQuery, SetTtlBody
from sandboxer.api.responses import json_response
from sandboxer.api.routes.parameters import Context, SandboxParameter
from sandboxer.api.server_context import DEFAULT_ACTOR, StartedCreate
from sandboxer.errors import SandboxerError, Timeout, Unavailable, from_document
from sandboxer.models import Sandbox
from sandboxer.names import parse_pairs
from sandboxer.state import State
from sandboxer.timing import Deadline, parse_duration

router = APIRouter(route_class=JsonRoute)

WAIT_SECONDS = 900.0
"""How long `?wait=true` holds a request; the work goes on after that."""
ESTABLISHING = responses_of(
    (201, "SandboxDocument", "It is ready (only with `wait=true`)"),
    (202, "SandboxDocument", "It is being established: ask for it again until its state has changed"),
    problems=(402, 404, 409, 424, 501, 502, 504),
    headers={"Location": "the path of the sandbox"},
)
Wait = Annotated[bool, Query(description="hold the request until the work has ended")]
Refresh = Annotated[bool, Query(description="ask its backend first (5 s at most), and record what it shows")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Asking again with the same key and the same request gives the same sandbox; with another, 409",
    ),
]


@router.post("/v1/sandboxes", status_code=202, responses=ESTABLISHING, operation_id="create")
async def create(
    context: Context, body: CreateBody | None = None, wait: Wait = False, idempotency_key: Key = None
) -> Response:
    """Establish a sandbox. Answers as soon as the intent is durable; the work goes on."""
    asked = body or CreateBody()
    slot = context.creates.reserve()
    try:
        started = await context.lookups.run(partial(_create, context, asked, slot, idempotency_key))
    finally:
        slot.close()
    return await established(context, started, wait=wait)


def _create(context: RequestContext, body: CreateBody, slot: Any, key: str | None) -> StartedCreate:
    defaults = context.settings.defaults
    context.check_host(body.host)
    plan = context.manager.plan(
        body.request(default_profile=defaults.profile),
        actor=body.actor or defaults.actor or DEFAULT_ACTOR,
        idempotency_key=key,
        base=Path("/"),  # a relative path would mean the server's own working directory
        roots=context.roots,
    )
    return context.establish(plan, slot)


@router.post("/v1/sandboxes/{id}/recreate", status_code=202, responses=ESTABLISHING, operation_id="recreate")
async def recreate(context: Context, sandbox: SandboxParameter, wait: Wait = False) -> Response:
    """Destroy a sandbox, and establish a new one, with a new id, from the same request.

    The new one is admitted first (its name, quota, credits), and made when the old one is gone, which is when this
    answers: the two could not hold the same ports at once. When the old one does not go, nothing comes of it."""
    slot = context.creates.reserve()
    try:
        plan = await context.lookups.run(partial(context.manager.recreate_plan, sandbox, roots=context.roots))
        await context.host_calls.run(partial(context.manager.check_recreate, sandbox, plan))
        replacement = await context.lookups.run(partial(context.replace, plan, slot))
    finally:
        slot.close()
    await _waited(replacement.removal, replacement.create.record)
    return await established(context, replacement.create, wait=wait)


@router.get("/v1/sandboxes", responses=responses_of((200, "SandboxList", "A page of sandboxes")), operation_id="list")
async def list_(context: Context, query: Annotated[ListQuery, Query()]) -> Response:
    """List sandboxes, oldest first: the live ones, unless `all`."""
    return json_response(await context.lookups.run(partial(_list, context, query)))


def _list(context: RequestContext, query: ListQuery) -> dict[str, Any]:
    manager = context.manager
    found = manager.list(
        states=[str(state) for state in query.state],
        profile=query.profile,
        labels=parse_pairs(query.label, what="label"),
        ended=query.all,
        after=pagination.decode_cursor(query.cursor) if query.cursor is not None else None,
        limit=query.limit + 1,  # one more, to see whether there are more
    )
    shown, following = pagination.page(found, limit=query.limit)
    return {"sandboxes": [manager.document(record) for record in shown], "next_cursor": following}


@router.get(
    "/v1/sandboxes/{id}",
    responses=responses_of((200, "SandboxDocument", "The sandbox"), problems=(404, 409, 503)),
    operation_id="get",
)
async def get(context: Context, sandbox: SandboxParameter, refresh: Refresh = False) -> Response:
    """Show one sandbox, live or ended, as it was last known."""
    manager = context.manager
    workers = context.host_calls if refresh else context.lookups
    return json_response(await workers.run(lambda: manager.document(manager.get(sandbox, refresh=refresh))))


@router.delete(
    "/v1/sandboxes/{id}",
    status_code=202,
    responses=responses_of(
        (200, "SandboxDocument", "It is gone"),
        (202, "SandboxDocument", "That it shall go is recorded; the teardown is under way"),
        problems=(404, 409, 424, 502, 504),
    ),
    operation_id="destroy",
)
async def destroy(context: Context, sandbox: SandboxParameter, wait: Wait = False) -> Response:
    """Take a sandbox away, in whatever state it is; again is fine."""
    record = await context.lookups.run(partial(context.manager.request_destroy, sandbox))
    if record.state != State.DESTROYED:
        try:
            work = context.remove(record.id)
        except Unavailable:
            if wait:
                raise
            # that it shall go is recorded all the same, and `expire` carries it out
        else:
            record = await _waited(work, record) if wait else record
    status = 200 if record.state == State.DESTROYED else 202
    return json_response(await context.lookups.run(partial(context.manager.document, record)), status=status)


@router.post(
    "/v1/sandboxes/{id}/extend-ttl",
    responses=responses_of((200, "SandboxDocument", "It lives longer"), problems=(404, 409, 424, 502, 504)),
    operation_id="extend-ttl",
)
async def extend_ttl(context: Context, sandbox: SandboxParameter, body: ExtendBody) -> Response:
    """Let a sandbox live longer than agreed so far."""
    seconds = parse_duration(body.duration)
    manager = context.manager
    return json_response(await context.host_calls.run(lambda: manager.document(manager.extend_ttl(sandbox, seconds))))


@router.post(
    "/v1/sandboxes/{id}/set-ttl",
    responses=responses_of((200, "SandboxDocument", "It ends then"), problems=(404, 409, 424, 502, 504)),
    operation_id="set-ttl",
)
async def set_ttl(context: Context, sandbox: SandboxParameter, body: SetTtlBody) -> Response:
    """Let a sandbox end that long from now, sooner or later than agreed so far."""
    seconds = parse_duration(body.ttl, what="ttl")
    manager = context.manager
    return json_response(await context.host_calls.run(lambda: manager.document(manager.set_ttl(sandbox, seconds))))


@router.post(
    "/v1/sandboxes/{id}/stop",
    responses=responses_of((200, "SandboxDocument", "It is stopped"), problems=(404, 409, 424, 501, 502, 503, 504)),
    operation_id="stop",
)
async def stop(context: Context, sandbox: SandboxParameter) -> Response:
    """Keep a sandbox without running it, also while it is in use; again is fine."""
    manager = context.manager
    return json_response(await context.host_calls.run(lambda: manager.document(manager.stop(sandbox))))


@router.post(
    "/v1/sandboxes/{id}/start",
    responses=responses_of((200, "SandboxDocument", "It runs"), problems=(404, 409, 424, 501, 502, 503, 504)),
    operation_id="start",
)
async def start(context: Context, sandbox: SandboxParameter) -> Response:
    """Run a sandbox again that was stopped, whoever did that; one that runs is success."""
    manager = context.manager
    return json_response(await context.host_calls.run(lambda: manager.document(manager.start(sandbox))))


async def established(context: RequestContext, started: StartedCreate, *, wait: bool) -> Response:
    """The answer to an establishment that was begun."""
    record = started.record
    if wait and started.work is not None:
        record = await _waited(started.work, record)
    elif wait:
        record = await _outcome(context, record)
    headers = {"Location": f"/v1/sandboxes/{record.id}"}
    if started.work is None:
        headers["Idempotent-Replayed"] = "true"
    document = await context.lookups.run(partial(context.manager.document, record))
    return json_response(document, status=201 if wait else 202, headers=headers)


async def _waited(work: Future[Sandbox], record: Sandbox) -> Sandbox:
    """What the work comes to. It is not this request's own: it goes on when the request ends first."""
    try:
        return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(work)), WAIT_SECONDS)
    except TimeoutError:
        raise _too_long(record) from None
    except asyncio.CancelledError:
        raise _stopping(record) from None


async def _outcome(context: RequestContext, record: Sandbox) -> Sandbox:
    """What became of an establishment that an earlier request began, perhaps in another process."""
    deadline, pause = Deadline(WAIT_SECONDS), 0.05
    while record.state == State.PROVISIONING:
        if deadline.passed:
            raise _too_long(record)
        try:
            await asyncio.sleep(pause)
        except asyncio.CancelledError:
            raise _stopping(record) from None
        pause = min(pause * 1.5, 1.0)
        record = await context.lookups.run(partial(context.manager.get, record.id))
    if record.state == State.FAILED and record.error is not None:
        raise from_document(record.error)
    return record


def _too_long(record: Sandbox) -> SandboxerError:
    return Timeout(
        f"sandbox {record.id} is still {record.state} after {WAIT_SECONDS:.0f}s",
        hint=f"the work goes on: ask for /v1/sandboxes/{record.id}",
        outcome="unknown",
        sandbox_id=record.id,
    )


def _stopping(record: Sandbox) -> SandboxerError:
    return Unavailable(
        f"the server is stopping, and sandbox {record.id} is still {record.state}",
        hint=f"ask for /v1/sandboxes/{record.id} when it is up again; what was cut off is settled by `reconcile`",
        outcome="unknown",
        sandbox_id=record.id,
    )
