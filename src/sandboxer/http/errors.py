"""Map responses with an unexpected status to SandboxerError, where a provider's own table says nothing."""

from __future__ import annotations

from typing import Final

from sandboxer.errors import BackendError, Denied, NotFound, Outcome, SandboxerError, Unavailable
from sandboxer.http.response import Response

_GATEWAY: Final = frozenset({502, 503, 504})
"""Statuses that gateways send in the API's place."""


def response_error(answer: Response) -> SandboxerError:
    """Map an unexpected status to an error. A provider's adapter looks for what it knows first, and falls back
    on this. The provider's words are quoted; they are not expected to hold what we sent in headers."""
    said = f"{answer.name} answered {answer.asked} with {answer.status}" + (f": {answer.text}" if answer.text else "")
    details = {"status": answer.status}
    looking = answer.asked.startswith(("GET ", "HEAD "))
    outcome: Outcome = "failed" if looking or answer.status < 500 else "unknown"
    if answer.status in (401, 403):
        return Denied(said, hint=f"check the key for {answer.name}", details=details)
    if answer.status == 404:
        return NotFound(said, hint=f"look it up at {answer.name}", fault="backend", details=details)
    if answer.status == 429:
        seconds = answer.retry_after
        more = {} if seconds is None else {"retry_after": seconds}
        hint = f"{answer.name} limits requests: wait, then try again"
        return Unavailable(said, hint=hint, outcome="failed", details=details | more)
    if 300 <= answer.status < 400:
        said = f"{answer.name} answered {answer.asked} with a redirection ({answer.status}), which is not followed"
        return BackendError(said, hint="configure the address that it leads to", details=details, retryable=False)
    if answer.status in _GATEWAY:
        return Unavailable(said, hint="try again later", outcome=outcome, details=details)
    if answer.status >= 500:
        return BackendError(said, hint="try again later", outcome=outcome, details=details, retryable=True)
    return BackendError(said, hint=f"see what {answer.name} says of it", details=details, retryable=False)
