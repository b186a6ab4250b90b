"""From threads to coroutines: deadlines, and look-ups that many share."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandboxer.errors import Timeout
from sandboxer.extensions.modal import client
from sandboxer.extensions.modal.client import SharedLookups
from sandboxer.extensions.modal.event_loop import LoopRunner, own_loop, sdk_loop
from sandboxer.timing import Deadline


@pytest.fixture(scope="module", params=["the SDK's", "ours"])
def bridge(request: pytest.FixtureRequest) -> LoopRunner:
    """On either loop: where the SDK's own cannot be had, ours does the same."""
    if request.param == "ours":
        return LoopRunner(own_loop())
    client.load()
    loop = sdk_loop()
    assert loop is not None, "it is where it was in modal 1.6"
    return LoopRunner(loop)


def test_a_result_and_an_error_come_back(bridge: LoopRunner) -> None:
    async def fine() -> int:
        return 7

    async def wrong() -> None:
        raise TimeoutError("its own")

    assert bridge.run(fine, Deadline(5), "counting") == 7
    with pytest.raises(TimeoutError, match="its own"):
        bridge.run(wrong, Deadline(5), "failing")


def test_a_call_is_cancelled_at_the_deadline_and_may_clean_up(bridge: LoopRunner) -> None:
    """Promise 22."""
    undone = threading.Event()

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
            undone.set()

    started = time.monotonic()
    with pytest.raises(Timeout, match="sleeping"):
        bridge.run(slow, Deadline(0.3), "sleeping")
    assert undone.is_set()
    assert time.monotonic() - started < 30


def test_a_call_that_does_not_let_itself_be_cancelled_is_left_behind(bridge: LoopRunner) -> None:
    async def stubborn() -> None:
        for _ in range(20):
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                continue

    started = time.monotonic()
    with pytest.raises(Timeout):
        LoopRunner(bridge.loop, grace=0.2).run(stubborn, Deadline(0.1), "waiting")
    assert time.monotonic() - started < 1.5


def test_nothing_is_begun_when_the_time_is_up(bridge: LoopRunner) -> None:
    begun: list[int] = []

    async def work() -> None:
        begun.append(1)

    with pytest.raises(Timeout):
        bridge.run(work, Deadline(0.0), "working")
    assert begun == []


def test_a_look_up_is_shared_and_kept_and_a_failure_is_not(bridge: LoopRunner) -> None:
    shared: SharedLookups[int] = SharedLookups(2)
    looks: list[str] = []

    async def look() -> int:
        looks.append("x")
        await asyncio.sleep(0.05)
        if len(looks) == 1:
            raise ValueError("the first time")
        return len(looks)

    def ask(key: str) -> int:
        return bridge.run(lambda: shared.get(key, look), Deadline(5), "looking")

    with ThreadPoolExecutor(8) as threads:
        first = [threads.submit(ask, "a") for _ in range(8)]
        assert {type(one.exception()) for one in first} == {ValueError}
        assert {one.result() for one in [threads.submit(ask, "a") for _ in range(8)]} == {2}
    assert (ask("b"), ask("c"), ask("b"), ask("a")) == (3, 4, 3, 5), "the oldest was dropped"


def test_a_shared_look_up_goes_on_without_one_of_those_who_wait_and_ends_with_the_last(bridge: LoopRunner) -> None:
    shared: SharedLookups[int] = SharedLookups(2)
    going, cancelled = threading.Event(), threading.Event()

    async def look() -> int:
        going.set()
        try:
            await asyncio.sleep(1.0)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return 1

    def ask(key: str, seconds: float) -> int:
        return bridge.run(lambda: shared.get(key, look), Deadline(seconds), "looking")

    with ThreadPoolExecutor(2) as threads:
        patient = threads.submit(ask, "a", 10)
        assert going.wait(5)
        with pytest.raises(Timeout):
            ask("a", 0.2)
        assert patient.result() == 1
    assert not cancelled.is_set()
    with pytest.raises(Timeout):
        ask("b", 0.2)
    assert cancelled.is_set()
