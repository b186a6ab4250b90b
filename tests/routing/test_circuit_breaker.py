"""What was measured of a place, and whether it may be tried."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxer.routing.circuit_breaker import (
    FAILURES_TO_OPEN,
    HALF_LIFE_SECONDS,
    NO_STATS,
    OPEN_SECONDS,
    PROBE_SECONDS,
    BackendStats,
    after_failure,
    after_success,
    circuit,
    mean_create_seconds,
    with_probe,
    without_probe,
)
from tests.sizes import scaled


def broken(now: float = 1000.0) -> BackendStats:
    """A place that failed often enough."""
    health = NO_STATS
    for _ in range(FAILURES_TO_OPEN):
        health = after_failure(health, now)
    return health


def test_it_opens_at_the_third_failure_in_a_row() -> None:
    health = after_failure(after_failure(NO_STATS, 1000.0), 1000.0)
    assert circuit(health, 1000.0) == "closed"
    assert circuit(after_failure(health, 1000.0), 1000.0) == "open"
    mended = after_success(health, 1001.0, 1.0)
    assert circuit(after_failure(mended, 1002.0), 1002.0) == "closed"


def test_after_a_while_one_create_may_try_and_the_others_may_not() -> None:
    health = broken()
    assert circuit(health, 1000.0 + OPEN_SECONDS - 0.1) == "open"
    later = 1000.0 + OPEN_SECONDS
    assert circuit(health, later) == "half-open"
    taken = with_probe(health, later)
    assert circuit(taken, later) == "open"
    assert circuit(taken, later + PROBE_SECONDS) == "half-open", "whoever took the turn was never heard of again"
    assert circuit(without_probe(taken), later) == "half-open"


def test_the_one_try_closes_it_or_opens_it_again() -> None:
    later = 1000.0 + OPEN_SECONDS
    taken = with_probe(broken(), later)
    assert circuit(after_success(taken, later + 5, 2.0), later + 5) == "closed"
    again = after_failure(taken, later + 5)
    assert circuit(again, later + 5) == "open"
    assert circuit(again, later + 5 + OPEN_SECONDS) == "half-open"


def test_a_clock_that_was_set_back_keeps_nothing_open() -> None:
    assert circuit(broken(now=5_000_000.0), 1000.0) == "half-open"


def test_what_was_measured_fades() -> None:
    assert mean_create_seconds(NO_STATS, 0.0) is None
    once = after_success(NO_STATS, 1000.0, 4.0)
    assert mean_create_seconds(once, 1000.0) == 4.0
    assert mean_create_seconds(once, 1000.0 + 4 * HALF_LIFE_SECONDS) == 4.0
    assert mean_create_seconds(once, 1000.0 + 5 * HALF_LIFE_SECONDS) is None


def test_newer_creates_count_more() -> None:
    slow = after_success(NO_STATS, 0.0, 10.0)
    soon = after_success(slow, 0.0, 1.0)
    late = after_success(slow, HALF_LIFE_SECONDS, 1.0)
    assert mean_create_seconds(soon, 0.0) == pytest.approx(5.5)
    assert mean_create_seconds(late, HALF_LIFE_SECONDS) == pytest.approx((10 * 0.5 + 1) / 1.5)
    assert soon.count == 2


def test_a_busy_hour_does_not_hide_a_change() -> None:
    health = NO_STATS
    for _ in range(1000):
        health = after_success(health, 0.0, 1.0)
    for _ in range(20):
        health = after_success(health, 1.0, 10.0)
    seconds = mean_create_seconds(health, 1.0)
    assert seconds is not None
    assert seconds > 9


def test_a_success_that_was_not_measured_changes_no_time() -> None:
    known = after_success(NO_STATS, 0.0, 3.0)
    assert mean_create_seconds(after_success(broken(), 2000.0, None), 2000.0) is None
    assert mean_create_seconds(after_success(known, 10.0, None), 10.0) == 3.0


SAMPLES = st.lists(st.tuples(st.floats(0, 20_000), st.floats(0.01, 900)), min_size=1, max_size=30)


@settings(max_examples=scaled(200, soak=10_000), deadline=None)
@given(SAMPLES)
def test_the_mean_lies_between_the_samples(samples: list[tuple[float, float]]) -> None:
    health, at = NO_STATS, 0.0
    for gap, seconds in samples:
        at += gap
        health = after_success(health, at, seconds)
    mean = mean_create_seconds(health, at)
    assert mean is not None
    assert min(s for _, s in samples) * 0.999 <= mean <= max(s for _, s in samples) * 1.001
