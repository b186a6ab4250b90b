"""Each refusal of E2B's as the error that it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sandboxer.errors import BackendError, Conflict, Denied, NotFound, SandboxerError, Unavailable
from sandboxer.extensions.e2b.errors import api_error, envd_error, stream_error
from sandboxer.http import Response

CREATE = "POST /v2/sandboxes"


def answer(status: int, body: Any, *, asked: str = CREATE, headers: dict[str, str] | None = None) -> Response:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Response(name="E2B", asked=asked, status=status, headers=headers or {}, body=raw)


def said(status: int, message: str, error_code: str | None = None) -> dict[str, Any]:
    return {"code": status, "message": message, **({"error_code": error_code} if error_code else {})}


CONCURRENT = "you have reached the maximum number of concurrent E2B sandboxes (20). If you need more, please visit"


@pytest.mark.parametrize(
    ("status", "body", "kind", "outcome", "fault", "retryable"),
    [
        (401, said(401, "Invalid API key"), Denied, "failed", "backend", False),
        (403, said(403, "Team is blocked"), Denied, "failed", "backend", False),
        (429, said(429, CONCURRENT), BackendError, "failed", "backend", True),
        (429, said(429, "Rate limit exceeded"), Unavailable, "failed", "backend", True),
        (503, said(503, "no room", "sandbox_capacity_unavailable"), Unavailable, "failed", "backend", True),
        (504, said(504, "slow", "sandbox_placement_timeout"), Unavailable, "failed", "backend", True),
        (503, b"upstream connect error", Unavailable, "unknown", "backend", True),
        (502, b"<html>bad gateway</html>", Unavailable, "unknown", "backend", True),
        (500, said(500, "Failed to create sandbox", "sandbox_create_failed"), BackendError, "failed", "backend", True),
        (500, said(500, "Internal error"), BackendError, "unknown", "backend", True),
        (404, said(404, "template 'x' not found"), NotFound, "failed", "caller", False),
        (404, said(404, 'Sandbox "i1" doesn\'t exist'), NotFound, "failed", "backend", False),
        (400, said(400, "Timeout cannot be greater than 1 hours"), BackendError, "failed", "backend", False),
        (400, said(400, "Error when parsing request"), BackendError, "failed", "backend", False),
        (422, said(422, "other request", "idempotency_request_mismatch"), Conflict, "failed", "backend", False),
        (409, said(409, "busy", "idempotency_in_progress"), Unavailable, "unknown", "backend", True),
        (409, said(409, "?", "idempotency_outcome_unknown"), Unavailable, "unknown", "backend", True),
        (302, b"", BackendError, "failed", "backend", False),
    ],
)
def test_a_refusal_of_a_create(
    status: int, body: Any, kind: type[SandboxerError], outcome: str, fault: str, retryable: bool
) -> None:
    error = api_error(answer(status, body))
    assert (type(error), error.outcome, error.fault, error.retryable) == (kind, outcome, fault, retryable)
    assert error.hint


def test_a_rate_limit_tells_when_to_come_back() -> None:
    error = api_error(answer(429, said(429, "Rate limit exceeded"), headers={"retry-after": "7"}))
    assert (error.details or {})["retry_after"] == 7


def test_a_cap_of_the_account_tells_where_to_say_so() -> None:
    assert "max_ttl" in api_error(answer(400, said(400, "Timeout cannot be greater than 1 hours"))).hint


def test_a_failed_look_leaves_nothing_open() -> None:
    assert api_error(answer(500, b"", asked="GET /sandboxes/i1")).outcome == "failed"


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b'{"code": []}', b"null", b"[" * 5000])
def test_a_refusal_in_no_known_form_is_still_told(body: bytes) -> None:
    assert api_error(answer(500, body)).outcome == "unknown"
    assert envd_error(answer(500, body)).hint


def test_a_sandbox_that_does_not_run_is_no_fault_of_its_caller() -> None:
    error = envd_error(answer(502, {"sandboxId": "i1", "message": "The sandbox was not found", "code": 502}))
    assert isinstance(error, Conflict)
    assert "reconcile" in error.hint


def test_errors_inside_a_stream_keep_envds_word() -> None:
    error = stream_error("not_found", "process with pid 7 not found")
    assert isinstance(error, NotFound)
    assert (error.details or {})["connect"] == "not_found"
