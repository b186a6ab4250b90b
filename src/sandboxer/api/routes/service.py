"""How a route gets at the running service."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from sandboxer.api.service import Service


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Running = Annotated[Service, Depends(_service)]
SandboxText = Annotated[
    str, Path(alias="id", min_length=1, max_length=63, description="an id, a unique prefix (4 characters), or a name")
]
