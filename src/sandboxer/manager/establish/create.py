"""Create, up to ready: intent before effect, and everything taken back when it does not come to that.

`begin` records the intent on the first candidate. `carry_out` tries one candidate after the other; what follows from a
failure is a row of `failure_policy`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from sandboxer.errors import Conflict, Internal, Interruption, SandboxerError, Timeout, Unavailable, from_document
from sandboxer.locks import SandboxLock
from sandboxer.manager import billing, quotas
from sandboxer.manager.admission import Admission
from sandboxer.manager.destroy import rollback
from sandboxer.manager.establish import failure_policy
from sandboxer.manager.establish.attempt import Attempt, check_request, check_wanted
from sandboxer.manager.establish.fallback import (
    Exhausted,
    PlacedCandidate,
    nobody_can_serve,
    place_next,
    with_decisions,
)
from sandboxer.manager.establish.plan import CreatePlan
from sandboxer.manager.services import Progress, Services, no_progress
from sandboxer.manager.sweeps.report import location_of
from sandboxer.models import Route, Sandbox
from sandboxer.names import new_id
from sandboxer.payments.usage import closed
from sandboxer.routing import decisions
from sandboxer.state import State, Trigger
from sandboxer.store.base import Change, OtherRecords
from sandboxer.timing import Deadline


class PendingCreate:
    """A create whose intent is durable: the record, and the lock that makes this process its owner."""

    def __init__(self, record: Sandbox, lock: SandboxLock) -> None:
        self.record = record
        self.lock = lock


# -- the intent -------------------------------------------------------------------------------------------------------


def begin(services: Services, plan: CreatePlan) -> PendingCreate | Sandbox:
    """Record the intent; or, for an idempotency key that was used, the sandbox it gave. Raises Conflict, and what
    nobody being able to serve it comes to (InsufficientCredits, Unavailable, or the plan's own refusal).

    The lock is taken before the record appears, so nobody ever sees a record in `provisioning` without an owner
    unless its owner is dead."""
    sandbox_id = new_id()
    lock = services.locks.try_acquire(sandbox_id)
    if lock is None:
        raise Internal(f"the new id {sandbox_id} is locked already")
    metered = any(candidate.metered for candidate in plan.candidates)
    first = Admission(services, plan, sandbox_id)
    try:
        record = _placed_first(services, plan, first)
    except BaseException as error:
        # An interrupt may come after the record became durable.
        with lock:
            _give_up(services, sandbox_id, error, keep=False, progress=no_progress)
            if metered:
                _release(services, sandbox_id)
            if plan.replaces is not None:
                billing.restore_reservation(services, plan.replaces)
        raise
    if first.earlier is not None:
        lock.close()
        if metered:
            _release(services, sandbox_id)
        return first.earlier
    services.announce()
    return PendingCreate(record, lock)


def _placed_first(services: Services, plan: CreatePlan, first: Admission) -> Sandbox:
    """Reserve and place the first candidate that admits it, in the write that makes the record; or the sandbox that the
    idempotency key gave before."""
    if plan.idempotency_key is not None:
        # What was given before costs nothing, and is not judged. Not under the store's lock: who is over a quota must
        # not hold up the others; the write looks again.
        first.look(None, services.store.others())
    if first.earlier is not None:
        return first.earlier
    check_request(services, plan)  # what is refused from what lies here leaves no record
    quotas.take_create(services, first.quota, plan.consumer)
    placed = place_next(services, plan, first.sandbox_id, route=plan.route, start=0, write=first.write)
    if isinstance(placed, Exhausted):
        raise nobody_can_serve(plan, placed)
    record = placed or first.earlier
    if record is None:
        raise Internal("the store kept nothing of a new record")
    return record


def give_up_replacement(services: Services, plan: CreatePlan, pending: PendingCreate, error: BaseException) -> None:
    """Give up a create of which nothing was made, as the sandbox that it replaces did not go. Releases the lock."""
    message = error.message if isinstance(error, SandboxerError) else "interrupted"
    why = Conflict(
        f"it was to replace sandbox {plan.replaces}, which did not go: {message}",
        hint=f"run `sandboxer destroy {plan.replaces}`, then create it again",
    )
    with pending.lock:
        with suppress(SandboxerError):
            services.edit(pending.record.id, _nothing_left)
        _give_up(services, pending.record.id, why, keep=False, progress=no_progress)
    if plan.replaces is not None:
        billing.restore_reservation(services, plan.replaces)


# -- the effect -------------------------------------------------------------------------------------------------------


def carry_out(
    services: Services, plan: CreatePlan, pending: PendingCreate, deadline: Deadline, progress: Progress = no_progress
) -> Sandbox:
    """From intent to ready, by the owner. What goes wrong is taken back, recorded as `failed`, and raised.

    Releases the lock in every case."""
    sandbox_id = pending.record.id
    left = deadline.left()
    late = Deadline(None if left is None else left + services.limits.rollback_grace)
    with pending.lock:
        try:
            with services.cancellations.watch(sandbox_id, deadline):
                return _try_candidates(services, plan, sandbox_id, deadline, progress)
        except BaseException as error:
            _give_up(services, sandbox_id, error, keep=plan.request.keep_failed, progress=progress, late=late)
            if isinstance(error, SandboxerError):
                error.sandbox_id = error.sandbox_id or sandbox_id
                record = services.store.get(sandbox_id)
                if record is not None and len(record.route.decisions) > 1:
                    with_decisions(error, record.route)
            raise


def _try_candidates(
    services: Services, plan: CreatePlan, sandbox_id: str, deadline: Deadline, progress: Progress
) -> Sandbox:
    """Try the candidate that the record is placed on; when that fails and nothing is left of it, reserve and place the
    next one. Never two are kept. Raises what the last one came to."""
    record = check_wanted(services.current(sandbox_id))  # it may have waited, and be unwanted by now
    while True:
        attempt = Attempt(services, plan, record, deadline, progress)
        try:
            return attempt.run()
        except SandboxerError as error:
            attempt.note_health(error)
            settled = attempt.settle(error)
            route = services.current(sandbox_id).route
            if settled.step == "unknown":
                reason = f"{error.message}; what is there cannot be told: {settled.rest}"
                route = decisions.mark_ended(route, attempt.position, outcome="unknown", reason=reason)
                _note_outcome(services, sandbox_id, route, clean=False)
                error.outcome = "unknown"
                raise
            placed = None
            if settled.step == "next":
                route = decisions.mark_ended(route, attempt.position, outcome="failed", reason=error.message)
                placed = _place_after(services, plan, sandbox_id, route, attempt.position)
            elif attempt.made_nothing:
                with suppress(SandboxerError):  # then it is looked for once more, in vain
                    services.edit(sandbox_id, _nothing_left)
            if placed is None:
                _summarize(services, plan, attempt, error)
                raise
            record = placed


def _place_after(services: Services, plan: CreatePlan, sandbox_id: str, route: Route, position: int) -> Sandbox | None:
    """The record on the next candidate; None when there is none."""
    write = partial(_move, services, plan)
    placed = place_next(services, plan, sandbox_id, route=route, start=position + 1, write=write)
    if isinstance(placed, Exhausted):
        _note_outcome(services, sandbox_id, placed.route, clean=True)
        return None
    return placed


def _move(
    services: Services, plan: CreatePlan, placed: PlacedCandidate, record: Sandbox | None, others: OtherRecords
) -> Change:
    """The write that moves a create to another candidate."""
    if record is None:
        raise Conflict("the sandbox is gone while it was being established", hint="create another one")
    placed.check_cap(others, without=record.id)
    return Change(record=placed.record(services, plan, check_wanted(record)))


def _nothing_left(record: Sandbox) -> Sandbox:
    return msgspec.structs.replace(record, clean=True)


def _note_outcome(services: Services, sandbox_id: str, route: Route, *, clean: bool) -> None:
    """Record what became of the candidates; `clean` when nothing of the last one is left."""

    def edit(now: Sandbox) -> Sandbox:
        return msgspec.structs.replace(
            check_wanted(now), route=route, clean=clean, handle=None if clean else now.handle
        )

    services.edit(sandbox_id, edit)


def _summarize(services: Services, plan: CreatePlan, attempt: Attempt, error: SandboxerError) -> None:
    """Let the last error speak of those before it too."""
    record = services.store.get(attempt.record.id) or attempt.record
    tried = [one for one in record.route.decisions[: attempt.position] if one.outcome == "failed"]
    if not tried:
        return
    if plan.profile.route is None:
        error.message = f"none of the hosts {', '.join(plan.hosts)} answers: {error.message}"
        error.hint = "run `sandboxer doctor`, or choose a host with --host"
        return
    each = [(location_of(one), one.reason) for one in tried] + [(location_of(attempt.record), error.message)]
    reasons = "; ".join(f"{place}: {reason}" for place, reason in each)
    error.message = f"none of the {len(each)} backends that were tried could serve {plan.profile.id}: {reasons}"


# -- the end of one that failed ---------------------------------------------------------------------------------------


def _give_up(
    services: Services,
    sandbox_id: str,
    error: BaseException,
    *,
    keep: bool,
    progress: Progress,
    late: Deadline | None = None,
) -> None:
    """Take back what was made and record why. What cannot be taken back now stays recorded for `reconcile`; so does,
    after a silence, what is at a place that says nothing until `late`."""
    record = services.store.get(sandbox_id)
    if record is None or record.state != State.PROVISIONING:
        return  # somebody destroys it: they wait for our lock, and do the rest
    document = error_document(error, sandbox_id)
    clean = record.clean  # whoever tried it last may have seen to it
    if not keep and not clean:
        cause = failure_policy.cause_of(error, phase="provision", provider=False, saved=record.handle is not None)
        rest = None
        if failure_policy.cleanup_for(cause, "provision") != "none":
            progress("rollback", "taking back what was begun")
            rest = _roll_back(services, record, error, late)
        clean = failure_policy.step_after(cause, failure_policy.left_after(rest)) != "unknown"
        if rest is not None and not clean:
            document["details"] = {**(document.get("details") or {}), "rollback": rest.message}
            document["outcome"] = "unknown"
    if clean:  # an answer that was lost said that something may exist; it is certain by now that nothing does
        document["outcome"] = "failed"
    if isinstance(error, SandboxerError):
        error.outcome = document["outcome"]
    if isinstance(error, Interruption):
        error.sandbox_id, error.left = sandbox_id, "nothing" if clean else "kept" if keep else "unknown"
    failed = partial(_failed, document=document, clean=clean, kept=keep, at=services.clock())
    try:
        services.move(sandbox_id, Trigger.FAIL, edit=failed, must_succeed=True)
    except Conflict:
        return  # destroyed meanwhile: the record already says more than `failed`
    if clean:
        _release(services, sandbox_id)


def _failed(now: Sandbox, *, document: dict[str, Any], clean: bool, kept: bool, at: float) -> Sandbox:
    """The record of a create that came to nothing."""
    route, position = now.route, decisions.chosen_position(now.route)
    if position is not None:
        outcome: decisions.AttemptOutcome = "failed" if clean or kept else "unknown"
        route = decisions.mark_ended(route, position, outcome=outcome, reason=document["message"])
    expires = at + now.failed_ttl
    after = msgspec.structs.replace(now, error=document, clean=clean, owner=None, expires_at=expires, route=route)
    return closed(after, at=at) if clean else after  # nothing of it runs any more, however long its record stays


def _roll_back(
    services: Services, record: Sandbox, error: BaseException, late: Deadline | None
) -> SandboxerError | None:
    """A place that did not answer has to the end of the create's time and a little more; one where only something took
    too long has to show by then that it is there, and then gets the time that it needs."""
    limits = services.limits
    if not isinstance(error, Exception):
        return rollback(services, record, seconds=limits.quick_rollback)
    if late is not None and isinstance(error, Unavailable):
        return rollback(services, record, seconds=late.seconds(limits.rollback))
    answer_by = late if isinstance(error, Timeout) else None
    return rollback(services, record, seconds=limits.rollback, answer_by=answer_by)


def _release(services: Services, sandbox_id: str) -> None:
    """Give the money back. A reservation that stays open is settled by the next `expire` or `reconcile`: that must not
    hide why the create failed."""
    with suppress(SandboxerError):
        billing.release(services, sandbox_id)


def error_document(error: BaseException, sandbox_id: str) -> dict[str, Any]:
    """What a record keeps of an error."""
    if isinstance(error, SandboxerError):
        return {**error.document(), "sandbox_id": sandbox_id}
    if isinstance(error, Exception):
        return Internal(f"{type(error).__name__}: {error}", sandbox_id=sandbox_id, hint="please report it").document()
    return {
        "code": "interrupted",
        "message": "interrupted before it was ready",
        "hint": "create it again",
        "retryable": True,
        "outcome": "failed",
        "sandbox_id": sandbox_id,
    }


# -- somebody else's --------------------------------------------------------------------------------------------------


def hand_over(services: Services, pending: PendingCreate, start: Callable[[int], None]) -> Sandbox:
    """Leave the rest to a process that `start` begins, which is given the lock's descriptor; the record so far. When
    that fails, which an error says for certain, it is recorded as `failed` and raised."""
    with pending.lock as lock:
        try:
            start(lock.fileno())
        except SandboxerError as error:
            _give_up(services, pending.record.id, error, keep=False, progress=no_progress)
            error.sandbox_id = error.sandbox_id or pending.record.id
            raise
    return pending.record


def wait_for_outcome(
    services: Services, sandbox_id: str, deadline: Deadline, sleep: Callable[[float], None]
) -> Sandbox:
    """Wait until a create that another process owns has ended; its record, or its error raised."""
    pause = 0.02
    while True:
        record = services.current(sandbox_id)
        if record.state != State.PROVISIONING:
            break
        deadline.check(f"waiting for sandbox {sandbox_id} to be ready")
        sleep(deadline.seconds(pause))
        pause = min(pause * 1.5, 1.0)
    if record.state == State.FAILED and record.error is not None:
        raise from_document(record.error)
    return record
