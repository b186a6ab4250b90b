"""What "not found" proves, and waits that end."""

from __future__ import annotations

import time

import pytest

from sandboxer.errors import BackendError, NotConfigured, Timeout, Unavailable
from sandboxer.extensions.provider import account, wait
from sandboxer.timing import Deadline


@pytest.mark.parametrize(
    ("made_with", "asked_with", "over_at", "proves"),
    [("a", "a", None, True), ("a", "b", None, False), ("a", "b", 99.0, True), ("a", "b", 101.0, False)],
)
def test_only_its_own_key_or_the_end_of_its_life_proves_an_absence(
    made_with: str, asked_with: str, over_at: float | None, proves: bool
) -> None:
    assert account.proves_absence(made_with, asked_with, over_at=over_at, now=100.0) is proves


def test_another_address_is_refused_with_what_to_set() -> None:
    account.check_address("x", "https://a", "https://a", variable="E2B_API_URL")
    with pytest.raises(NotConfigured) as caught:
        account.check_address("x", "https://a", "https://b", variable="E2B_API_URL")
    assert "E2B_API_URL=https://a" in caught.value.hint


def test_a_pause_ends_with_the_deadline_also_when_it_is_cancelled() -> None:
    began = time.monotonic()
    with pytest.raises(Timeout, match="waiting for it"):
        wait.pause(60, Deadline(0.05), "waiting for it")
    cancelled = Deadline(None)
    cancelled.cancel()
    with pytest.raises(Timeout):
        wait.pause(60, cancelled, "waiting for it")
    assert time.monotonic() - began < 20


def test_only_a_provider_that_does_not_answer_now_tells_how_long_to_wait() -> None:
    details = {"retry_after": 3}
    assert wait.told_to_wait(Unavailable("busy", details=details)) == 3
    assert wait.told_to_wait(BackendError("no", details=details)) is None
    assert wait.told_to_wait(Unavailable("down")) is None
