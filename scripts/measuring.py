"""How scripts/bench measures."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sandboxer.bootstrap import Installation

ROUNDS = 9


def seconds(act: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def ratio(one: Callable[[], object], other: Callable[[], object], *, rounds: int = ROUNDS) -> tuple[float, str]:
    """Median of pairwise ratios, the two in turn so that a machine that slows down slows both; and the medians."""
    one(), other()
    pairs = [(seconds(one), seconds(other)) for _ in range(rounds)]
    middle = statistics.median(a / b for a, b in pairs)
    first, second = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
    return middle, f"{first:.1f} ms / {second:.1f} ms"


def process(*argv: str, env: dict[str, str]) -> Callable[[], object]:
    """Run a program to its end."""
    return lambda: subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL)


def sandboxer(*words: str) -> list[str]:
    """The argv of our command."""
    return [sys.executable, "-m", "sandboxer", *words]


def clean(here: Installation) -> None:
    """Take everything away again."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda record: here.manager.destroy(record.id), here.manager.list()))
