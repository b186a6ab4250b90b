"""One wait beside another: a round trip less where neither needs the other's answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from sandboxer.timing import Deadline

_TICK: Final = 0.5
_LAST_WORD: Final = 0.5
"""Seconds after the deadline, which is the call's own too, in which it may still say why it has not ended."""


class BackgroundCall:
    """A call that goes on in a thread. It is left behind when nobody waits for it: it has an end of its own."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sandboxer-meanwhile", daemon=True)
        self._thread.start()

    def wait(self, deadline: Deadline) -> None:
        """Wait for its end; raises what it raised, or Timeout."""
        while self._thread.is_alive() and not deadline.passed:
            self._thread.join(deadline.seconds(_TICK))
        self._thread.join(_LAST_WORD)
        if self._thread.is_alive():
            deadline.check("waiting for the sandbox to answer")
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            self._error = error
