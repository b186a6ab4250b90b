"""Wait for a provider: pauses that end with the deadline, also when it is cancelled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from sandboxer.errors import SandboxerError, Unavailable
from sandboxer.timing import Deadline

_TICK: Final = 0.25
"""How soon a cancelled deadline is noticed, in seconds."""


def pause(seconds: float, deadline: Deadline, doing: str) -> None:
    """Wait; raises Timeout, naming what was waited for, when the deadline passes meanwhile."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not deadline.passed:
        time.sleep(min(left, deadline.seconds(_TICK)))
    deadline.check(doing)


def pauses(first: float, *, longest: float, growth: float = 1.4) -> Iterator[float]:
    """Seconds between looks: short at first, because most changes are quick, then longer."""
    seconds = first
    while True:
        yield seconds
        seconds = min(seconds * growth, longest)


def fits(seconds: float, deadline: Deadline) -> bool:
    """Whether something can still be done after so long a pause."""
    left = deadline.left()
    return left is None or seconds < left


def told_to_wait(error: SandboxerError) -> float | None:
    """Seconds that a provider asks to be left alone; None for an error that says nothing of it."""
    seconds = (error.details or {}).get("retry_after")
    return float(seconds) if isinstance(error, Unavailable) and isinstance(seconds, int | float) else None


def part_of(deadline: Deadline, *, most: float, least: float = 1.0) -> Deadline:
    """A part of what is left for one try, so that a lost answer can still be settled."""
    left = deadline.left()
    return deadline.shorter(most if left is None else min(most, max(least, left * 0.6)))
