"""SandboxManager: every verb a user knows is a method of it. It never prints.

A verb imports what it needs when it is called: a command's start-up pays for that verb alone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxer.documents import sandbox_document
from sandboxer.errors import SandboxerError
from sandboxer.manager.access import Principal, consumer_name, create_action
from sandboxer.manager.admin import AdminVerbs
from sandboxer.manager.services import Progress, no_progress
from sandboxer.manager.verbs.entry import EntryVerbs
from sandboxer.manager.verbs.records import RecordVerbs
from sandboxer.manager.verbs.recreate import RecreateVerbs
from sandboxer.manager.verbs.snapshots import SnapshotVerbs
from sandboxer.models import Request, Sandbox
from sandboxer.state import LIVE, State
from sandboxer.timing import Deadline

if TYPE_CHECKING:
    from sandboxer.extensions.base import Exec
    from sandboxer.hosts.base import Streams
    from sandboxer.locks import Lease
    from sandboxer.manager.copies.copy import CopyReport
    from sandboxer.manager.establish.create import PendingCreate
    from sandboxer.manager.establish.plan import Caller, CreatePlan, Explanation
    from sandboxer.manager.run import OneShot, StreamsFor
    from sandboxer.manager.sweeps.reap import StaleReport
    from sandboxer.manager.sweeps.report import Report


class SandboxManager(SnapshotVerbs, AdminVerbs, EntryVerbs, RecreateVerbs, RecordVerbs):
    """The verbs. Every method raises errors of `sandboxer.errors` and nothing else, unless there is a bug."""

    def acting(self, principal: Principal) -> SandboxManager:
        """The same verbs for somebody else: with what shows itself to them, what they may do, and noted as theirs."""
        return SandboxManager(self.services, principal)

    def prepare(self) -> None:
        """Import what verbs would import when they are called, and make all records ready (`models.prepared`). To be
        called before there are many threads."""
        from sandboxer import manager
        from sandboxer.store import chunks

        self.services.extensions.prepare(manager, chunks)

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
        from sandboxer.manager.establish.plan import make_plan

        caller = self._caller(actor, base=base, roots=roots)
        try:
            return make_plan(self.services, request, caller, idempotency_key=idempotency_key)
        except SandboxerError as error:
            self.principal.note(self.services, create_action(request), None, error.code, actor=actor)
            raise

    def _caller(self, actor: str | None, *, base: Path | None, roots: Sequence[Path] | None) -> Caller:
        from sandboxer.config.paths import working_directory
        from sandboxer.manager.establish.plan import Caller

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
        from sandboxer.manager.establish.plan import explain

        return explain(self.services, request, self._caller(actor, base=base, roots=roots))

    def begin(self, plan: CreatePlan) -> PendingCreate | Sandbox:
        """Record the intent to establish `plan`; or the sandbox that its idempotency key gave before."""
        from sandboxer.manager.establish.create import begin

        action, actor = create_action(plan.request), consumer_name(plan.consumer)
        with self._noted(action, plan.request.name, actor=actor) as known:
            pending = begin(self.services, plan)
            known.append(pending.id if isinstance(pending, Sandbox) else pending.record.id)
            return pending

    def carry_out(
        self,
        plan: CreatePlan,
        pending: PendingCreate,
        *,
        timeout: float | None = None,
        progress: Progress = no_progress,
    ) -> Sandbox:
        """Establish what was begun, up to ready. The audit tells that it was begun, and by this that it failed."""
        from sandboxer.manager.establish.create import carry_out

        seconds = timeout or plan.request.timeout or self.services.limits.create
        action, actor = create_action(plan.request), consumer_name(plan.consumer)
        with self.principal.failure(self.services, action, [pending.record.id], actor=actor):
            return carry_out(self.services, plan, pending, Deadline(seconds), progress)

    def create(self, plan: CreatePlan, *, timeout: float | None = None, progress: Progress = no_progress) -> Sandbox:
        """Begin and carry out; for a used idempotency key, wait for the sandbox that it gave."""
        pending = self.begin(plan)
        if isinstance(pending, Sandbox):
            from sandboxer.manager.establish.create import wait_for_outcome

            seconds = timeout or plan.request.timeout or self.services.limits.create
            return wait_for_outcome(self.services, pending.id, Deadline(seconds), time.sleep)
        return self.carry_out(plan, pending, timeout=timeout, progress=progress)

    def dry_run(self, plan: CreatePlan) -> dict[str, Any]:
        """What a create would do, as a document; raises what keeps it from doing it."""
        from sandboxer.manager import quotas
        from sandboxer.manager.admission import check_name_and_key
        from sandboxer.manager.establish.attempt import examine
        from sandboxer.manager.establish.plan import plan_document

        check_name_and_key(self.services, plan)
        if plan.idempotency_key is None:
            quotas.check(self.services, plan.consumer)
        document = plan_document(plan)
        examine(self.services, plan, plan.first)
        return document

    # -- look -----------------------------------------------------------------------------------------------------

    def get(self, text: str, *, refresh: bool = False) -> Sandbox:
        """The record that an id, a unique prefix or a name means. `refresh`: as its backend shows it now, which is
        recorded; raises Unavailable when it does not say."""
        record = self._find(text)
        if not refresh:
            return record
        from sandboxer.manager.presence import refresh as refreshed

        return refreshed(self.services, record)

    def list(
        self,
        *,
        states: Sequence[str] = (),
        profile: str | None = None,
        labels: Mapping[str, str] | None = None,
        ended: bool = False,
        after: tuple[float, str] | None = None,
        limit: int | None = None,
    ) -> Sequence[Sandbox]:
        """Records, oldest first: the live ones, with `ended` also the destroyed. Filters add up. `after`: those behind
        this place in the list (when one was created, and its id); `limit`: so many at most."""
        from sandboxer.manager.record_filter import RecordFilter, list_records

        wanted = RecordFilter(states=states, profile=profile, labels=labels or {}, after=after)
        return list_records(self.services, self.principal, wanted, ended=ended, limit=limit)

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
        from sandboxer.manager.destroy import destroy

        with self._changing("destroy", text) as found:
            return destroy(self.services, found, Deadline(timeout or self.services.limits.destroy), progress)

    def request_destroy(self, text: str) -> Sandbox:
        """Record durably that a sandbox shall go, and return at once; `destroy` (or `expire`) does the rest."""
        from sandboxer.manager.destroy import request_destroy

        with self._changing("destroy", text) as found:
            return request_destroy(self.services, found)

    # -- lifetime -------------------------------------------------------------------------------------------------

    def extend_ttl(self, text: str, seconds: int) -> Sandbox:
        """Let a sandbox live `seconds` longer than agreed so far (from now, if that is over). Raises Invalid over the
        profile's maximum, Conflict when it never expires or has ended."""
        from sandboxer.manager.ttl import extend

        with self._changing("extend-ttl", text) as found:
            return extend(self.services, found, seconds)

    def set_ttl(self, text: str, seconds: int) -> Sandbox:
        """Let a sandbox end `seconds` from now, whatever was agreed before: sooner, later, or at all. Raises Invalid
        over the profile's maximum, Conflict when it has ended."""
        from sandboxer.manager.ttl import set_ttl

        with self._changing("set-ttl", text) as found:
            return set_ttl(self.services, found, seconds)

    def stop(self, text: str, *, timeout: float | None = None, progress: Progress = no_progress) -> Sandbox:
        """Keep a sandbox without running it, also while it is in use; raises Unsupported where its backend cannot."""
        from sandboxer.manager.stop import stop

        with self._changing("stop", text) as found:
            return stop(self.services, found, Deadline(timeout or self.services.limits.stop), progress)

    def start(self, text: str, *, timeout: float | None = None, progress: Progress = no_progress) -> Sandbox:
        """Run a sandbox again that was stopped, whoever did that; one that runs is success."""
        from sandboxer.manager.stop import start

        with self._changing("start", text) as found:
            return start(self.services, found, Deadline(timeout or self.services.limits.start), progress)

    def expire(self, *, apply: bool) -> Report:
        """End what is over; see `expire.expire`."""
        from sandboxer.manager.sweeps.expire import expire

        if not apply:
            return expire(self.services, apply=False)
        with self._noted("expire", None):
            return expire(self.services, apply=True)

    def reconcile(self, *, apply: bool, force: bool = False, grace: float | None = None) -> Report:
        """Settle records and resources; see `reconcile.reconcile`. `grace` in seconds, else `Limits.stale_grace`."""
        from sandboxer.manager.sweeps.reconcile import reconcile

        seconds = self.services.limits.stale_grace if grace is None else grace
        if not apply:
            return reconcile(self.services, apply=False, force=force, grace=seconds)
        with self._noted("reconcile", None):
            return reconcile(self.services, apply=True, force=force, grace=seconds)

    def inspect_stale(self, *, grace: float | None = None) -> StaleReport:
        """What is stale on every host and at every provider; see `reap.inspect_stale`."""
        from sandboxer.manager.sweeps.reap import inspect_stale

        return inspect_stale(self.services, grace=self.services.limits.stale_grace if grace is None else grace)

    def reap_stale(
        self, *, apply: bool, force: bool = False, grace: float | None = None, install: str | None = None
    ) -> Report:
        """Take away what is stale, or what the installation `install` left; see `reap.reap`."""
        from sandboxer.manager.sweeps.reap import reap

        seconds = self.services.limits.stale_grace if grace is None else grace
        if not apply:
            return reap(self.services, apply=False, force=force, grace=seconds, install=install)
        with self._noted("reap-stale", install):
            return reap(self.services, apply=True, force=force, grace=seconds, install=install)

    # -- use ------------------------------------------------------------------------------------------------------

    def exec(
        self,
        text: str,
        request: Exec,
        streams: Streams,
        *,
        timeout: float | None = None,
        wanted: Deadline | None = None,
    ) -> int:
        """Run a command inside; its exit code. Cancelling `wanted` ends it, with what it has started."""
        from sandboxer.manager.exec import run

        with self._changing("exec", text) as found:
            return run(self.services, found, request, streams, timeout=timeout, wanted=wanted)

    def run(
        self,
        plan: CreatePlan,
        request: Exec,
        streams: StreamsFor,
        *,
        timeout: float | None = None,
        keep: bool = False,
        progress: Progress = no_progress,
    ) -> OneShot:
        """Establish a sandbox, run a command in it and, unless `keep`, destroy it, whatever comes of the command.
        `timeout` is for all of it up to the command's end; `streams` gives the command's, once the sandbox is ready."""
        from sandboxer.manager.run import run

        return run(self, plan, request, streams, timeout=timeout, keep=keep, progress=progress)

    def copy(
        self,
        text: str,
        *,
        source: str,
        target: str,
        inward: bool,
        service: str | None = None,
        max_size: int | None = None,
    ) -> CopyReport:
        """Copy files in (`inward`) or out, like `cp -r`; what was left out, and what else to tell."""
        from sandboxer.manager.exec import copy

        with self._changing("cp", text) as found:
            return copy(
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
        from sandboxer.manager.exec import logs

        with self._naming(text) as found:
            logs(self.services, found, streams, service=service, follow=follow, tail=tail)

    @contextmanager
    def lease(self, text: str, *, holder: str) -> Iterator[Sandbox]:
        """Hold a lease for as long as the block runs."""
        from sandboxer.manager.exec import leased

        with leased(self.services, self._find(text).id, holder=holder) as (record, _handle):
            yield record

    def leases(self, text: str) -> Sequence[Lease]:
        """The leases held now."""
        return self.services.leases.active(self._find(text).id)

    def grant_lease(self, text: str, *, holder: str, seconds: float) -> Lease:
        """An explicit lease of `seconds`."""
        from sandboxer.manager.exec import grant_lease

        with self._changing("lease", text) as found:
            return grant_lease(self.services, found, holder=holder, seconds=seconds)

    def renew_lease(self, text: str, lease_id: str, *, seconds: float) -> Lease:
        """Let an explicit lease end `seconds` from now; raises NotFound, or Conflict when the sandbox has ended."""
        from sandboxer.manager.exec import renew_lease

        with self._changing("extend-lease", text) as found:
            return renew_lease(self.services, found, lease_id, seconds=seconds)

    def release_lease(self, text: str, lease_id: str) -> None:
        """End an explicit lease; raises NotFound."""
        with self._changing("release-lease", text) as found:
            self.services.leases.release(found, lease_id)
