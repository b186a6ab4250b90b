"""Share parameters between routes: the context of the request, and the sandbox in the path."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from sandboxer.api.request_context import REQUEST_CONTEXT, RequestContext


def _call(request: Request) -> RequestContext:
    call: RequestContext = request.scope[REQUEST_CONTEXT]
    return call


Context = Annotated[RequestContext, Depends(_call)]
SandboxParameter = Annotated[
    str, Path(alias="id", min_length=1, max_length=63, description="an id, a unique prefix (4 characters), or a name")
]
