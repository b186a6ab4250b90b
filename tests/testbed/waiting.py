"""Waiting for a condition, with a deadline and no guesses."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], *, within: float, what: str, every: float = 0.02) -> T:
    """The first true answer of `probe`; TimeoutError after `within` seconds."""
    deadline = time.monotonic() + within
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {within:g} s")
        time.sleep(every)
    return answer
