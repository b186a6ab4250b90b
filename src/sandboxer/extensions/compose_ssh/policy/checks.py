"""Check single values: each check gives what is sent, or refuses. Factories for the key table."""

from __future__ import annotations

import math
import re
from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader import Path
from sandboxer.extensions.compose_ssh.policy.gate import LEFT_OUT, Gate, KeyCheck

NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
HOSTNAME: Final = r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?"
INSIDE: Final = r"/[^\x00-\x1f\x7f:,\\]{0,1023}"
"""A path inside a container: `:` and `,` would end it in the words that podman is given."""
MAX_TEXT: Final = 256 * 1024
_SIZE: Final = re.compile(r"(\d{1,15})(?:\.0+)?\s?([kmgt]?)(i?b)?", re.IGNORECASE | re.ASCII)
_DURATION: Final = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:h|ms|us|µs|ns|m|s))+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)")
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_FACTORS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
MIB: Final = 1 << 20
GIB: Final = 1 << 30


def plain(value: Any) -> str | None:
    """A scalar's text; None for what is none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return value if isinstance(value, str) and len(value) <= MAX_TEXT else None


def flag_of(value: Any) -> bool | None:
    """A boolean, also as the word that YAML has for it."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else None


def bytes_of(value: Any) -> int | None:
    """A size such as 64m, in bytes; None when it is none."""
    text = plain(value)
    match = _SIZE.fullmatch(text.strip()) if text is not None else None
    return int(match[1]) * _FACTORS[match[2].lower()] if match else None


def seconds_of(value: Any) -> float | None:
    """A duration such as 1m30s, in seconds; None when it is none."""
    text = plain(value)
    if text is None or len(text) > 64:
        return None
    if text == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def wrong(gate: Gate, path: Path, expected: str) -> Any:
    """Refuse a value whose form nobody has looked at."""
    return gate.refuse(path, f"a value that was not looked at: it is not {expected}")


def flag(gate: Gate, path: Path, value: Any) -> Any:
    """True or false."""
    found = flag_of(value)
    return wrong(gate, path, "true or false") if found is None else found


def anything(gate: Gate, path: Path, value: Any) -> Any:
    """A text of any content."""
    return wrong(gate, path, "a text") if plain(value) is None else value


def later(_gate: Gate, _path: Path, value: Any) -> Any:
    """Judged with what it belongs to."""
    return value


def text(pattern: str, expected: str) -> KeyCheck:
    """A text of that form."""
    compiled = re.compile(pattern, re.ASCII)

    def take(gate: Gate, path: Path, value: Any) -> Any:
        found = plain(value)
        return value if found is not None and compiled.fullmatch(found) else wrong(gate, path, expected)

    return take


def one_of(*words: str, gives: str = "") -> KeyCheck:
    """One of these words."""

    def take(gate: Gate, path: Path, value: Any) -> Any:
        if plain(value) in words:
            return value
        listed = ", ".join(word or '""' for word in words)
        return gate.refuse(path, gives) if gives else wrong(gate, path, f"one of {listed}")

    return take


def number(low: float, high: float, gives: str = "") -> KeyCheck:
    """A number in that range."""

    def take(gate: Gate, path: Path, value: Any) -> Any:
        found = plain(value)
        try:
            amount = float(found) if found is not None and len(found) < 32 and not isinstance(value, bool) else None
        except ValueError:
            amount = None
        if amount is None or not math.isfinite(amount):
            return wrong(gate, path, "a number")
        if not low <= amount <= high:
            return gate.refuse(path, f"{gives or 'more than a sandbox needs'}: it may be {low:g} to {high:g}")
        return value

    return take


def size(high: int, gives: str = "the memory of the host", *, unlimited: bool = False) -> KeyCheck:
    """A size up to `high` bytes; `unlimited`: -1 too."""

    def take(gate: Gate, path: Path, value: Any) -> Any:
        if unlimited and plain(value) == "-1":
            return value
        found = bytes_of(value)
        if found is None:
            return wrong(gate, path, "a size such as 64m")
        return value if found <= high else gate.refuse(path, f"{gives}: at most {high // MIB} MiB")

    return take


def duration(low: float, high: float) -> KeyCheck:
    """A duration in that range of seconds, or 0."""

    def take(gate: Gate, path: Path, value: Any) -> Any:
        found = seconds_of(value)
        if found is None:
            return wrong(gate, path, "a duration such as 1m30s")
        if found and not low <= found <= high:
            return gate.refuse(path, f"the time of whoever waits for it: it may be {low:g} to {high:g} seconds")
        return value

    return take


def words(gate: Gate, path: Path, value: Any) -> Any:
    """A text, or a list of texts: what runs inside. Nothing means nothing."""
    if value is None or plain(value) is not None:
        return value
    if isinstance(value, list):
        bad = [index for index, item in enumerate(value) if plain(item) is None]
        for index in bad:
            wrong(gate, (*path, index), "a text")
        return LEFT_OUT if bad else value
    return wrong(gate, path, "a text or a list of texts")


def each(take: KeyCheck, *, most: int = 1000) -> KeyCheck:
    """A list of such values; a single one counts as a list."""

    def judge(gate: Gate, path: Path, value: Any) -> Any:
        if not isinstance(value, list):
            value = [value]
        if len(value) > most:
            return gate.refuse(path, f"the memory of whoever reads it: at most {most} entries")
        return [take(gate, (*path, index), item) for index, item in enumerate(value)]

    return judge


def dropped(_gate: Gate, _path: Path, _value: Any) -> Any:
    """Harmless, and not sent."""
    return LEFT_OUT


def refused(gives: str, grant: str | None = None) -> KeyCheck:
    """Never allowed, or only as a whole."""

    def take(gate: Gate, path: Path, value: Any) -> Any:
        if value is None or value in ([], {}, "", False):
            return LEFT_OUT  # nothing is asked for
        return value if grant and gate.granted(path, gives, grant) else gate.refuse(path, gives, grant)

    return take


def switch(gives: str, grant: str | None = None) -> KeyCheck:
    """A flag that may only be false, unless it is granted."""

    def take(gate: Gate, path: Path, value: Any) -> Any:
        found = flag_of(value)
        if found is None:
            return wrong(gate, path, "true or false")
        if not found:
            return LEFT_OUT
        return True if grant and gate.granted(path, gives, grant) else gate.refuse(path, gives, grant)

    return take
