"""Check the keys and addresses of accounts, and tell what "not found" proves: nothing when another key, or another
address, is asked. Pure."""

from __future__ import annotations

from sandboxer.errors import BackendError, Invalid, NotConfigured
from sandboxer.extensions.provider.lost_create import with_outcome
from sandboxer.http import BaseURL, parse_base_url
from sandboxer.secrets import Secret


def usable_address(text: str, *, variable: str) -> BaseURL:
    """Parse the address of an API. Raises Invalid for one that is none, saying that nothing can have been asked there:
    neither is there anything to take back, nor could it be looked for."""
    try:
        return parse_base_url(text, what=variable)
    except Invalid as error:
        raise with_outcome(error, "failed") from None


def check_sendable(key: Secret, *, variable: str) -> None:
    """Raise NotConfigured for a key that no header can carry, before anything is made of it."""
    value = key.reveal()
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise NotConfigured(
            f"{variable} holds characters that cannot be sent",
            hint=f"check {variable}: a line break, or another encoding, may have come along",
        )


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
