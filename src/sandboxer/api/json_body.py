"""Check the permission for a route, then read its body as strict JSON: what two readers could understand differently is
refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from sandboxer import document_bounds
from sandboxer.api.permissions import permission_of
from sandboxer.api.request_context import REQUEST_CONTEXT, RequestContext

BODY: Final = document_bounds.Bounds(size=1 << 20, values=20_000)
"""How large a body may be: the most that one takes is a command of 10,000 words."""

_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(body: bytes) -> object:
    """The value that a body holds; raises JSONDecodeError, also for a key that is given twice, for NaN, and for half of
    a surrogate pair: no program, file or store could be given such a text."""
    try:
        document_bounds.check_json(body, BODY)
        # the parser itself would take UTF-16, which nobody has measured, and surrogates in UTF-8
        value = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_once, parse_constant=_refuse)
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError:  # a ValueError too, and already what it should be
        raise
    except document_bounds.LimitExceeded as error:
        raise json.JSONDecodeError(f"it is {error}", "", 0) from None
    except UnicodeDecodeError:
        raise json.JSONDecodeError("it is not UTF-8", "", 0) from None
    except UnicodeEncodeError:
        raise json.JSONDecodeError("a text in it has half of a surrogate pair", "", 0) from None


class JsonRoute(APIRoute):
    """A route that `permissions` opens to whom it says, and whose bodies are read by `read_json`. FastAPI makes a
    refusal of the JSONDecodeError."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given a request that reads strictly; after the right to it, and noted when it changes."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            call: RequestContext | None = request.scope[REQUEST_CONTEXT]
            asked = _Strict(request.scope, request.receive)
            if call is None:  # a path that asks for no token
                return await handle(asked)
            right = permission_of(request.method, self.path)
            with call.under(right, target=next(iter(request.path_params.values()), None)):
                if right is not None and right.changes and self.body_field is None:
                    _check_says_nothing(await asked.body())
                return await handle(asked)

        return strictly


class _Strict(Request):
    async def json(self) -> Any:
        return read_json(await self.body())


def _check_says_nothing(body: bytes) -> None:
    """FastAPI looks at no body where a route takes none: what it asks for would be passed over, and the rest done."""
    if not body:
        return
    try:
        value = read_json(body)
    except json.JSONDecodeError as error:
        wrong = {"type": "json_invalid", "loc": ("body", error.pos), "ctx": {"error": error.msg}}
        raise RequestValidationError([wrong]) from None
    if isinstance(value, dict):
        complaints = [{"loc": ("body", key), "msg": "Extra inputs are not permitted"} for key in value]
    else:
        complaints = [] if value is None else [{"loc": ("body",), "msg": "Input should be an object without keys"}]
    if complaints:
        raise RequestValidationError(complaints)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise json.JSONDecodeError(f"the key {key[:80]!r} is there twice", "", 0)
        found[key] = value
    return found


def _refuse(constant: str) -> NoReturn:
    raise json.JSONDecodeError(f"{constant} is not a number of JSON", "", 0)
