"""SandboxManager: every verb a user knows is a method of it. It never prints."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from sandboxer.config.paths import working_directory
from sandboxer.documents import sandbox_document
from sandboxer.errors import Conflict, Invalid, SandboxerError
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Streams
from sandboxer.locks import Lease
from sandboxer.manager import create, destroy, lifetime, permissions, quotas
from sandboxer.manager import exec as manager_exec
from sandboxer.manager import expire as expiry
from sandboxer.manager import reconcile as settling
from sandboxer.manager.access import Principal
from sandboxer.manager.admin import AdminVerbs
from sandboxer.manager.attempt import examine
from sandboxer.manager.create import PendingCreate
from sandboxer.manager.money_verbs import MoneyVerbs
from sandboxer.manager.plan import Caller, CreatePlan, Explanation, explain, make_plan, plan_document
from sandboxer.manager.quotas import consumer_name
from sandboxer.manager.repair import RebuiltRecords, rebuild_records
from sandboxer.manager.services import Progress, Services, no_progress
from sandboxer.manager.stale import GRACE_SECONDS
from sandboxer.manager.sweep import Report
from sandboxer.manager.token_verbs import TokenVerbs
from sandboxer.models import Request, Sandbox
from sandboxer.state import LIVE, State
from sandboxer.timing import Deadline

__all__ = ["CreatePlan", "PendingCreate", "SandboxManager", "Services"]


class SandboxManager(AdminVerbs, MoneyVerbs, TokenVerbs):
    """The verbs. Every method raises errors of `sandboxer.errors` and nothing else, unless there is a bug."""

    def acting(self, principal: Principal) -> SandboxManager:
        """The same verbs for somebody else: with what shows itself to them, what they may do, and noted as theirs."""
        return SandboxManager(self.services, principal)

    # -- create ---------------------------------------------------------------------------------------------------

    def plan(
        self,
        request: Request,
        *,
        actor: str | None = None,
        idempotency_key: str | None = None,
        base: Path | None = None,
        roots: Sequence[Path] | None = None,
    ) -> CreatePlan:
        """Check a request and say what it would do; nothing is touched. See `make_plan` for the arguments."""
        caller = self._caller(actor, base=base, roots=roots)
        try:
            return make_plan(self.services, request, caller, idempotency_key=idempotency_key)
        except SandboxerError as error:
            self.principal.note(self.services, "create", None, error.code, actor=actor)
            raise

    def _caller(self, actor: str | None, *, base: Path | None, roots: Sequence[Path] | None) -> Caller:
        return Caller(actor=actor, base=base or working_directory(), roots=roots, grant=self.principal.grant)

    def explain(
        self,
        request: Request,
        *,
        actor: str | None = None,
        base: Path | None = None,
        roots: Sequence[Path] | None = None,
    ) -> Explanation:
        """Which backend would serve a request, and why; nothing is touched."""
        return explain(self.services, request, self._caller(actor, base=base, roots=roots))

    def begin(self, plan: CreatePlan) -> PendingCreate | Sandbox:
        """Record the intent to establish `plan`; or the sandbox that its idempotency key gave before."""
        with self._noted("create", plan.request.name, actor=consumer_name(plan.consumer)) as known:
            begun = create.begin(self.services, plan)
            known.append(begun.id if isinstance(begun, Sandbox) else begun.record.id)
            return begun

    def carry_out(
        self, plan: CreatePlan, begun: PendingCreate, *, timeout: float | None = None, progress: Progress = no_progress
    ) -> Sandbox:
        """Establish what was begun, up to ready. The audit tells that it was begun, and by this that it failed."""
        seconds = timeout or plan.request.timeout or create.CREATE_SECONDS
        with self.principal.failure(self.services, "create", [begun.record.id], actor=consumer_name(plan.consumer)):
            return create.carry_out(self.services, plan, begun, Deadline(seconds), progress)

    def create(self, plan: CreatePlan, *, timeout: float | None = None, progress: Progress = no_progress) -> Sandbox:
        """Begin and carry out; for a used idempotency key, wait for the sandbox that it gave."""
        begun = self.begin(plan)
        if isinstance(begun, Sandbox):
            seconds = timeout or plan.request.timeout or create.CREATE_SECONDS
            return create.wait_for_outcome(self.services, begun.id, Deadline(seconds), time.sleep)
        return self.carry_out(plan, begun, timeout=timeout, progress=progress)

    def dry_run(self, plan: CreatePlan) -> dict[str, Any]:
        """What a create would do, as a document; raises what keeps it from doing it."""
        create.check_name_and_key(self.services, plan)
        if plan.idempotency_key is None:
            quotas.check(self.services, plan.consumer)
        document = plan_document(plan)
        examine(self.services, plan)
        return document

    # -- look -----------------------------------------------------------------------------------------------------

    def get(self, text: str) -> Sandbox:
        """The record that an id, a unique prefix or a name means."""
        return self._find(text)

    def list(
        self,
        *,
        states: Sequence[str] = (),
        profile: str | None = None,
        labels: Mapping[str, str] | None = None,
        ended: bool = False,
    ) -> Sequence[Sandbox]:
        """Records, oldest first: the live ones, with `ended` also the destroyed. Filters add up."""
        for state in states:
            if state not in set(State):
                raise Invalid(f"there is no state {state[:80]!r}", hint=f"the states: {', '.join(State)}")
        found = self.services.store.list(ended=ended or State.DESTROYED in states)
        wanted, consumer = labels or {}, self.principal.consumer
        return [
            record
            for record in found
            if consumer in (None, record.consumer)
            and (profile is None or record.profile == profile)
            and all(record.labels.get(key) == value for key, value in wanted.items())
            and (not states or self._shown_state(record) in states)
        ]

    def _shown_state(self, record: Sandbox) -> str:
        if record.state == State.READY and self.services.leases.active(record.id):
            return State.ACTIVE
        return record.state

    def document(self, record: Sandbox) -> dict[str, Any]:
        """The public document of a record, with what the leases say."""
        if record.state not in LIVE:
            return sandbox_document(record)
        active = record.state == State.READY and bool(self.services.leases.active(record.id))
        return sandbox_document(record, active=active, last_active=self.services.leases.last_active(record.id))

    # -- end ------------------------------------------------------------------------------------------------------

    def in_use(self, text: str) -> bool:
        """Whether somebody holds a lease on it now."""
        return bool(self.services.leases.active(self._find(text).id))

    def destroy(self, text: str, *, timeout: float | None = None, progress: Progress = no_progress) -> Sandbox:
        """Take a sandbox away, in whatever state it is; again is fine."""
        with self._changing("destroy", text) as found:
            return destroy.destroy(self.services, found, Deadline(timeout or destroy.DESTROY_SECONDS), progress)

    def wish_gone(self, text: str) -> Sandbox:
        """Record durably that a sandbox shall go, and return at once; `destroy` (or `expire`) does the rest."""
        with self._changing("destroy", text) as found:
            return destroy.request_destroy(self.services, found)

    def recreate_plan(self, text: str, *, actor: str | None = None, roots: Sequence[Path] | None = None) -> CreatePlan:
        """What `recreate` would create; raises what makes it impossible, before anything is destroyed. `roots` as in
        `make_plan`."""
        try:
            return self._recreate_plan(text, actor=actor, roots=roots)
        except SandboxerError as error:
            self.principal.note(self.services, "recreate", text, error.code)
            raise

    def _recreate_plan(self, text: str, *, actor: str | None, roots: Sequence[Path] | None) -> CreatePlan:
        record = self._find(text)
        profile = self.services.profiles.get(record.profile)
        hidden = [name for name, spec in profile.inputs.items() if spec.secret and name in record.request.inputs]
        if hidden:
            raise Conflict(
                f"sandbox {record.id} was created with the secret input {hidden[0]!r}, which is not kept",
                hint="create it anew with --input, then destroy this one",
            )
        # A profile with one extension comes back to its host; a route is decided anew.
        host = record.request.host or (None if profile.route is not None else record.host)
        request = msgspec.structs.replace(record.request, host=host)
        principal = actor or f"{record.consumer.actor}:{record.consumer.name}"
        # It stays whose it is, also when somebody does it who may for everybody.
        grant = msgspec.structs.replace(self.principal.grant, consumer=None)
        caller = Caller(actor=principal, base=working_directory(), roots=roots, grant=grant)
        plan = make_plan(self.services, request, caller, idempotency_key=None, replaces=record.id)
        quotas.check(self.services, plan.consumer, without=record.id)
        return plan

    def check_recreate(self, text: str, plan: CreatePlan) -> None:
        """Raise what the backend would say of a plan of `recreate_plan`, and whether its host's work directory can be
        trusted, while the old sandbox still lives."""
        host = plan.first.host
        if plan.profile.route is not None or host is None:
            return  # in a route, another candidate may take what the first one refuses
        try:
            examine(self.services, plan)
            permissions.check_host_paths(self.services, host)
        except SandboxerError as error:
            self.principal.note(self.services, "recreate", text, error.code)
            raise

    def recreate(
        self, text: str, *, actor: str | None = None, timeout: float | None = None, progress: Progress = no_progress
    ) -> Sandbox:
        """A new sandbox, with a new id, from the same request; the old one is destroyed first, since the two could
        not hold the same name and ports at once."""
        plan = self.recreate_plan(text, actor=actor)
        self.check_recreate(text, plan)
        self.destroy(text, progress=progress)
        return self.create(plan, timeout=timeout, progress=progress)

    # -- lifetime -------------------------------------------------------------------------------------------------

    def extend_ttl(self, text: str, seconds: int) -> Sandbox:
        """Let a sandbox live `seconds` longer than agreed so far (from now, if that is over). Raises Invalid over the
        profile's maximum, Conflict when it never expires or has ended."""
        with self._changing("extend-ttl", text) as found:
            return lifetime.extend(self.services, found, seconds)

    def expire(self, *, apply: bool) -> Report:
        """End what is over; see `expire.expire`."""
        if not apply:
            return expiry.expire(self.services, apply=False)
        with self._noted("expire", None):
            return expiry.expire(self.services, apply=True)

    def reconcile(self, *, apply: bool, force: bool = False, grace: float = GRACE_SECONDS) -> Report:
        """Settle records and resources; see `reconcile.reconcile`."""
        if not apply:
            return settling.reconcile(self.services, apply=False, force=force, grace=grace)
        with self._noted("reconcile", None):
            return settling.reconcile(self.services, apply=True, force=force, grace=grace)

    def restore(self) -> RebuiltRecords:
        """Write lost records again from what the backends show; see `repair.restore`."""
        with self._noted("doctor --repair", None):
            return rebuild_records(self.services)

    # -- use ------------------------------------------------------------------------------------------------------

    def exec(self, text: str, request: Exec, streams: Streams, *, timeout: float | None = None) -> int:
        """Run a command inside; its exit code."""
        with self._changing("exec", text) as found:
            return manager_exec.run(self.services, found, request, streams, timeout=timeout)

    def copy(
        self,
        text: str,
        *,
        source: str,
        target: str,
        inward: bool,
        service: str | None = None,
        max_size: int | None = None,
    ) -> int:
        """Copy files in (`inward`) or out, like `cp -r`; how many special files and links were left out."""
        with self._changing("cp", text) as found:
            return manager_exec.copy(
                self.services, found, source=source, target=target, inward=inward, service=service, max_size=max_size
            )

    def logs(
        self,
        text: str,
        streams: Streams,
        *,
        service: str | None = None,
        follow: bool = False,
        tail: int | None = None,
    ) -> None:
        """Write the logs of a sandbox's services."""
        manager_exec.logs(self.services, self._find(text).id, streams, service=service, follow=follow, tail=tail)

    @contextmanager
    def lease(self, text: str, *, holder: str) -> Iterator[Sandbox]:
        """Hold a lease for as long as the block runs."""
        with manager_exec.leased(self.services, self._find(text).id, holder=holder) as (record, _handle):
            yield record

    def leases(self, text: str) -> Sequence[Lease]:
        """The leases held now."""
        return self.services.leases.active(self._find(text).id)

    def grant_lease(self, text: str, *, holder: str, seconds: float) -> Lease:
        """An explicit lease of `seconds`."""
        with self._changing("lease", text) as found:
            return manager_exec.grant_lease(self.services, found, holder=holder, seconds=seconds)

    def renew_lease(self, text: str, lease_id: str, *, seconds: float) -> Lease:
        """Let an explicit lease end `seconds` from now; raises NotFound, or Conflict when the sandbox has ended."""
        with self._changing("extend-lease", text) as found:
            return manager_exec.renew_lease(self.services, found, lease_id, seconds=seconds)

    def release_lease(self, text: str, lease_id: str) -> None:
        """End an explicit lease; raises NotFound."""
        with self._changing("release-lease", text) as found:
            self.services.leases.release(found, lease_id)
