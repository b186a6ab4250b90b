"""The one middleware: authentication, the limit on bodies, headers for every answer, and the last catcher of errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from sandboxer import document_bounds
from sandboxer.api.auth import Rejection, bearer_token, needs_token, rejection
from sandboxer.api.problem_details import problem_response
from sandboxer.api.protocol import answering
from sandboxer.api.request_context import ORIGIN, REQUEST_CONTEXT, RequestContext
from sandboxer.api.server_context import ServerContext, log_bug
from sandboxer.api.uvicorn_hooks import bound_connections, mask_access_log
from sandboxer.errors import Denied, Internal, Invalid, SandboxerError, Timeout, Unavailable
from sandboxer.manager.access import Principal
from sandboxer.manager.tokens import looks_like_ours
from sandboxer.models import Grant

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY: Final = document_bounds.SMALL.size
"""The largest request body, in bytes."""
BODY_SECONDS: Final = 30.0
"""How long a request may take to arrive."""
CHANGING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
NOBODY: Final = "(no token)"
"""Who the audit says it was, of a change without a token that counts."""
_ALWAYS: Final = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class _Gone(Exception):
    """The client went away before its request was complete."""


class ApiMiddleware:
    """Pure ASGI, outside everything else. Bodies are read whole here (they are small), so that no route ever sees one
    that is too large or never ends; error answers of routes are made by the application's handlers."""

    def __init__(self, app: Application, service: ServerContext) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def reply(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *_ALWAYS]
            await send(message)

        send = answering(send, scope.get("state"))
        path = scope["path"]
        try:
            refused, call = self._entered(scope)
            if refused is not None:
                await problem_response(refused.error, path=path, status=refused.status)(scope, receive, reply)
                return
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await _read(scope, receive)
            except _Gone:
                return
            except TimeoutError:
                late = Timeout(f"the request did not arrive within {BODY_SECONDS:.0f}s", hint="send it again")
                await problem_response(late, path=path, status=HTTPStatus.REQUEST_TIMEOUT)(scope, receive, reply)
                return
            if body is None:
                large = Invalid(f"the body is over the limit of {MAX_BODY} bytes", hint="send less at once")
                status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                await problem_response(large, path=path, status=status)(scope, receive, reply)
                return
            # HEAD is GET to the routes; the server sends the head of the answer only
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            await self._app({**scope, "method": method, REQUEST_CONTEXT: call}, _replay(body, receive), reply)
        except asyncio.CancelledError:  # the server stops; who still waits is told so
            if started:
                return  # the client does not read its answer; the server hangs up
            stopping = Unavailable(
                "the server is stopping", hint="look what there is before you ask again", outcome="unknown"
            )
            await problem_response(stopping, path=path)(scope, receive, reply)
        except SandboxerError as error:  # the configuration is wrong, or the like: no route was reached
            await problem_response(error, path=path)(scope, receive, reply)
        except Exception as error:  # the last resort: a bug is told as one, without its traceback
            log_bug(error)
            if started:
                raise
            bug = Internal("a bug in sandboxer", hint="the server's log has the details; please report it")
            await problem_response(bug, path=path)(scope, receive, reply)

    def _entered(self, scope: Scope) -> tuple[Rejection | None, RequestContext | None]:
        """Why a request is not let in; or the call that it is (None where no token is asked for). Raises what keeps a
        token from being recognized: then nobody is let in."""
        token = bearer_token(scope["headers"])
        grant = self._service.keyring.grant(token) if token and needs_token(scope["path"]) else None
        client = _address(scope.get("client"))
        refused = rejection(
            scope["headers"],
            path=scope["path"],
            # one of ours that counts no more opens nothing, whatever is open to all
            closed=grant is not None or looks_like_ours(token or b"") or self._closed(scope["path"]),
            known=grant is not None,
            server=_address(scope.get("server")),
            client=client,
        )
        if refused is not None:
            if refused.status == HTTPStatus.UNAUTHORIZED:
                self._note_stranger(scope, client)
            return refused, None
        call = RequestContext(self._service, grant or Grant(), address=client) if needs_token(scope["path"]) else None
        return None, call

    def _closed(self, path: str) -> bool:
        """Whether a token is needed; also when nobody can tell. Raises what keeps us from telling, where one is."""
        try:
            return self._service.keyring.closed
        except SandboxerError:
            if needs_token(path):
                raise
            return True

    def _note_stranger(self, scope: Scope, client: str | None) -> None:
        """A change that was asked for without a token that counts."""
        if scope["method"] in CHANGING:
            stranger = Principal(origin=ORIGIN, actor=NOBODY, address=client)
            stranger.note(self._service.manager.services, scope["method"], scope["path"], Denied.code)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start and stop; a wrong configuration ends the start with one sentence instead of a traceback."""
        try:
            self._service.start()
        except SandboxerError as error:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"{error.message}\n  {error.hint}"})
            return
        if "state" in scope:  # what the server copies into the scope of each request
            bound_connections(asyncio.get_running_loop(), scope["state"])
        mask_access_log()
        await self._app(scope, receive, send)


def _address(end: Any) -> str | None:
    return str(end[0]) if end else None


async def _read(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body; None when it is too large."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > MAX_BODY:
            return None
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone  # a part of a request is not a request
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY:
            return None
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body once, and then whatever the client does next."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
