"""What there is: profiles, extensions, hosts, events."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from sandboxer.api.answers import answer, extension_document
from sandboxer.api.call import Call
from sandboxer.api.description import answers_with
from sandboxer.api.reading import JsonRoute
from sandboxer.api.routes.service import Running
from sandboxer.api.service import LOCAL
from sandboxer.errors import Invalid, NotFound

router = APIRouter(route_class=JsonRoute)


@router.get("/v1/profiles", responses=answers_with((200, "ProfileList", "The recipes")), operation_id="profiles")
async def profiles(service: Running) -> Response:
    """The profiles that can be asked for."""
    return answer({"profiles": await service.short.run(service.manager.profiles)})


@router.get("/v1/extensions", responses=answers_with((200, "ExtensionList", "The backends")), operation_id="extensions")
async def extensions(service: Running) -> Response:
    """The extensions, and what each can do."""
    return answer({"extensions": await service.short.run(partial(_extensions, service))})


def _extensions(service: Call) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for manifest in service.manager.manifests():
        try:
            capabilities = list(service.manager.capabilities(manifest.id))
        except Invalid:
            found.append(extension_document(manifest, None))
        else:
            found.append(extension_document(manifest, capabilities))
    return found


@router.get("/v1/events", responses=answers_with((200, "EventList", "The newest events")), operation_id="events")
async def events(
    service: Running, limit: Annotated[int, Query(ge=1, le=10_000, description="the newest so many")] = 100
) -> Response:
    """The events that are still kept, oldest first."""
    return answer({"events": await service.short.run(partial(service.manager.events, limit=limit))})


@router.get(
    "/v1/hosts/{host}",
    responses=answers_with((200, "HostDocument", "The host, as it is now"), problems=(404, 424, 502, 504)),
    operation_id="host",
)
async def host(service: Running, host: str) -> Response:
    """What a placement host says of itself. Only `local` and configured hosts: a caller must not make the server
    open connections to addresses of the caller's choice."""
    if host != LOCAL and host not in service.settings.hosts:
        raise NotFound(f"host {host[:80]!r} is not configured", hint="the operator adds it to config.yaml under hosts")
    return answer(await service.asking.run(partial(service.manager.inspect_host, host)))
