"""One wait beside another: a round trip less where neither needs the other's answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from sandboxer.timing import Deadline

_TICK: Final = 0.5


class Meanwhile:
    """A call that goes on in a thread. It is left behind when nobody waits for it: it has an end of its own."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sandboxer-meanwhile", daemon=True)
        self._thread.start()

    def wait(self, deadline: Deadline) -> None:
        """Wait for its end; raises what it raised, or Timeout."""
        while self._thread.is_alive():
            deadline.check("waiting for the sandbox to answer")
            self._thread.join(deadline.seconds(_TICK))
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            self._error = error
