"""List profiles, extensions and events; inspect a host."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from sandboxer.api.json_body import JsonRoute
from sandboxer.api.openapi import responses_of
from sandboxer.api.request_context import RequestContext
from sandboxer.api.responses import extension_document, json_response
from sandboxer.api.routes.parameters import Context
from sandboxer.api.server_context import LOCAL
from sandboxer.errors import Invalid, NotFound

router = APIRouter(route_class=JsonRoute)


@router.get("/v1/profiles", responses=responses_of((200, "ProfileList", "The recipes")), operation_id="profiles")
async def profiles(context: Context) -> Response:
    """The profiles that can be asked for."""
    return json_response({"profiles": await context.lookups.run(context.manager.profiles)})


@router.get("/v1/extensions", responses=responses_of((200, "ExtensionList", "The backends")), operation_id="extensions")
async def extensions(context: Context) -> Response:
    """The extensions, and what each can do."""
    return json_response({"extensions": await context.lookups.run(partial(_extensions, context))})


def _extensions(context: RequestContext) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for manifest in context.manager.manifests():
        try:
            capabilities = list(context.manager.capabilities(manifest.id))
        except Invalid:
            found.append(extension_document(manifest, None))
        else:
            found.append(extension_document(manifest, capabilities))
    return found


@router.get("/v1/events", responses=responses_of((200, "EventList", "The newest events")), operation_id="events")
async def events(
    context: Context, limit: Annotated[int, Query(ge=1, le=10_000, description="the newest so many")] = 100
) -> Response:
    """The events that are still kept, oldest first."""
    return json_response({"events": await context.lookups.run(partial(context.manager.events, limit=limit))})


@router.get(
    "/v1/hosts/{host}",
    responses=responses_of((200, "HostDocument", "The host, as it is now"), problems=(404, 424, 502, 504)),
    operation_id="host",
)
async def host(context: Context, host: str) -> Response:
    """What a placement host says of itself. Only `local` and configured hosts: a caller must not make the server
    open connections to addresses of the caller's choice."""
    if host != LOCAL and host not in context.settings.hosts:
        raise NotFound(f"host {host[:80]!r} is not configured", hint="the operator adds it to config.yaml under hosts")
    return json_response(await context.host_calls.run(partial(context.manager.inspect_host, host)))
