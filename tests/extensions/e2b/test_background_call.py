"""A call that goes on beside the rest of a create."""

from __future__ import annotations

import threading

import pytest

from sandboxer.errors import Timeout
from sandboxer.extensions.e2b.describe import BackgroundCall
from sandboxer.timing import Deadline


def test_a_call_that_is_late_may_still_say_why() -> None:
    deadline = Deadline(0.1)

    def call() -> None:
        while not deadline.passed:
            threading.Event().wait(0.01)
        threading.Event().wait(0.05)  # the one who waits is first to see that the time is up
        raise Timeout("the door is shut")

    with pytest.raises(Timeout, match="the door is shut"):
        BackgroundCall(call).wait(deadline)


def test_a_call_without_an_end_is_left_behind() -> None:
    """Promise 22."""
    never = threading.Event()
    with pytest.raises(Timeout, match="deadline passed"):
        BackgroundCall(lambda: (never.wait(60), None)[1]).wait(Deadline(0.1))
    never.set()
