"""What the verbs of the manager share: the parts, who asks, and the note of each change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from sandboxer.manager.access import Principal, find_sandbox
from sandboxer.manager.services import Services
from sandboxer.models import Sandbox


class VerbSet:
    """Verbs over `services`, as `principal` may use them."""

    def __init__(self, services: Services, principal: Principal | None = None) -> None:
        self.services = services
        self.principal = principal or Principal()

    def _find(self, text: str) -> Sandbox:
        return find_sandbox(self.services, self.principal, text)

    def _noted(self, action: str, target: str | None, *, actor: str | None = None) -> AbstractContextManager[list[str]]:
        return self.principal.change(self.services, action, target, actor=actor)

    @contextmanager
    def _changing(self, action: str, text: str) -> Iterator[str]:
        """Note a change of one sandbox; its id."""
        with self._noted(action, text) as known:
            known.append(self._find(text).id)
            yield known[-1]
