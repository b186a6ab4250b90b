"""Durations, instants, deadlines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.errors import Invalid, Timeout
from sandboxer.timing import MAX_SECONDS, Deadline, format_duration, parse_duration, rfc3339


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("7d", 604800), ("1h30m", 5400), ("45", 45), (5, 5)]
)
def test_durations_of_the_contract(text: str | int, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "1.5h", "h", "1h 30m", "30m1h", "1w", "٣h", "9" * 30, True, -5])
def test_what_is_no_duration_is_invalid(text: str | int) -> None:
    with pytest.raises(Invalid):
        parse_duration(text)


@given(st.integers(min_value=1, max_value=MAX_SECONDS))
def test_formatting_is_the_inverse_of_parsing(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.text(max_size=40))
def test_any_text_is_a_duration_or_invalid(text: str) -> None:
    """Promise 30."""
    try:
        assert 0 < parse_duration(text) <= MAX_SECONDS
    except Invalid as error:
        assert error.hint


def test_times_are_rfc_3339_in_utc_with_z() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1795226907.25) == "2026-11-21T02:08:27.250Z"
    assert rfc3339(None) is None


def test_a_shorter_deadline_ends_with_the_longer_one() -> None:
    clock = [0.0]
    whole = Deadline(10, clock=lambda: clock[0])
    part = whole.shorter(30)
    assert part.left() == 10
    clock[0] = 11
    assert part.passed
    with pytest.raises(Timeout):
        part.check("waiting")


def test_cancelling_ends_every_deadline_below() -> None:
    whole = Deadline(None)
    part = whole.shorter(100)
    whole.cancel()
    assert part.passed
    assert part.left() == 0
