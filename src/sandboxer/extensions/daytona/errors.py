"""Map Daytona's error responses to SandboxerError."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from sandboxer import document_bounds
from sandboxer.errors import BackendError, Denied, NotFound, SandboxerError, Unavailable
from sandboxer.extensions.provider.errors import over_quota, reason, unpaid
from sandboxer.http import Response, response_error, retry_after, without_html

KEY_HINT: Final = "check DAYTONA_API_KEY; keys are made at app.daytona.io under Keys"
_BUSY: Final = re.compile(
    r"state change in progress|is being|in transition|already (?:being|in progress)", re.IGNORECASE
)
_TOO_LARGE: Final = re.compile(r"per sandbox", re.IGNORECASE)
_MISSING: Final = re.compile(
    r"(?:snapshot|image|region|target)\b.{0,200}?\bnot (?:found|exist|available)", re.IGNORECASE
)


def message(answer: Response) -> str:
    """Read Daytona's own words in an error response, on one line."""
    document = _document(answer)
    said = document.get("message")
    if isinstance(said, list):
        said = "; ".join(str(part) for part in said)
    if not isinstance(said, str) or not said:
        said = document.get("error") if isinstance(document.get("error"), str) else answer.text
    return without_html(" ".join(str(said).split()))[:500]


def busy(answer: Response) -> bool:
    """Tell whether it was refused only because another change of the same sandbox is under way."""
    return answer.status == 409 or (answer.status == 400 and _BUSY.search(message(answer)) is not None)


def longest_retry_after(answer: Response) -> float | None:
    """Read the seconds to wait: Daytona has one Retry-After for each of its throttlers (`Retry-After-{throttler}`); the
    longest of those that are there counts."""
    told = [
        seconds
        for name, value in answer.headers.items()
        if name == "retry-after" or name.startswith("retry-after-")
        if (seconds := retry_after(value)) is not None
    ]
    return max(told, default=None)


def api_error(answer: Response) -> SandboxerError:
    """Map an error response of Daytona's own API or of a toolbox."""
    said = message(answer)
    text = f"Daytona answered {answer.asked} with {answer.status}" + (f": {said}" if said else "")
    details: dict[str, Any] = {"status": answer.status}
    if (code := _document(answer).get("code")) and isinstance(code, str):
        details["code"] = code[:100]
    if answer.status == 429:
        seconds = longest_retry_after(answer)
        more = {} if seconds is None else {"retry_after": seconds}
        return Unavailable(text, hint="Daytona limits requests: wait, then try again", details=details | more)
    if answer.status == 401:
        return Denied(text, hint=KEY_HINT, details=details)
    why = reason(answer.status, said) if answer.status in (400, 402, 403) else None
    if why == "billing":
        return unpaid(text, where="app.daytona.io", details=details)
    if why == "capacity":
        return Unavailable(text, hint="try again later, or another region in options.target", details=details)
    if why == "quota" and not _TOO_LARGE.search(said):
        return over_quota(text, where="app.daytona.io (Limits)", details=details)
    if answer.status == 403 and not _TOO_LARGE.search(said):
        return Denied(text, hint=KEY_HINT, details=details)
    if answer.status in (400, 404) and _MISSING.search(said):
        hint = "correct options.snapshot, options.image or options.target of the profile"
        return NotFound(text, hint=hint, details=details)
    if answer.status in (400, 403, 422):
        hint = "correct the options of the profile"
        return BackendError(text, hint=hint, details=details, retryable=False)
    if answer.status == 404:
        return NotFound(text, hint="look it up at app.daytona.io", fault="backend", details=details)
    return _reworded(response_error(answer), text, details)


def _reworded(error: SandboxerError, text: str, details: dict[str, Any]) -> SandboxerError:
    return type(error)(
        text,
        hint=error.hint,
        retryable=error.retryable,
        outcome=error.outcome,
        fault=error.fault,
        details={**(error.details or {}), **details},
    )


def _document(answer: Response) -> dict[str, Any]:
    try:
        found = document_bounds.decode(answer.body)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}
