"""The application: `uvicorn sandboxer.api.app:app`. Importing it reads no configuration; starting it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from sandboxer.api.middleware import ApiMiddleware
from sandboxer.api.openapi import openapi_document
from sandboxer.api.problem_details import from_http_exception, from_validation, problem_response
from sandboxer.api.routes import (
    billing,
    catalog,
    health,
    leases,
    records,
    routing,
    sandboxes,
    snapshots,
    sweeps,
    tokens,
)
from sandboxer.api.routes import exec as commands
from sandboxer.api.server_context import STOP_SECONDS, ServerContext
from sandboxer.errors import SandboxerError
from sandboxer.timing import Deadline

if TYPE_CHECKING:
    from sandboxer.bootstrap import Installation
    from sandboxer.manager.tokens import TokenVerifier

ROUTES: Final = (health, sandboxes, snapshots, records, commands, leases, sweeps, catalog, routing, billing, tokens)


def create_app(opening: Callable[[], Installation], *, keyring: TokenVerifier | None = None) -> FastAPI:
    """The application over an installation, which is opened when the server starts."""
    service = ServerContext(opening, keyring)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=_lifespan)
    app.state.service = service
    for module in ROUTES:
        app.include_router(module.router)
    app.add_api_route("/openapi.json", _openapi, include_in_schema=False)
    app.openapi = lambda: openapi_document(app)  # type: ignore[method-assign]  # FastAPI's own way to replace it
    app.add_middleware(ApiMiddleware, service=service)
    app.add_exception_handler(SandboxerError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    return app


async def _openapi(request: Request) -> Response:
    from sandboxer.api.responses import json_response

    document: dict[str, Any] = request.app.openapi()
    return json_response(document)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield  # the middleware has started the server's context, so that it can tell what is wrong
    await asyncio.to_thread(app.state.service.stop, Deadline(STOP_SECONDS))


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SandboxerError)  # noqa: S101 - registered for it
    return problem_response(error, path=request.url.path)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    return problem_response(from_validation(error.errors()), path=request.url.path)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods(request)) or headers.get("Allow", "")
    return problem_response(
        from_http_exception(error), path=request.url.path, status=error.status_code, headers=headers
    )


def _methods(request: Request) -> list[str]:
    """What a path takes. The framework tells of the first route with that path only."""
    routes = (route for module in ROUTES for route in module.router.routes)
    taken = {
        method
        for route in routes
        if isinstance(route, APIRoute) and route.matches(request.scope)[0] != Match.NONE
        for method in route.methods or ()
    }
    return sorted(taken | ({"HEAD"} if "GET" in taken else set()))


def _open() -> Installation:
    from sandboxer.bootstrap import install

    return install(relay_in_background=False)


app = create_app(_open)
