"""Render errors as `application/problem+json` (RFC 9457): the fields of the error document, and the RFC's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from sandboxer.errors import Invalid, NotFound, OverQuota, SandboxerError, Timeout
from sandboxer.masking import masked
from sandboxer.terminal_text import json_safe

MEDIA_TYPE: Final = "application/problem+json"
_MAX_COMPLAINTS: Final = 20
_HINT: Final = "see /openapi.json for what this request takes"
_JSON_HINT: Final = "send a JSON object, with the header `Content-Type: application/json`"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What every answer other than 2xx holds. `code`, `message`, `hint`, `retryable`, `outcome`, `sandbox_id` and
    `details` are the error document of every sandboxer command."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    message: str
    hint: str
    retryable: bool | None
    outcome: str
    sandbox_id: str | msgspec.UnsetType = msgspec.UNSET
    details: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


def problem_of(error: SandboxerError, *, path: str, status: int | None = None) -> Problem:
    """An error as the problem document for a request to `path`."""
    return Problem(
        type=f"urn:sandboxer:error:{error.code}",
        title=error.code.replace("_", " "),
        status=status or error.http_status,
        detail=error.message,
        instance=masked(path),
        code=error.code,
        message=error.message,
        hint=error.hint or "see docs/api.md",
        retryable=error.retryable,
        outcome=error.outcome,
        sandbox_id=error.sandbox_id if error.sandbox_id is not None else msgspec.UNSET,
        details=error.details if error.details is not None else msgspec.UNSET,
    )


def problem_response(
    error: SandboxerError, *, path: str, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """The HTTP answer for an error."""
    document = problem_of(error, path=path, status=status)
    extra = dict(headers or {})
    if document.status == HTTPStatus.UNAUTHORIZED:
        extra["WWW-Authenticate"] = 'Bearer realm="sandboxer"'
    if isinstance(error, OverQuota):
        extra["Retry-After"] = str(error.retry_after)
    if document.status == HTTPStatus.SERVICE_UNAVAILABLE and error.retryable:
        extra.setdefault("Retry-After", "2")
    return Response(encode(document), document.status, extra, MEDIA_TYPE)


def encode(document: object) -> bytes:
    """JSON. Text that is not valid Unicode (a file name, a hostile request) is escaped instead of being refused, and so
    is what would steer a terminal that shows it."""
    try:
        encoded = msgspec.json.encode(document)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(document), ensure_ascii=True).encode()
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded
    return json_safe(encoded.decode()).encode()


def from_validation(complaints: Sequence[Mapping[str, Any]]) -> Invalid:
    """What is wrong with a request. The values themselves are not repeated: they may be secret."""
    # of one wrong body there may be as many as it has values, and nobody else is answered meanwhile
    complaints = complaints[:_MAX_COMPLAINTS]
    for complaint in complaints:
        if complaint.get("type") == "json_invalid":
            reason = str(complaint.get("ctx", {}).get("error", ""))[:200]
            return Invalid(f"the body is not valid JSON: {reason}", hint=_JSON_HINT)
    errors = [{"where": _where(item.get("loc", ())), "what": str(item.get("msg"))[:200]} for item in complaints]
    first = errors[0]
    return Invalid(
        f"{first['where']}: {first['what']}",
        hint=_JSON_HINT if complaints[0].get("loc") == ("body",) else _HINT,
        details={"errors": errors},
    )


def _where(place: Sequence[Any]) -> str:
    return ".".join(str(part)[:80] for part in place[:8]) or "request"


def from_http_exception(error: HTTPException) -> SandboxerError:
    """What the framework refuses by itself: an unknown path, a method, a body that cannot be read."""
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFound("there is no such path", hint="see /openapi.json for the paths there are")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return Invalid("this path does not take this method", hint="see the Allow header, or /openapi.json")
    if error.status_code == HTTPStatus.REQUEST_TIMEOUT:
        return Timeout("the request did not arrive in time", hint="send it again")
    return Invalid(f"the request cannot be read: {HTTPStatus(error.status_code).phrase}", hint="send a JSON object")
