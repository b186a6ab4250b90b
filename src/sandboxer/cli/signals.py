"""Ctrl-C, SIGTERM, SIGHUP and Ctrl-\\: the first one interrupts what is going on, so that it can be taken back; a
second one ends the process at once, and what was begun is left to `reconcile`.

An interrupt is an exception of the main thread, and Python drops an exception that is raised in a finaliser or in the
callback of a weak reference, where a signal may come as anywhere. One that was dropped comes again, until it is
handled: a signal that arrives just before a call of the system does not interrupt that call."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

from sandboxer.errors import Interruption

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
AGAIN_SECONDS = 0.002
"""After this time an interrupt that was dropped comes again: time for the finaliser to end."""
LATEST_SECONDS = 0.25
"""The longest such time: it doubles each time that it was too short."""


class Notice(NamedTuple):
    """What is said of an interrupt: what follows from the first, what a second leaves behind, what to type then."""

    first: str
    second: str
    hint: str


_CREATE = Notice(
    "taking back what was begun (again to leave it)",
    "what was begun is left to `sandboxer reconcile --apply`",
    "run `sandboxer list` to see what is there",
)
_TEARDOWN = Notice(
    "", "what is left is finished by `sandboxer reconcile --apply`", "run it again: it goes on from here"
)
_OTHER = Notice("", "", "run it again when you want its answer")
_NOTICES = {
    "create": _CREATE,
    "recreate": _CREATE,
    "exec": Notice("ending the command (again to leave it)", "the command may still run inside", "run it again"),
    "run": Notice(
        "ending the command and its sandbox (again to leave them)",
        "what is there is left to `sandboxer reconcile --apply`",
        "run `sandboxer list` to see what is there",
    ),
    "destroy": _TEARDOWN,
    "expire": _TEARDOWN,
    "reconcile": _TEARDOWN,
}


def notice_of(verb: str) -> Notice:
    """What is said of an interrupt of this command."""
    return _NOTICES.get(verb, _OTHER)


class Signalled(Interruption):
    """A signal came. Not a KeyboardInterrupt, which the parser of the command line swallows."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


_seen: list[int] = []
_early: list[int] = []
"""The interrupts that came again too early."""
_notice: list[Notice] = []
"""What is said of one; nothing more than that it came until the command is known."""


def install() -> None:
    """Handle the signals from now on. A signal that was ignored when we were started (nohup) stays ignored. SIGALRM,
    which carries what comes again, interrupts like the others."""
    _seen.clear()
    _early.clear()
    _notice.clear()
    sys.unraisablehook = _on_unraisable
    signal.signal(signal.SIGALRM, _on_alarm)
    for number in HANDLED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)


def announce(verb: str) -> None:
    """Say of an interrupt what it means for this command."""
    _notice.append(notice_of(verb))


def tell_instead(stop: Callable[[], None]) -> None:
    """From now on the first signal calls `stop`, and nothing is interrupted or said: for what serves until it is told
    to end. A second one ends the process at once, as ever."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if _seen:
            os._exit(128 + number)
        _seen.append(number)
        stop()

    for number in HANDLED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, on_signal)


def _say(what: str, follows: str) -> None:
    os.write(2, f"\nsandboxer: {what}{'; ' if follows else ''}{follows}\n".encode())


def _on_signal(number: int, frame: FrameType | None) -> None:
    notice = _notice[-1] if _notice else _OTHER
    if _seen:
        _say("interrupted again", notice.second)
        os._exit(128 + number)
    _seen.append(number)
    if sys.stderr.isatty():
        _say("interrupted", notice.first)
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
