"""Request bodies as JSON, read strictly: what two readers could understand differently is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from sandboxer import bounded


def read_json(body: bytes) -> object:
    """The value that a body holds; raises JSONDecodeError, also for a key that is given twice and for NaN."""
    try:
        bounded.check_json(body, bounded.SMALL)
        return json.loads(body, object_pairs_hook=_once, parse_constant=_refuse)
    except json.JSONDecodeError:  # a ValueError too, and already what it should be
        raise
    except bounded.Excess as error:
        raise json.JSONDecodeError(f"it is {error}", "", 0) from None
    except UnicodeDecodeError:
        raise json.JSONDecodeError("it is not UTF-8", "", 0) from None


class JsonRoute(APIRoute):
    """A route whose bodies are read by `read_json`. FastAPI makes a refusal of the JSONDecodeError."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given a request that reads strictly."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_Strict(request.scope, request.receive))

        return strictly


class _Strict(Request):
    async def json(self) -> Any:
        return read_json(await self.body())


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise json.JSONDecodeError(f"the key {key[:80]!r} is there twice", "", 0)
        found[key] = value
    return found


def _refuse(constant: str) -> NoReturn:
    raise json.JSONDecodeError(f"{constant} is not a number of JSON", "", 0)
