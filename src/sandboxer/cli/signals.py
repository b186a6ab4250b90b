"""Ctrl-C, SIGTERM and SIGHUP: the first one interrupts what is going on, so that it can be taken back; a second one
ends the process at once, and what was begun is left to `reconcile`.

An interrupt is an exception of the main thread, and Python drops an exception that is raised in a finaliser or in the
callback of a weak reference, where a signal may come as anywhere. One that was dropped comes again, until it is
handled: a signal that arrives just before a call of the system does not interrupt that call."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_SECONDS = 0.002
"""After this time an interrupt that was dropped comes again: time for the finaliser to end."""
LATEST_SECONDS = 0.25
"""The longest such time: it doubles each time that it was too short."""


class Signalled(BaseException):
    """A signal came. Not an Exception, so that nothing that handles errors mistakes it for one; and not a
    KeyboardInterrupt, which the parser of the command line swallows."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


_seen: list[int] = []
_early: list[int] = []
"""The interrupts that came again too early."""


def install() -> None:
    """Handle the signals from now on. A signal that was ignored when we were started (nohup) stays ignored. SIGALRM,
    which carries what comes again, interrupts like the others."""
    _seen.clear()
    _early.clear()
    sys.unraisablehook = _on_unraisable
    signal.signal(signal.SIGALRM, _on_alarm)
    for number in HANDLED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _seen:
        os.write(2, b"\nsandboxer: interrupted again; what was begun is left to `sandboxer reconcile --apply`\n")
        os._exit(128 + number)
    _seen.append(number)
    if sys.stderr.isatty():
        os.write(2, b"\nsandboxer: interrupted; taking back what was begun (again to leave it)\n")
    _interrupt(number, frame)


def _come_again(seconds: float) -> None:
    """Come after this time, and again until `_on_alarm` runs: the first one may arrive when the main thread has looked
    for signals for the last time and is about to wait in a call, which would then wait to its end."""
    signal.setitimer(signal.ITIMER_REAL, seconds, LATEST_SECONDS)


def _on_alarm(number: int, frame: FrameType | None) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    _interrupt(_seen[0] if _seen else number, frame)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise what interrupts the main thread; later, when it would be raised in our own hook, where it is lost."""
    while frame is not None:
        if frame.f_code is _on_unraisable.__code__:
            _early.append(number)  # each time later: on a slow machine, the next one comes before the hook goes on
            _come_again(min(AGAIN_SECONDS * 2 ** min(len(_early), 20), LATEST_SECONDS))
            return
        frame = frame.f_back
    raise Signalled(number)


def _on_unraisable(dropped: sys.UnraisableHookArgs) -> None:
    if isinstance(dropped.exc_value, Signalled):
        _come_again(AGAIN_SECONDS)
    else:
        sys.__unraisablehook__(dropped)
