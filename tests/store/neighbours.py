"""Changes that come at once: on threads, in a known order, while another one is being decided."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def outcome_of(act: Callable[[], T]) -> T | BaseException:
    """What it answers or raises."""
    try:
        return act()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the outcome
        return error


def together(
    acts: Sequence[Callable[[], T]],
    *,
    hold: Callable[[Callable[[], None]], object],
    gathered: Callable[[int], None],
) -> list[T | BaseException]:
    """What acts come to that come, in this order and each on a thread, while `hold` is at work: it calls what it is
    given in the middle of its own change. `gathered` waits until that many wait for it."""
    inside, go_on = threading.Event(), threading.Event()

    def middle() -> None:
        inside.set()
        assert go_on.wait(60)

    with ThreadPoolExecutor(len(acts) + 1) as pool:
        holding = pool.submit(hold, middle)
        try:
            assert inside.wait(30)
            running = []
            for number, act in enumerate(acts, start=1):
                running.append(pool.submit(outcome_of, act))
                gathered(number)
        finally:
            go_on.set()
        holding.result(60)
        return [one.result(60) for one in running]
