"""Remember, for one sweep, which hosts did not answer: what else is on them is not tried, each in its own full time."""

from __future__ import annotations

from sandboxer.errors import Timeout, Unavailable
from sandboxer.manager.services import Services
from sandboxer.timing import Deadline


class SilentHosts:
    """The hosts that could not be reached in this sweep. May be used by any thread."""

    def __init__(self) -> None:
        self._silent: set[str] = set()

    def reach(self, services: Services, host: str | None) -> None:
        """Have a host ready for commands (None: nothing to reach); raises Unavailable or Timeout where it does not
        answer, and at once where it did not answer before."""
        if host is None:
            return
        if host in self._silent:
            raise Unavailable(
                f"host {host} did not answer a moment ago, and was not tried again",
                hint=f"the next run does; `sandboxer inspect host {host}` shows what is the matter",
            )
        try:
            services.open_host(host).connect(Deadline(services.limits.reach_host))
        except (Timeout, Unavailable):
            self._silent.add(host)
            raise
