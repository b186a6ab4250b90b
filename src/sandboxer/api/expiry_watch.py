"""Tell of sandboxes that are about to end, for as long as a server runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from sandboxer.errors import SandboxerError
from sandboxer.manager.services import Services
from sandboxer.manager.sweeps.expiring import warn_all

PAUSE_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 2.0


class ExpiryWatch:
    """A thread that looks at the records every `pause` seconds, and at once. It ends nothing: `expire` does.

    `alarm` is told, in words for the operator, when they could not be looked at; once until they can be again."""

    def __init__(self, services: Services, *, alarm: Callable[[str], None], pause: float = PAUSE_SECONDS) -> None:
        self._services = services
        self._alarm = alarm
        self._pause = pause
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="expiry watch", daemon=True)

    def start(self) -> None:
        """Start the thread. Once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop within 2 s."""
        self._stopped.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        complained = False
        while not self._stopped.is_set():
            try:
                warn_all(self._services)
                complained = False
            except SandboxerError as error:  # a full disk, an unreadable store: the thread must live to see it mended
                if not complained:
                    self._alarm(f"sandboxes that are about to end cannot be told of: {error.message}")
                complained = True
            self._stopped.wait(self._pause)
