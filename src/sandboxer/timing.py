"""Durations, instants and deadlines."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

from sandboxer.errors import Invalid, Timeout

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
MAX_SECONDS = 10 * 365 * 86400
"""The longest duration that is accepted, in seconds: ten years."""


def parse_duration(text: str | int | float, *, what: str = "duration") -> int:
    """Seconds in `90s`, `30m`, `2h`, `7d`, `1h30m`, or a bare number of seconds. Raises Invalid."""
    if isinstance(text, bool):
        raise Invalid(f"{what} {text!r} is not a duration", hint="write it like 90s, 30m, 2h, 7d or 1h30m")
    if isinstance(text, int | float):
        seconds: float = text
    elif text.isascii() and text.isdigit() and len(text) <= 12:
        seconds = int(text)
    else:
        match = _DURATION.fullmatch(text)
        if match is None or not text:
            raise Invalid(f"{what} {text[:80]!r} is not a duration", hint="write it like 90s, 30m, 2h, 7d or 1h30m")
        seconds = sum(int(n) * _UNITS[u] for n, u in zip(match.groups(), "dhms", strict=True) if n)
    if not 0 < seconds <= MAX_SECONDS:
        raise Invalid(f"{what} {text!r} is out of range", hint="give more than 0s and at most 3650d")
    return int(seconds) if seconds >= 1 else 1


def brief(instant: str) -> str:
    """A time as tables show it, to the second: `2027-01-15T08:00:00.123Z` as `2027-01-15T08:00:00Z`."""
    return f"{instant.partition('.')[0].removesuffix('Z')}Z"


def format_duration(seconds: float) -> str:
    """`5400` as `1h30m`: the inverse of `parse_duration` for whole seconds."""
    left, parts = int(seconds), []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def remaining(until: float | None) -> str:
    """How long it is until then, as tables show it: `29m`, `never`, `over`."""
    if until is None:
        return "never"
    seconds = until - now()
    if seconds <= 0:
        return "over"
    return format_duration(seconds if seconds < 120 else seconds // 60 * 60)


def now() -> float:
    """Unix time in seconds."""
    return time.time()


def uptime() -> float:
    """Seconds since this machine was started, sleep included: a clock that nobody sets."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def parse_time(text: str, *, what: str = "time") -> float:
    """Unix seconds of a time (`2027-01-15T08:00:00Z`) or a day (its first second in UTC). Raises Invalid."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise Invalid(
            f"{what} {text[:80]!r} is not a time", hint="write it like 2027-01-15T08:00:00Z, or 2027-01-15"
        ) from None


def rfc3339(instant: float | None) -> str | None:
    """An instant as RFC 3339, UTC, with milliseconds and `Z`; None stays None."""
    if instant is None:
        return None
    whole = datetime.fromtimestamp(instant, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{whole.microsecond // 1000:03d}Z"


class Deadline:
    """One point in time that a whole verb must meet; passed down so that every wait below shares it.

    `cancel` makes it pass at once, also for every shorter deadline derived from it; waits notice within a second."""

    __slots__ = ("_at", "_cancelled", "_clock")

    def __init__(self, seconds: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = None if seconds is None else clock() + seconds
        self._cancelled: list[bool] = []

    def left(self, *, at_most: float | None = None) -> float | None:
        """Seconds that remain (never negative); None without an end. `at_most` caps the answer."""
        if self._cancelled:
            return 0.0
        if self._at is None:
            return at_most
        left = max(0.0, self._at - self._clock())
        return left if at_most is None else min(left, at_most)

    def seconds(self, at_most: float) -> float:
        """Seconds that remain, never more than `at_most`: for waits that must have an end of their own."""
        left = self.left(at_most=at_most)
        return at_most if left is None else left

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return bool(self._cancelled) or (self._at is not None and self._clock() >= self._at)

    def cancel(self) -> None:
        """Let the time be up now: nobody wants the result any more."""
        self._cancelled.append(True)

    def check(self, doing: str) -> None:
        """Raise Timeout, naming what was being done, once the time is up."""
        if self.passed:
            raise Timeout(
                f"the deadline passed while {doing}",
                hint="give it longer with --timeout; `sandboxer doctor` shows what does not answer",
            )

    def shorter(self, seconds: float | None) -> Deadline:
        """A deadline that ends after `seconds`, or with this one if that is sooner."""
        if seconds is None:
            return self
        child = Deadline(self.seconds(seconds), clock=self._clock)
        child._cancelled = self._cancelled
        return child
