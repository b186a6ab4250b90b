"""Map E2B's error responses to SandboxerError. The words are those of its server (`sendAPIStoreError`) and of the
models of its SDK."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from sandboxer import document_bounds
from sandboxer.errors import BackendError, Conflict, Denied, NotFound, SandboxerError, Timeout, Unavailable
from sandboxer.extensions.provider.errors import over_quota, reason, unpaid
from sandboxer.http import Response, response_error, without_html

KEY: Final = "E2B_API_KEY"
_CAPACITY: Final = frozenset(
    {"sandbox_capacity_unavailable", "sandbox_placement_timeout", "sandbox_no_compatible_node"}
)
_DEFINITE: Final = frozenset({"sandbox_create_failed", "sandbox_create_refused"})
"""5xx codes that say for certain that no sandbox was made."""


class E2BErrorBody(msgspec.Struct, frozen=True):
    """The body of an error response. envd's has a word as its code, the control plane's a number."""

    code: int | str = ""
    message: str = ""
    error_code: str = ""


def error_body(answer: Response) -> E2BErrorBody:
    """Decode the body of an error response; empty when it is not in E2B's form."""
    try:
        return document_bounds.decode_as(E2BErrorBody, answer.body)
    except msgspec.DecodeError:
        return E2BErrorBody()


def api_error(answer: Response) -> SandboxerError:
    """Map an error response of the API."""
    said = error_body(answer)
    words = without_html(said.message) or answer.text
    text = f"E2B answered {answer.asked} with {answer.status}" + (f": {words[:500]}" if words else "")
    details = _details(answer, said)
    lower = words.lower()
    why = reason(answer.status, words) if answer.status in (402, 403) else None
    if why == "billing":
        return unpaid(text, where="e2b.dev/dashboard", details=details)
    if why == "quota":
        return over_quota(text, where="e2b.dev/dashboard", details=details)
    if answer.status in (401, 403) and why is None:
        return Denied(text, hint=f"check {KEY}: E2B does not accept the key", details=details)
    if answer.status == 429 and "concurrent" in lower:
        return over_quota(text, where="e2b.dev/dashboard", details=details)
    if answer.status == 429:
        return Unavailable(text, hint="E2B limits requests: wait, then try again", details=details)
    if why == "capacity" or said.error_code in _CAPACITY or (answer.status == 503 and said.message):
        return Unavailable(text, hint="E2B has no room at the moment: try again later", details=details)
    if said.error_code in _DEFINITE:
        return BackendError(text, hint="try again; look at E2B's status page", retryable=True, details=details)
    if said.error_code == "idempotency_request_mismatch":
        return Conflict(
            text, hint="this id was used for another request: create it again", fault="backend", details=details
        )
    if said.error_code in ("idempotency_in_progress", "idempotency_outcome_unknown"):
        return Unavailable(text, hint="run `sandboxer reconcile`", outcome="unknown", details=details)
    if answer.status == 404 and "template" in lower:
        return NotFound(
            text, hint="name a template of this account in `options.template`", fault="caller", details=details
        )
    if answer.status == 400 and "timeout cannot be greater" in lower:
        return BackendError(
            text,
            hint="give a shorter --ttl, or tell the account's cap in config.yaml: extensions.ext.e2b.max_ttl",
            retryable=False,
            details=details,
        )
    return response_error(answer)


def _details(answer: Response, said: E2BErrorBody) -> dict[str, Any]:
    details: dict[str, Any] = {"status": answer.status}
    if said.error_code:
        details["error_code"] = said.error_code
    if answer.retry_after is not None:
        details["retry_after"] = answer.retry_after
    if told := answer.headers.get("should-retry"):
        details["should_retry"] = told.strip().lower()
    return details


def envd_error(answer: Response) -> SandboxerError:
    """Map an error response of a sandbox's own address: its envd, or the proxy that stands before all of them."""
    said = error_body(answer)
    words = without_html(said.message) or answer.text
    text = f"the sandbox answered {answer.asked} with {answer.status}" + (f": {words[:500]}" if words else "")
    if answer.status == 502 and "not found" in words.lower():
        return gone(text)
    if said.code == "deadline_exceeded":
        return Timeout(text, hint="give it longer with --timeout")
    if answer.status in (502, 503, 504):
        return Unavailable(text, hint="try again; run `sandboxer get ID` to see its state", details={"status": 502})
    if answer.status in (401, 403):
        return Denied(text, hint="E2B gave no valid token for this sandbox: run `sandboxer reconcile`")
    if answer.status == 507:
        return BackendError(text, hint="the sandbox's disk is full: remove something inside", retryable=False)
    if said.code == "unimplemented":
        return BackendError(
            text,
            hint="the server behind E2B_SANDBOX_URL cannot do it",
            retryable=False,
            details={"status": answer.status, "connect": said.code},
        )
    return response_error(answer)


def gone(text: str) -> SandboxerError:
    """Make the error for a sandbox that does not run (any more)."""
    hint = "it has ended or is paused at E2B: run `sandboxer reconcile`"
    return Conflict(text, hint=hint, fault="backend", details={"presence": "unknown"})


_WORDS: Final = {
    "not_found": NotFound, "unauthenticated": Denied, "permission_denied": Denied, "unavailable": Unavailable,
    "resource_exhausted": Unavailable, "deadline_exceeded": Timeout,
}  # fmt: skip


def stream_error(code: str, message: str) -> SandboxerError:
    """Map a Connect error inside a stream."""
    kind = _WORDS.get(code, BackendError)
    return kind(
        f"the sandbox could not run it: {without_html(message)[:500] or code}",
        hint="run `sandboxer get ID` to see its state",
        fault="backend",
        details={"connect": code},
    )
