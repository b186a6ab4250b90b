"""The verbs on one sandbox that ask no backend: rename, label, wait."""

from __future__ import annotations

import time
from collections.abc import Mapping

from sandboxer.manager.access import VerbSet
from sandboxer.models import Sandbox
from sandboxer.timing import Deadline


class RecordVerbs(VerbSet):
    """Change what a record says of a sandbox, and wait for what it will say."""

    def rename(self, text: str, name: str) -> Sandbox:
        """Give a sandbox a name, in place of the one it may have. Raises Invalid, and Conflict when another one holds
        it or the sandbox is ending."""
        from sandboxer.manager.naming import rename

        with self._changing("rename", text) as found:
            return rename(self.services, found, name, grant=self.principal.grant)

    def label(self, text: str, changes: Mapping[str, str | None]) -> Sandbox:
        """Set labels of a sandbox, and take away those whose value is None. Raises Invalid, and Conflict when it is
        ending."""
        from sandboxer.manager.naming import label

        with self._changing("label", text) as found:
            return label(self.services, found, changes)

    def wait(self, text: str, wanted: str, *, timeout: float | None = None) -> Sandbox:
        """Wait until a sandbox is `ready`, `stopped` or `destroyed`, whoever sees to that. Raises Conflict as soon as
        that cannot come any more, and Timeout (`Limits.wait`)."""
        from sandboxer.manager.wait import wait_for

        deadline = Deadline(timeout or self.services.limits.wait)
        with self._naming(text) as found:
            return wait_for(self.services, found, wanted, deadline, time.sleep)
