"""Trying the candidates in turn: what was made is taken back before the next one is tried, and never two are kept.

Which failure moves on (docs/routing.md): one of the backend, once it is certain that nothing of it is left. What the
caller got wrong fails the same way everywhere; and where nobody can say what is there, nothing else is begun."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import msgspec

from sandboxer import __version__
from sandboxer.errors import BackendError, Conflict, Denied, NotConfigured, SandboxerError, Timeout, Unavailable
from sandboxer.extensions.base import Context, Spec
from sandboxer.manager import money, permissions
from sandboxer.manager.candidates import checked_options, manifests_of, refs_of
from sandboxer.manager.destroy import ROLLBACK_SECONDS, rollback
from sandboxer.manager.fallback import Exhausted, PlacedCandidate, place_next
from sandboxer.manager.inputs import opened_inputs
from sandboxer.manager.plan import CreatePlan
from sandboxer.manager.services import Progress, Services
from sandboxer.manager.sweep import location_of
from sandboxer.models import Handle, Isolation, Ready, Route, Sandbox
from sandboxer.names import new_id, resource_name
from sandboxer.routing import decisions
from sandboxer.routing.requirements import below_isolation_floor
from sandboxer.secrets import Secret
from sandboxer.state import Signal, State
from sandboxer.store.base import Change, OtherRecords, UpdateFn
from sandboxer.timing import Deadline

REACH_SECONDS = 20.0
"""How long a host may take to answer while another one could be tried."""
LOST_ANSWER_SECONDS = 30.0
"""How long the look for what a lost answer left may take."""
LINKS_NOTE = (
    "reachability.remote_dir can be written from inside: it may hold links that lead elsewhere, do not follow them"
)
FAIR_TIMEOUT_SECONDS = 30.0
"""A time-out says something of the backend when it had at least this long; below, the caller was in a hurry."""


def try_in_turn(
    services: Services, plan: CreatePlan, sandbox_id: str, deadline: Deadline, progress: Progress
) -> Sandbox:
    """From intent to ready on the first candidate that can. Raises what the last one came to."""
    record = check_wanted(services.current(sandbox_id))  # it may have waited for its turn, and be unwanted by now
    while True:
        attempt = Attempt(services, plan, record, deadline, progress)
        try:
            return attempt.run()
        except SandboxerError as error:
            attempt.tell(error)
            after = None
            if attempt.may_move_on(error):
                after = _next(services, plan, attempt, error)
            elif attempt.untouched:
                with suppress(SandboxerError):  # then it is looked for once more, in vain
                    services.edit(sandbox_id, lambda now: msgspec.structs.replace(now, clean=True))
            if after is None:
                _sum_up(services, plan, attempt, error)
                raise
            record = after


def examine(services: Services, plan: CreatePlan) -> None:
    """Raise what the candidate that is tried first would say of the request before any host is reached."""
    candidate = plan.first
    if candidate.host is None:
        return
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
        extension.examine(spec, services.open_host(candidate.host))


def check_wanted(record: Sandbox) -> Sandbox:
    """The record, as long as somebody wants it; raises Conflict."""
    if record.state != State.PROVISIONING:
        raise Conflict(
            f"sandbox {record.id} was {record.state} while it was being established", hint="create another one"
        )
    return record


class Attempt:
    """One candidate, tried once. What it did so far tells how to take it back."""

    def __init__(
        self, services: Services, plan: CreatePlan, record: Sandbox, whole: Deadline, progress: Progress
    ) -> None:
        self.services = services
        self.plan = plan
        self.record = record
        self.number = decisions.chosen_position(record.route) or 0
        self.candidate = plan.candidates[self.number]
        self.last = self.number == len(plan.candidates) - 1
        self.stage: Literal["reach", "prepare", "provision", "wait"] = "reach"
        self.saved: list[Handle] = []
        self.adopted = False
        self.doubt: SandboxerError | None = None
        self._absent = False
        self._whole = whole
        self._progress = progress
        self._began = time.monotonic()
        # held, so that no error says them: a backend may quote what it was given
        self._hidden = [Secret(str(plan.inputs[name])) for name in plan.inputs if plan.profile.inputs[name].secret]
        self._given = self._share()

    @property
    def untouched(self) -> bool:
        """Whether it is certain that the backend made nothing, without asking it."""
        return self.stage in ("reach", "prepare") or self._absent

    def run(self) -> Sandbox:
        """Make it, and wait until it is ready."""
        services, plan, record = self.services, self.plan, self.record
        self._progress("resolve", f"{plan.profile.id} on {record.host or record.extension}")
        extension = services.extensions.get(record.extension)
        with opened_inputs(plan.profile, plan.inputs, plan.roots) as inputs:
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
                host.connect(self._given if self.last else self._given.shorter(REACH_SECONDS))
            self.stage = "prepare"
            permissions.check_sandbox_paths(services, record, self._given)
            context = services.extension_context(
                record.extension,
                record.host,
                self._given if plan.profile.route is not None else self._whole,
                progress=inputs.progress(self._progress),
                save=self._save,
                refs=refs_of(plan.profile, manifests_of(services, plan.profile), record.extension),
            )
            self.stage = "provision"
            try:
                handle = extension.provision(spec, context)
            except SandboxerError as error:
                handle, context = self._adopt(error, context)
        self._save(handle)
        self.stage = "wait"
        ready = extension.wait_ready(handle, context)
        seconds = None if self.adopted else time.monotonic() - self._began
        if (weak := below_isolation_floor(plan.profile.require, ready.isolation.class_)) is not None:
            raise BackendError(f"it came up, but {weak}", hint="run `sandboxer extensions show` to see its notes")
        report = self._self_check(handle, ready, context)
        self._progress("ready", "")
        with _ours():
            stored = services.move(
                record.id, Signal.ESTABLISHED, edit=lambda now: self._established(now, handle, ready, report)
            )
        services.health.succeeded(record.extension, record.host, seconds)
        return stored

    def _established(self, now: Sandbox, handle: Handle, ready: Ready, report: dict[str, Any] | None) -> Sandbox:
        route = now.route
        if self.adopted:
            reason = "the answer to its create was lost; what it had made was found, and is used"
            route = decisions.mark_chosen(route, self.number, reason)
        return msgspec.structs.replace(
            now,
            handle=handle,
            reachability=ready.reachability,
            isolation=_with_note(ready),
            metering=money.with_measured_resources(now.metering, ready.resources),
            route=route,
            report=report,
            ready_at=self.services.clock(),
            owner=None,
        )

    def _share(self) -> Deadline:
        """Half of what is left, as long as there is another candidate to leave time for."""
        left = self._whole.left()
        return self._whole if self.last or left is None else self._whole.shorter(left / 2)

    def _save(self, handle: Handle) -> None:
        if self.saved and self.saved[-1] == handle:
            return
        with _ours():
            self.services.edit(self.record.id, lambda now: msgspec.structs.replace(check_wanted(now), handle=handle))
        self.saved.append(handle)

    def _self_check(self, handle: Handle, ready: Ready, context: Context) -> dict[str, Any] | None:
        if not self.plan.profile.self_check:
            return None
        from sandboxer import selfcheck  # only the canary pays for it

        context.progress("wait", "self-check inside the sandbox")
        extension = self.services.extensions.get(self.record.extension)
        return selfcheck.run(extension, handle, ready, context, version=__version__)

    # -- when it fails --------------------------------------------------------------------------------------------

    def _adopt(self, error: SandboxerError, context: Context) -> tuple[Handle, Context]:
        """What a create made whose answer was lost, with time to wait for it; raises the error when there is nothing to
        adopt. On hosts of ours a create is many steps, and what was broken off may be half of it: that is reaped."""
        if not self.candidate.provider or not _ambiguous(error) or self.plan.request.keep_failed:
            raise error
        self._progress("resolve", "the answer was lost: looking for what was made")
        look = msgspec.structs.replace(context, deadline=self._whole.shorter(LOST_ANSWER_SECONDS))
        try:
            found = self.services.extensions.get(self.record.extension).find(self.record.id, look)
        except SandboxerError as lost:
            self.doubt = lost
            raise error from lost
        if found is None:
            self._absent = True
            raise error
        self.adopted = True
        self._given = self._share()
        return found, msgspec.structs.replace(context, deadline=self._given)

    def tell(self, error: SandboxerError) -> None:
        """What the failure says of the place's health."""
        services, place = self.services, (self.record.extension, self.record.host)
        now = services.store.get(self.record.id)
        spent = time.monotonic() - self._began
        # our credentials, where they are kept, and our settings: not how the backend does
        ours = isinstance(error, NotConfigured | Denied) or self.stage == "prepare"
        hurried = isinstance(error, Timeout) and spent < FAIR_TIMEOUT_SECONDS
        if error.fault == "caller" or ours or hurried or now is None or now.state != State.PROVISIONING:
            services.health.undecided(*place)
        else:
            services.health.failed(*place)

    def may_move_on(self, error: SandboxerError) -> bool:
        """Whether the next candidate may be tried, if nothing is left of this one."""
        if self.last or error.fault == "caller" or self._whole.passed:
            return False
        if self.plan.request.keep_failed and not self.untouched:
            return False
        if self.plan.profile.route is None:  # another host of the extension that was asked for, when one is silent
            return self.stage == "reach" and isinstance(error, Unavailable)
        return True

    def clear(self, error: SandboxerError) -> SandboxerError | None:
        """Take back what was made; what keeps that from being certain, or None."""
        if self.untouched:
            return None
        if self.doubt is not None:
            return self.doubt
        self._progress("rollback", f"taking back what was begun on {location_of(self.record)}")
        seconds = self._whole.seconds(ROLLBACK_SECONDS)
        record = self.services.current(self.record.id)
        rest = rollback(self.services, record, quick=False, seconds=seconds)
        return None if rest is None or never_begun(record, error, rest) else rest


def _with_note(ready: Ready) -> Isolation:
    """The isolation, telling consumers of `remote_dir` what they have to reckon with there."""
    shared = ready.isolation.class_ in ("namespace", "container")  # elsewhere the directory is itself inside
    if not shared or ready.reachability.remote_dir is None or LINKS_NOTE in ready.isolation.notes:
        return ready.isolation
    return msgspec.structs.replace(ready.isolation, notes=[*ready.isolation.notes, LINKS_NOTE])


@contextmanager
def _ours() -> Iterator[None]:
    """What our own store refuses (a full disk) is no backend's fault, and no other one would fare better."""
    try:
        yield
    except SandboxerError as error:
        error.fault = "caller"
        raise


def never_begun(record: Sandbox, error: BaseException, rest: SandboxerError) -> bool:
    """Whether there is nothing to look for although the look (`rest`) failed: the backend let us in neither for the
    create nor now, and its refusal says that nothing was begun. With a handle that was saved, the extension must have
    said so itself (`made_nothing`)."""
    if not isinstance(error, _SHUT) or not isinstance(rest, _SHUT) or _ambiguous(error):
        return False
    return record.handle is None or error.made_nothing


_SHUT = (Denied, NotConfigured, Unavailable, Timeout)


def _ambiguous(error: SandboxerError) -> bool:
    """Whether a create may have been carried out although it raised. A silence says nothing, unless whoever raised it
    states that the request cannot have arrived."""
    if error.outcome == "unknown":
        return True
    return isinstance(error, Unavailable | Timeout) and not error.outcome_stated and not error.made_nothing


def _next(services: Services, plan: CreatePlan, attempt: Attempt, error: SandboxerError) -> Sandbox | None:
    """Take the failed candidate back, and give the next one its turn; the record there. None when there is none;
    raises the error when it is not certain that nothing is left."""
    sandbox_id, number = attempt.record.id, attempt.number
    rest = attempt.clear(error)
    route = check_wanted(services.current(sandbox_id)).route
    if rest is not None:
        reason = f"{error.message}; what is there cannot be told: {rest.message}"
        _record(
            services, sandbox_id, decisions.mark_ended(route, number, outcome="unknown", reason=reason), clean=False
        )
        error.outcome = "unknown"
        raise error
    route = decisions.mark_ended(route, number, outcome="failed", reason=error.message)

    def write(turn: PlacedCandidate) -> UpdateFn:
        def change(record: Sandbox | None, others: OtherRecords) -> Change:
            if record is None:
                raise Conflict(f"sandbox {sandbox_id} is gone", hint="create another one")
            turn.check_room(others, without=sandbox_id)
            return Change(record=turn.placed(services, plan, check_wanted(record)))

        return change

    after = place_next(services, plan, sandbox_id, route=route, start=number + 1, write=write)
    if isinstance(after, Exhausted):
        _record(services, sandbox_id, after.route, clean=True)
        return None
    return after


def _record(services: Services, sandbox_id: str, route: Route, *, clean: bool) -> None:
    """What became of the candidates; `clean` when nothing of the last one is left."""

    def edit(now: Sandbox) -> Sandbox:
        return msgspec.structs.replace(
            check_wanted(now), route=route, clean=clean, handle=None if clean else now.handle
        )

    services.edit(sandbox_id, edit)


def _sum_up(services: Services, plan: CreatePlan, attempt: Attempt, error: SandboxerError) -> None:
    """Let the last error speak of those before it too."""
    record = services.store.get(attempt.record.id) or attempt.record
    tried = [one for one in record.route.decisions[: attempt.number] if one.outcome == "failed"]
    if not tried:
        return
    if plan.profile.route is None:
        error.message = f"none of the hosts {', '.join(plan.hosts)} answers: {error.message}"
        error.hint = "run `sandboxer doctor`, or choose a host with --host"
        return
    each = [(location_of(one), one.reason) for one in tried] + [(location_of(attempt.record), error.message)]
    reasons = "; ".join(f"{place}: {reason}" for place, reason in each)
    error.message = f"none of the {len(each)} backends that were tried could serve {plan.profile.id}: {reasons}"
