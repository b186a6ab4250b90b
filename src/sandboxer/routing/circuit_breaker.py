"""Measure one backend, and tell whether it may be tried now.

A place is a circuit: closed (try it), open (it failed again and again: leave it alone), or half-open (one create may
see whether it works again). All functions take a place's health as it was and give it as it is after."""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from sandboxer.models import Value

HALF_LIFE_SECONDS: Final = 3600.0
"""After how long a measured create time counts half, in seconds."""
MAX_HISTORY_WEIGHT: Final = 8.0
"""How much all that was measured before may weigh against one new create: a busy hour must not hide a change."""
MIN_WEIGHT: Final = 0.05
"""Below this weight (a single create, some four half-lives ago) a place counts as never measured."""
FAILURES_TO_OPEN: Final = 3
"""Consecutive failures of a backend after which nothing is tried there."""
OPEN_SECONDS: Final = 60.0
"""How long nothing is tried; then one create may."""
PROBE_SECONDS: Final = 60.0
"""How long that one create holds its turn, if it is never heard of again."""

Circuit = Literal["closed", "open", "half-open"]


class BackendStats(Value, frozen=True, kw_only=True):
    """One place. Times are unix seconds; `seconds` is the mean of the measured creates, newer ones counting more, and
    `weight` how much stands behind it at `measured_at`; `count` how many were measured."""

    seconds: float = 0.0
    weight: float = 0.0
    count: int = 0
    measured_at: float = 0.0
    failures: int = 0
    opened_at: float | None = None
    probe_at: float | None = None
    changed_at: float = 0.0


NO_STATS: Final = BackendStats()


def circuit(health: BackendStats, now: float) -> Circuit:
    """Whether a place may be tried. `half-open` is for one create only; `open` for those beside it."""
    if health.opened_at is None:
        return "closed"
    if _within(now, health.opened_at, OPEN_SECONDS):
        return "open"
    if health.probe_at is not None and _within(now, health.probe_at, PROBE_SECONDS):
        return "open"
    return "half-open"


def mean_create_seconds(health: BackendStats, now: float) -> float | None:
    """The mean create time of a place, in seconds; None when it was never measured, or too long ago."""
    return health.seconds if _faded(health, now) >= MIN_WEIGHT else None


def after_success(health: BackendStats, now: float, seconds: float | None) -> BackendStats:
    """A create succeeded, and took `seconds` (None: that is not known, or not typical). Closes the circuit."""
    closed = msgspec.structs.replace(health, failures=0, opened_at=None, probe_at=None, changed_at=now)
    if seconds is None:
        return closed
    before = min(MAX_HISTORY_WEIGHT, _faded(health, now))
    weight = before + 1.0
    mean = (health.seconds * before + seconds) / weight
    return msgspec.structs.replace(closed, seconds=mean, weight=weight, count=health.count + 1, measured_at=now)


def after_failure(health: BackendStats, now: float) -> BackendStats:
    """The backend failed. Opens the circuit at the third time in a row, and again when the one try has failed."""
    failures = health.failures + 1
    opened = now if failures >= FAILURES_TO_OPEN else None
    return msgspec.structs.replace(health, failures=failures, opened_at=opened, probe_at=None, changed_at=now)


def with_probe(health: BackendStats, now: float) -> BackendStats:
    """One create has taken the one try of a half-open circuit."""
    return msgspec.structs.replace(health, probe_at=now, changed_at=now)


def without_probe(health: BackendStats) -> BackendStats:
    """The one try said nothing of the backend (its caller was at fault): the next create may take it."""
    return msgspec.structs.replace(health, probe_at=None)


def _faded(health: BackendStats, now: float) -> float:
    age: float = max(0.0, now - health.measured_at)
    half_lives = min(1000.0, age / HALF_LIFE_SECONDS)
    return health.weight * math.pow(0.5, half_lives)


def _within(now: float, since: float, seconds: float) -> bool:
    """A clock that was set back must not keep a circuit open for ever: what lies in the future is over."""
    return 0.0 <= now - since < seconds
