"""How a route gets at the running service."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from sandboxer.api.call import CALL, Call


def _call(request: Request) -> Call:
    call: Call = request.scope[CALL]
    return call


Running = Annotated[Call, Depends(_call)]
SandboxText = Annotated[
    str, Path(alias="id", min_length=1, max_length=63, description="an id, a unique prefix (4 characters), or a name")
]
