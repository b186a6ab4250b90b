"""Cancel a create that somebody destroys meanwhile: one thread looks for all creates of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sandboxer.errors import SandboxerError
from sandboxer.state import State
from sandboxer.store.base import Store
from sandboxer.timing import Deadline


class Cancellations:
    """Ends the waits of a create as soon as somebody requests its destroy, so that a long start ends early. `poll`:
    seconds between two looks."""

    def __init__(self, store: Store, *, poll: float) -> None:
        self._store = store
        self._poll = poll
        self._guard = threading.Lock()  # of the two below
        self._watched: dict[str, Deadline] = {}
        self._looking = False

    @contextmanager
    def watch(self, sandbox_id: str, deadline: Deadline) -> Iterator[None]:
        """Cancel `deadline` as soon as the record is no longer in `provisioning`."""
        try:
            with self._guard:
                self._watched[sandbox_id] = deadline
                if not self._looking:
                    threading.Thread(target=self._look, name="sandboxer-watch", daemon=True).start()
                    self._looking = True
            yield
        finally:
            with self._guard:
                self._watched.pop(sandbox_id, None)

    def _look(self) -> None:
        while True:
            time.sleep(self._poll)
            with self._guard:
                watched = dict(self._watched)
                self._looking = bool(watched)
            if not watched:
                return
            for sandbox_id, deadline in watched.items():
                if self._unwanted(sandbox_id):
                    self._cancel(sandbox_id, deadline)

    def _unwanted(self, sandbox_id: str) -> bool:
        try:
            record = self._store.get(sandbox_id)
        except SandboxerError:
            return False  # the owner's own next write tells it better
        return record is None or record.state != State.PROVISIONING

    def _cancel(self, sandbox_id: str, deadline: Deadline) -> None:
        with self._guard:
            if self._watched.get(sandbox_id) is deadline:  # it may have ended, and its deadline be somebody else's
                del self._watched[sandbox_id]
                deadline.cancel()
