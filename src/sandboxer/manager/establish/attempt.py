"""Try one candidate once, up to ready; clean up after it as `failure_policy` says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import msgspec

from sandboxer import __version__
from sandboxer.errors import BackendError, Conflict, Denied, NotConfigured, SandboxerError, Timeout
from sandboxer.extensions.base import Context, Spec
from sandboxer.manager import billing
from sandboxer.manager.copies import path_checks
from sandboxer.manager.destroy import rollback
from sandboxer.manager.establish import failure_policy
from sandboxer.manager.establish.candidates import Candidate, checked_options, manifests_of, refs_of
from sandboxer.manager.establish.failure_policy import Cause, Circumstances, Phase
from sandboxer.manager.establish.inputs import opened_inputs
from sandboxer.manager.establish.plan import CreatePlan
from sandboxer.manager.services import Progress, Services, nothing_else
from sandboxer.manager.snapshots import restore
from sandboxer.manager.sweeps.report import location_of
from sandboxer.manager.ttl import with_provider_end
from sandboxer.models import Handle, Isolation, Ready, Sandbox
from sandboxer.names import new_id, resource_name
from sandboxer.routing import LOCAL, decisions
from sandboxer.routing.requirements import below_isolation_floor
from sandboxer.secrets import Secret
from sandboxer.state import State, Trigger
from sandboxer.timing import Deadline

LINKS_NOTE = (
    "reachability.remote_dir can be written from inside: it may hold links that lead elsewhere, do not follow them"
)


def examine(services: Services, plan: CreatePlan, candidate: Candidate) -> None:
    """Raise what a candidate would say of the request before any host is reached."""
    extension, sandbox_id = services.extensions.get(candidate.extension), new_id()
    with opened_inputs(plan.profile, plan.inputs, plan.roots) as inputs:
        spec = Spec(
            sandbox_id=sandbox_id,
            resource=resource_name(sandbox_id),
            profile=plan.profile.id,
            labels={},
            inputs=inputs.values,
            options=checked_options(candidate.extension, extension.Options, candidate.options),
        )
        host = services.open_host(LOCAL if candidate.host is None else candidate.host)
        if candidate.host is not None:
            host.check_settings()
        extension.examine(spec, host)


def check_request(services: Services, plan: CreatePlan) -> None:
    """Raise what a create would come to on account of the request, as far as that can be told from what lies here:
    candidate by candidate, as a create goes on from one to the next."""
    _check_each(plan, lambda candidate: examine(services, plan, candidate))


def check_candidates(services: Services, plan: CreatePlan) -> None:
    """Raise what `check_request` raises, and what a create would come to on account of its hosts' work directories."""

    def check(candidate: Candidate) -> None:
        examine(services, plan, candidate)
        if candidate.host is not None:
            path_checks.check_host_paths(services, candidate.host)

    _check_each(plan, check)


def _check_each(plan: CreatePlan, check: Callable[[Candidate], None]) -> None:
    """Check the candidates up to one that may serve, or a refusal from which a create would not go on to the next."""
    routed = plan.profile.route is not None
    for position, candidate in enumerate(plan.candidates):
        try:
            check(candidate)
        except SandboxerError as error:
            cause = failure_policy.cause_of(error, phase="reach", provider=False, saved=False)
            last = position == len(plan.candidates) - 1
            if not failure_policy.may_continue(
                cause, Circumstances(last=last, expired=False, kept=False, routed=routed)
            ):
                raise
        else:
            return


def check_wanted(record: Sandbox) -> Sandbox:
    """The record, as long as somebody wants it; raises Conflict."""
    if record.state != State.PROVISIONING:
        raise Conflict(
            f"sandbox {record.id} was {record.state} while it was being established", hint="create another one"
        )
    return record


class AttemptResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a failed attempt comes to; `rest` is what keeps it from being certain that nothing is left."""

    step: Literal["next", "give-up", "unknown"]
    rest: SandboxerError | None = None


class Attempt:
    """One candidate, tried once. How far it came tells how to take it back."""

    def __init__(
        self, services: Services, plan: CreatePlan, record: Sandbox, whole: Deadline, progress: Progress
    ) -> None:
        self.record = record
        self.position = decisions.chosen_position(record.route) or 0
        self._services = services
        self._plan = plan
        self._candidate = plan.candidates[self.position]
        self._last = self.position == len(plan.candidates) - 1
        self._phase: Phase = "reach"
        self._context: Context
        self._saved: Handle | None = None
        self._adopted = False
        self._looked = False
        self._look_error: SandboxerError | None = None
        self._whole = whole
        self._progress = progress
        self._began = time.monotonic()
        # held, so that no error says them: a backend may quote what it was given
        self._hidden = [Secret(str(plan.inputs[name])) for name in plan.inputs if plan.profile.inputs[name].secret]
        self._deadline = self._share()

    def run(self) -> Sandbox:
        """Make it, and wait until it is ready."""
        self._progress("resolve", f"{self._plan.profile.id} on {self.record.host or self.record.extension}")
        try:
            handle, context = self._provision()
        except SandboxerError as error:
            if self._keeps or failure_policy.cleanup_for(self._cause(error), self._phase) != "look":
                raise
            handle, context = self._find_lost(error)
        self._save(handle)
        self._phase = "wait"
        ready = self._services.extension(self.record).wait_ready(handle, context)
        seconds = None if self._adopted else time.monotonic() - self._began
        if (weak := below_isolation_floor(self._plan.profile.require, ready.isolation.class_)) is not None:
            raise BackendError(f"it came up, but {weak}", hint="run `sandboxer extensions show` to see its notes")
        report = self._self_check(handle, ready, context)
        self._progress("ready", "")
        with _our_fault():
            stored = self._services.move(
                self.record.id,
                Trigger.ESTABLISHED,
                edit=lambda now: self._established(now, handle, ready, report),
                more=partial(restore.restored_event, self._services),
                # its command follows at once: that is no write of its own
                then=self._services.first_use if self._plan.one_shot else nothing_else,
            )
        self._services.health.succeeded(self.record.extension, self.record.host, seconds)
        return stored

    def _provision(self) -> tuple[Handle, Context]:
        services, plan, record = self._services, self._plan, self.record
        extension = services.extensions.get(record.extension)
        with (
            opened_inputs(plan.profile, plan.inputs, plan.roots) as inputs,
            restore.source_of(services, record.snapshot_of, self._progress) as source,
        ):
            spec = Spec(
                sandbox_id=record.id,
                resource=resource_name(record.id),
                profile=plan.profile.id,
                labels=services.labels(record),
                inputs=inputs.values,
                options=checked_options(record.extension, extension.Options, record.options),
                expires_at=record.expires_at,
            )
            if record.host is not None:
                host = services.open_host(record.host)
                extension.examine(spec, host)  # what is refused never reaches the host, not even as a connection
                patience = None if self._last else services.limits.reach_host
                host.connect(self._deadline.shorter(patience))
            self._phase = "prepare"
            path_checks.check_sandbox_paths(services, record, self._deadline)
            self._context = services.extension_context(
                record.extension,
                record.host,
                self._deadline if plan.profile.route is not None else self._whole,
                progress=inputs.progress(self._progress),
                save=self._save,
                refs=refs_of(plan.profile, manifests_of(services, plan.profile), record.extension),
            )
            self._phase = "provision"
            return restore.provision(extension, spec, source, self._context), self._context

    def _share(self) -> Deadline:
        """Half of what is left, as long as there is another candidate to leave time for."""
        left = self._whole.left()
        return self._whole if self._last or left is None else self._whole.shorter(left / 2)

    def _save(self, handle: Handle) -> None:
        if self._saved == handle:
            return
        with _our_fault():
            self._services.edit(self.record.id, lambda now: msgspec.structs.replace(check_wanted(now), handle=handle))
        self._saved = handle

    def _self_check(self, handle: Handle, ready: Ready, context: Context) -> dict[str, Any] | None:
        if not self._plan.profile.self_check:
            return None
        from sandboxer import selfcheck  # only the canary pays for it

        context.progress("wait", "self-check inside the sandbox")
        extension = self._services.extensions.get(self.record.extension)
        return selfcheck.run(extension, handle, ready, context, version=__version__)

    def _established(self, now: Sandbox, handle: Handle, ready: Ready, report: dict[str, Any] | None) -> Sandbox:
        route = now.route
        if self._adopted:
            reason = "the answer to its create was lost; what it had made was found, and is used"
            route = decisions.mark_chosen(route, self.position, reason)
        after = msgspec.structs.replace(
            now,
            handle=handle,
            reachability=ready.reachability,
            isolation=_with_note(ready),
            metering=billing.with_measured_resources(now.metering, ready.resources),
            route=route,
            report=report,
            ready_at=self._services.clock(),
            owner=None,
            seq=now.seq if now.snapshot_of is None else now.seq + 1,  # of the restore, besides that it is ready
        )
        return with_provider_end(after, ready.ends_at, slack=self._services.limits.provider_end)

    # -- when it fails --------------------------------------------------------------------------------------------

    @property
    def made_nothing(self) -> bool:
        """Whether it is certain that nothing is there, without asking the backend once more."""
        return self._phase in ("reach", "prepare") or (self._looked and self._look_error is None)

    @property
    def _keeps(self) -> bool:
        return self._plan.request.keep_failed

    def _cause(self, error: SandboxerError) -> Cause:
        provider, saved = self._candidate.provider, self._saved is not None
        return failure_policy.cause_of(error, phase=self._phase, provider=provider, saved=saved)

    def _find_lost(self, error: SandboxerError) -> tuple[Handle, Context]:
        """What a create made whose answer was lost, with time to wait for it; raises the error when there is nothing to
        adopt."""
        self._progress("resolve", "the answer was lost: looking for what was made")
        look = msgspec.structs.replace(self._context, deadline=self._whole.shorter(self._services.limits.find_lost))
        try:
            found = self._services.extension(self.record).find(self.record.id, look)
        except SandboxerError as lost:
            self._looked, self._look_error = True, lost
            raise error from lost
        if found is None:
            self._looked = True
            raise error
        self._adopted = True
        self._deadline = self._share()
        return found, msgspec.structs.replace(self._context, deadline=self._deadline)

    def note_health(self, error: SandboxerError) -> None:
        """Record what the failure says of the place's health."""
        services, place = self._services, (self.record.extension, self.record.host)
        now = services.store.get(self.record.id)
        spent = time.monotonic() - self._began
        # our credentials, where they are kept, and our settings: not how the backend does
        ours = isinstance(error, NotConfigured | Denied) or self._phase == "prepare"
        hurried = isinstance(error, Timeout) and spent < services.limits.fair_create
        if error.fault == "caller" or ours or hurried or now is None or now.state != State.PROVISIONING:
            services.health.undecided(*place)
        else:
            services.health.failed(*place)

    def settle(self, error: SandboxerError) -> AttemptResult:
        """Decide what follows; before another candidate may be tried, take back what was made."""
        cause = self._cause(error)
        circumstances = Circumstances(
            last=self._last,
            expired=self._whole.passed,
            kept=self._keeps and not self.made_nothing,
            routed=self._plan.profile.route is not None,
        )
        if not failure_policy.may_continue(cause, circumstances):
            return AttemptResult(step="give-up")
        rest = self._clean_up(cause)
        step = failure_policy.step_after(cause, failure_policy.left_after(rest))
        return AttemptResult(step="unknown" if step == "adopt" else step, rest=rest)

    def _clean_up(self, cause: Cause) -> SandboxerError | None:
        """Take back what was made; what keeps that from being certain, or None."""
        if self._looked:
            return self._look_error
        if failure_policy.cleanup_for(cause, self._phase) == "none":
            return None
        self._progress("rollback", f"taking back what was begun on {location_of(self.record)}")
        seconds = self._whole.seconds(self._services.limits.rollback)
        return rollback(self._services, self._services.current(self.record.id), seconds=seconds)


def _with_note(ready: Ready) -> Isolation:
    """The isolation, telling consumers of `remote_dir` what they have to reckon with there."""
    shared = ready.isolation.class_ in ("namespace", "container")  # elsewhere the directory is itself inside
    if not shared or ready.reachability.remote_dir is None or LINKS_NOTE in ready.isolation.notes:
        return ready.isolation
    return msgspec.structs.replace(ready.isolation, notes=[*ready.isolation.notes, LINKS_NOTE])


@contextmanager
def _our_fault() -> Iterator[None]:
    """Mark what our own store refuses (a full disk): no backend is at fault, and no other one would fare better."""
    try:
        yield
    except SandboxerError as error:
        error.fault = "caller"
        raise
