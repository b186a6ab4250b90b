"""Hold what a route needs of its request: who asks, and the server as it is for them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fastapi.exceptions import RequestValidationError

from sandboxer.api.permissions import Permission, allows
from sandboxer.api.server_context import DEFAULT_ACTOR, ServerContext, StartedCreate, StartedReplacement
from sandboxer.api.workers import CallerShare, Slot
from sandboxer.errors import Denied, Invalid, SandboxerError
from sandboxer.manager import SandboxManager
from sandboxer.manager.access import Principal
from sandboxer.manager.establish.plan import CreatePlan
from sandboxer.models import Grant, Sandbox, Settings

ORIGIN: Final = "http"
REQUEST_CONTEXT: Final = "sandboxer.call"
"""Where the scope of a request holds its call."""


class RequestContext:
    """What a route stands on: the service, with the manager that shows the one who asks what is theirs."""

    def __init__(self, service: ServerContext, grant: Grant, *, address: str | None) -> None:
        self._service = service
        self.grant = grant
        actor = service.settings.defaults.actor or DEFAULT_ACTOR
        self.principal = Principal(grant=grant, origin=ORIGIN, actor=actor, address=address)
        self.manager: SandboxManager = service.manager.acting(self.principal)
        self.caller = grant.consumer or grant.token or f"peer {address}"
        """Whose share of the workers it takes."""

    @contextmanager
    def under(self, right: Permission | None, *, target: str | None) -> Iterator[None]:
        """Answer a route that needs `right`; raises Denied when the one who asks has it not. A change that never
        reached the manager, which notes all others, is noted here."""
        try:
            self._check(right)
            yield
        except (SandboxerError, RequestValidationError) as error:
            self._note(right, target, error.code if isinstance(error, SandboxerError) else Invalid.code)
            raise
        self._note(right, target, "ok")

    def _check(self, right: Permission | None) -> None:
        if right is None:
            raise Denied("this path is open to nobody", hint="see docs/api.md for the paths there are")
        if not allows(self.grant.role, right):
            raise Denied(
                f"a token of role {self.grant.role} may not `{right.action}`",
                hint=f"use a token of role {right.role}",
            )

    def _note(self, right: Permission | None, target: str | None, outcome: str) -> None:
        if right is not None and right.changes and not self.principal.noted:
            self.principal.note(self.manager.services, right.action, target, outcome)

    @property
    def settings(self) -> Settings:
        """As the service's."""
        return self._service.settings

    @property
    def roots(self) -> list[Path]:
        """As the service's."""
        return self._service.roots

    @property
    def lookups(self) -> CallerShare:
        """This caller's share of the service's."""
        return self._service.lookups.of(self.caller)

    @property
    def creates(self) -> CallerShare:
        """This caller's share of the service's."""
        return self._service.creates.of(self.caller)

    @property
    def commands(self) -> CallerShare:
        """This caller's share of the service's."""
        return self._service.commands.of(self.caller)

    @property
    def host_calls(self) -> CallerShare:
        """This caller's share of the service's."""
        return self._service.host_calls.of(self.caller)

    def check_host(self, host: str | None) -> str | None:
        """As the service's."""
        return self._service.check_host(host)

    def establish(self, plan: CreatePlan, slot: Slot) -> StartedCreate:
        """As the service's, noted as this caller's."""
        return self._service.establish(plan, slot, by=self.manager)

    def replace(self, plan: CreatePlan, slot: Slot) -> StartedReplacement:
        """As the service's, noted as this caller's."""
        return self._service.replace(plan, slot, by=self.manager, caller=self.caller)

    def remove(self, sandbox_id: str) -> Future[Sandbox]:
        """As the service's."""
        return self._service.remove(sandbox_id, caller=self.caller)
