"""Run the relay in a long-lived process: a thread that is woken by each change, and is patient with a dead hub."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from sandboxer.errors import SandboxerError
from sandboxer.events.relay import FIRST_PAUSE, LONGEST_PAUSE, FlushReport, Relay
from sandboxer.timing import Deadline

PASS_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 2.0


def _ignore(_: str) -> None:
    """Drop an alarm."""


class RelayLoop:
    """Flushes when woken, once at the start, and again after 1 to 60 s while something waits.

    `alarm` is told, in words for the operator, when an event was refused for good or the store could not be read."""

    def __init__(
        self,
        relay: Relay,
        *,
        alarm: Callable[[str], None] = _ignore,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        self._relay = relay
        self._alarm = alarm
        self._pauses = (first_pause, longest_pause)
        self._woken = threading.Event()
        self._deadline = Deadline(None)
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread. Once."""
        self._woken.set()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Wake the thread: something was recorded. Costs nothing."""
        self._woken.set()

    def stop(self) -> None:
        """Stop within 2 s: a request on its way is left to itself, and its event waits in the store."""
        self._stopped = True
        self._deadline.cancel()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        first, longest = self._pauses
        pause: float | None = None  # None: nothing waits, so only a change is a reason to look
        while True:
            self._woken.wait(pause)
            self._woken.clear()
            if self._stopped:
                return
            report = self._flush()
            if report is not None and not report.pending:
                pause = None
            elif pause is None or (report is not None and report.sent):
                pause = first
            else:
                pause = min(pause * 2, longest)

    def _flush(self) -> FlushReport | None:
        try:
            report = self._relay.flush(self._deadline.shorter(PASS_SECONDS), wait=False)
        except SandboxerError as error:
            # a full disk, an unreadable store: the commands say so themselves; the thread must live to see it mended
            self._alarm(error.message)
            return None
        for warning in report.warnings:
            self._alarm(warning)
        return report
