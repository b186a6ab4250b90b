"""One thing that was looked at."""

from __future__ import annotations

from typing import Final, Literal

from sandboxer.errors import SandboxerError
from sandboxer.models import Value

LOOK_SECONDS: Final = 15.0
"""How long one look may take."""


class Finding(Value, frozen=True, kw_only=True):
    """One thing that was looked at. `hint` says what to type."""

    subject: str
    level: Literal["ok", "warning", "error"]
    text: str
    hint: str = ""


def of_error(subject: str, error: SandboxerError, *, level: Literal["warning", "error"]) -> Finding:
    """What an error says of a thing."""
    return Finding(subject=subject, level=level, text=error.message, hint=error.hint)
