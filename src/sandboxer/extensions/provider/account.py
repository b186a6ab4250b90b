"""Tell what "not found" proves: nothing when another key, or another address, is asked. Pure."""

from __future__ import annotations

from sandboxer.errors import BackendError, NotConfigured


def proves_absence(made_with: str, asked_with: str, *, over_at: float | None, now: float) -> bool:
    """Whether "not found" means that a thing is gone: it is asked for with the key (by fingerprint) that made it, or
    its life is over by the provider's own clock whoever asks (`over_at`, unix seconds; None never)."""
    return made_with == asked_with or (over_at is not None and now > over_at)


def other_key(what: str, *, provider: str, variables: str) -> BackendError:
    """The error for what the present key does not see."""
    return BackendError(
        f"{what} was made with another key, which alone can show whether it is gone; {provider} does not show it to"
        " this one",
        hint=f"set the {variables} with which it was made",
        outcome="unknown",
        retryable=False,
    )


def check_address(what: str, made_at: str, now_at: str, *, variable: str) -> None:
    """Raise NotConfigured when something was made at another address than the present one."""
    if made_at != now_at:
        raise NotConfigured(
            f"{what} was made at {made_at}, and {variable} means {now_at} now", hint=f"set {variable}={made_at}"
        )
