"""Secret references to values, at the last moment. A value lives in `Secret`, which does not print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sandboxer.errors import Invalid, NotConfigured
from sandboxer.models import SecretRef

_MAX_FILE: Final = 64 * 1024


class Secret:
    """A value that does not appear in text: str, repr, formatting and pickling show only that there is one."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value, for the one call that needs it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "Secret(...)"

    def __reduce__(self) -> tuple[type, tuple[str]]:
        raise TypeError("a secret is not stored")


def resolve(name: str, ref: SecretRef, environment: Mapping[str, str]) -> Secret | None:
    """The value behind `env:VAR` or `file:/path`; None when it is optional and missing.

    Raises NotConfigured (it is required and missing) or Invalid (a scheme that is not known)."""
    scheme, _, rest = ref.ref.partition(":")
    if scheme == "env" and rest:
        value = environment.get(rest)
        missing = f"set the environment variable {rest}"
    elif scheme == "file" and rest:
        value = _read(Path(rest).expanduser())
        missing = f"write the value to {rest} (mode 0600)"
    else:
        raise Invalid(f"secret {name!r} has an unknown kind of reference {scheme!r}", hint="use env:VAR or file:/path")
    if value:
        return Secret(value)
    if ref.required:
        raise NotConfigured(f"secret {name!r} is not there", hint=missing)
    return None


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE).decode("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        return None
