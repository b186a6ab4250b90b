"""The main thread, interrupted as the command's is."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sandboxer.cli import signals


@contextmanager
def installed() -> Iterator[None]:
    """The handlers of the command; SIGALRM interrupts too, so that a timer can choose the moment."""
    numbers = (*signals.HANDLED, signal.SIGALRM)
    before, hook = {number: signal.getsignal(number) for number in numbers}, sys.unraisablehook
    signals.install()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
