"""Recreate: a new sandbox in the place of an old one, admitted before the old one goes and made when it is gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxer.errors import Internal, SandboxerError
from sandboxer.manager.access import VerbSet, consumer_name, create_action
from sandboxer.manager.services import Progress, no_progress
from sandboxer.models import Sandbox
from sandboxer.timing import Deadline

if TYPE_CHECKING:
    from sandboxer.manager.establish.create import PendingCreate
    from sandboxer.manager.establish.plan import CreatePlan


class RecreateVerbs(VerbSet):
    """Replace a sandbox by another one from the same request."""

    def recreate_plan(self, text: str, *, actor: str | None = None, roots: Sequence[Path] | None = None) -> CreatePlan:
        """What `recreate` would create; raises what makes it impossible, before anything is destroyed. `roots` as in
        `make_plan`."""
        from sandboxer.manager.establish.plan import make_recreate_plan

        try:
            return make_recreate_plan(
                self.services, self._find(text), actor=actor, grant=self.principal.grant, roots=roots
            )
        except SandboxerError as error:
            self.principal.note(self.services, "recreate", text, error.code)
            raise

    def check_recreate(self, text: str, plan: CreatePlan) -> None:
        """Raise what the backends would say of a plan of `recreate_plan`, and whether their hosts' work directories can
        be trusted, while the old sandbox still lives."""
        from sandboxer.manager.establish.attempt import check_candidates

        try:
            check_candidates(self.services, plan)
        except SandboxerError as error:
            self.principal.note(self.services, "recreate", text, error.code)
            raise

    def recreate(
        self, text: str, *, actor: str | None = None, timeout: float | None = None, progress: Progress = no_progress
    ) -> Sandbox:
        """A new sandbox, with a new id, from the same request. It is admitted first, and made when the old one is gone:
        the two could not hold the same ports at once. When the old one does not go, nothing comes of the new one."""
        plan = self.recreate_plan(text, actor=actor)
        self.check_recreate(text, plan)
        pending = self.begin_replacement(plan)
        return self.replace(
            plan, pending, lambda: self._destroy_replaced(plan, progress), timeout=timeout, progress=progress
        )

    def begin_replacement(self, plan: CreatePlan) -> PendingCreate:
        """Record the intent of a plan of `recreate_plan`, with all that admits it, then that the old one shall go; in
        this order, so that nobody has its place meanwhile."""
        from sandboxer.manager.destroy import request_destroy
        from sandboxer.manager.establish.create import begin, give_up_replacement

        actor = consumer_name(plan.consumer)
        with self._noted(create_action(plan.request), plan.request.name, actor=actor) as known:
            pending = begin(self.services, plan)
            if plan.replaces is None or isinstance(pending, Sandbox):
                raise Internal("this plan replaces nothing")
            known.append(pending.record.id)
        try:
            with self._changing("destroy", plan.replaces) as found:
                request_destroy(self.services, found)
        except BaseException as error:
            give_up_replacement(self.services, plan, pending, error)
            raise
        return pending

    def replace(
        self,
        plan: CreatePlan,
        pending: PendingCreate,
        removed: Callable[[], object],
        *,
        timeout: float | None = None,
        progress: Progress = no_progress,
    ) -> Sandbox:
        """Carry out what `begin_replacement` began, once `removed` has come back: what it raises gives the new one
        up."""
        from sandboxer.manager.establish.create import carry_out, give_up_replacement

        try:
            removed()
        except BaseException as error:
            give_up_replacement(self.services, plan, pending, error)
            raise
        seconds = timeout or plan.request.timeout or self.services.limits.create
        action, actor = create_action(plan.request), consumer_name(plan.consumer)
        with self.principal.failure(self.services, action, [pending.record.id], actor=actor):
            return carry_out(self.services, plan, pending, Deadline(seconds), progress)

    def _destroy_replaced(self, plan: CreatePlan, progress: Progress) -> None:
        from sandboxer.manager.destroy import destroy

        replaced = str(plan.replaces)
        with self.principal.failure(self.services, "destroy", [replaced]):
            destroy(self.services, replaced, Deadline(self.services.limits.destroy), progress)
