"""Sort refusals of providers by what their words say, and word the errors that all of them have. Pure."""

from __future__ import annotations

import re
from typing import Final, Literal

from sandboxer.errors import BackendError, Conflict, Denied, SandboxerError

Reason = Literal["billing", "capacity", "quota"]

_ADDRESS: Final = re.compile(r"https?://\S+", re.IGNORECASE)
_BILLING: Final = re.compile(
    r"\b(?:suspend|billing|payment|unpaid|overdue|invoice|depleted|spend(?:ing)? limit|credits?\b|subscription)",
    re.IGNORECASE,
)
_CAPACITY: Final = re.compile(
    r"no available runner|no runner|\bcapacity|resource limit reached|no (?:free )?(?:machine|node)", re.IGNORECASE
)
_QUOTA: Final = re.compile(r"\blimits?\b|\bquotas?\b|\bexceed|\bmaximum\b|\btoo many\b", re.IGNORECASE)


def reason(status: int, words: str) -> Reason | None:
    """Why an account is refused, by the status (402 says it alone) and the provider's words; None where they do not
    say. Addresses in the words do not count: the way to more of everything leads past a page called billing."""
    said = _ADDRESS.sub("", words)
    if status == 402 or _BILLING.search(said):
        return "billing"
    if _CAPACITY.search(said):
        return "capacity"
    return "quota" if _QUOTA.search(said) else None


def unpaid(text: str, *, where: str, details: dict[str, object]) -> SandboxerError:
    """The error for an account that has to pay first."""
    hint = f"see billing at {where}: the account cannot start anything"
    return Denied(text, hint=hint, details={**details, "reason": "billing"})


def over_quota(text: str, *, where: str, details: dict[str, object]) -> SandboxerError:
    """The error for an account that has as much as it may have."""
    return BackendError(
        text,
        hint=f"destroy sandboxes that are not needed, or have the account's quota raised at {where}",
        retryable=True,
        details={**details, "reason": "quota"},
    )


def stopped(what: str, state: str, *, provider: str, sandbox_id: str | None) -> SandboxerError:
    """The error for a use of a sandbox that is paused or stopped, whoever did that."""
    return Conflict(
        f"{what} is {state} at {provider}",
        hint=f"run `sandboxer start {sandbox_id or 'ID'}`",
        fault="backend",
        details={"presence": "stopped", "state": state},
    )


def ended(what: str, *, provider: str, sandbox_id: str | None, kind: type[SandboxerError] = Conflict) -> SandboxerError:
    """The error for a use of a sandbox that the provider does not have any more."""
    return kind(
        f"{what} is gone from {provider}: it has ended",
        hint=f"run `sandboxer reconcile`, then `sandboxer recreate {sandbox_id or 'ID'}`",
        fault="backend",
        details={"presence": "absent"},
    )
