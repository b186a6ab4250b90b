"""Create, up to ready: intent before effect, and everything taken back when it does not come to that."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from sandboxer.errors import Conflict, Internal, SandboxerError, Timeout, Unavailable, from_document
from sandboxer.locks import SandboxLock, this_owner
from sandboxer.manager import money, quotas
from sandboxer.manager.attempt import never_begun, try_in_turn
from sandboxer.manager.destroy import ROLLBACK_GRACE_SECONDS, ROLLBACK_SECONDS, rollback
from sandboxer.manager.fallback import Exhausted, PlacedCandidate, nobody, place_next, with_decisions
from sandboxer.manager.plan import CreatePlan
from sandboxer.manager.services import Progress, Services, no_progress
from sandboxer.models import Quota, Sandbox
from sandboxer.names import MIN_PREFIX, new_id
from sandboxer.payments.usage import closed
from sandboxer.routing import decisions
from sandboxer.state import Signal, State
from sandboxer.store.base import Change, OtherRecords, UpdateFn, holds_name
from sandboxer.timing import Deadline

NO_QUOTA = Quota()
CREATE_SECONDS = 900.0
"""How long an establishment may take unless `--timeout` says otherwise."""


class PendingCreate:
    """An establishment whose intent is durable: the record, and the lock that makes this process its owner."""

    def __init__(self, record: Sandbox, lock: SandboxLock) -> None:
        self.record = record
        self.lock = lock


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
    quota = quotas.quota_of(services.settings.quotas, plan.consumer)
    earlier: list[Sandbox] = []
    turns: list[PlacedCandidate] = []

    def given_before(record: Sandbox | None, others: OtherRecords) -> Change:
        if record is not None:
            raise Internal(f"the new id {sandbox_id} is taken already")
        if (known := _of_the_key(plan, others)) is not None:
            earlier.append(known)
        return Change()

    def write(turn: PlacedCandidate) -> UpdateFn:
        turns.append(turn)

        def change(record: Sandbox | None, others: OtherRecords) -> Change:
            given_before(record, others)
            if earlier:
                return Change()
            _check_name_is_free(plan, others)
            _check_name_hides_nobody(plan, others)
            quotas.check_live(quota, plan.consumer, others)
            turn.check_room(others, without=None)
            fresh = turn.placed(services, plan, _first_record(services, plan, sandbox_id, turn))
            return Change(record=fresh, events=[services.event(None, fresh, "sandbox.provisioning")])

        return change

    try:
        if plan.idempotency_key is not None and (metered or plan.refusal is not None or quota != NO_QUOTA):
            services.store.update(sandbox_id, given_before)  # what was given before costs nothing now
        if not earlier:
            quotas.take_create(services, quota, plan.consumer)
        begun = None if earlier else place_next(services, plan, sandbox_id, route=plan.route, start=0, write=write)
        if isinstance(begun, Exhausted):
            raise nobody(plan, begun)
        if begun is None and not earlier:
            raise Internal("the store kept nothing of a new record")
    except BaseException as error:
        # An interrupt may come after the record became durable.
        with lock:
            _give_up(services, sandbox_id, error, keep=False, progress=no_progress)
            if metered:
                _release(services, sandbox_id)
        raise
    if begun is None or earlier:
        lock.close()
        if metered:
            _release(services, sandbox_id)
        for turn in turns[-1:]:  # it was not needed; a try of another create is not ours to give back
            services.health.undecided(turn.candidate.extension, turn.candidate.host)
        return earlier[0]
    services.announce()
    return PendingCreate(begun, lock)


def check_name_and_key(services: Services, plan: CreatePlan) -> None:
    """Raise what `begin` would raise of a name or an idempotency key that is taken; nothing is touched."""
    if plan.request.name is None and plan.idempotency_key is None:
        return
    others = services.store.others()
    if _of_the_key(plan, others) is None:
        _check_name_is_free(plan, others)
        _check_name_hides_nobody(plan, others)


def _of_the_key(plan: CreatePlan, others: OtherRecords) -> Sandbox | None:
    """The sandbox that the idempotency key gave before. Raises Conflict when that was for another request."""
    known = (
        None
        if plan.idempotency_key is None
        else others.by_idempotency_key(plan.idempotency_key, consumer=plan.consumer)
    )
    if known is not None and known.fingerprint != plan.fingerprint:
        raise Conflict(
            f"the idempotency key was used for another request (sandbox {known.id})",
            hint="use a new key for a new request",
            sandbox_id=known.id,
        )
    return known


def _check_name_is_free(plan: CreatePlan, others: OtherRecords) -> None:
    """Raises Conflict when another sandbox holds the name that was asked for; which one, only its own consumer and the
    operator learn."""
    holder = None if plan.request.name is None else others.by_name(plan.request.name)
    if holder is None or not holds_name(holder):
        return
    if not plan.grant.everything and holder.consumer != plan.consumer:
        raise Conflict(f"the name {plan.request.name!r} is taken", hint="choose another name")
    raise Conflict(
        f"the name {plan.request.name!r} is taken by sandbox {holder.id}",
        hint=f"choose another name, or `sandboxer destroy {holder.id}`",
        sandbox_id=holder.id,
    )


def _check_name_hides_nobody(plan: CreatePlan, others: OtherRecords) -> None:
    """Raises Conflict when the name that was asked for is the beginning of another sandbox's id, which it would stand
    for. Who sees only a consumer's hears nothing of the others': by such names one could spell out all their ids. (To
    who sees both, such a text means neither.)"""
    name, whose = plan.request.name, None if plan.grant.everything else plan.consumer
    if name is not None and len(name) >= MIN_PREFIX and others.by_beginning(name, consumer=whose) is not None:
        raise Conflict(
            f"the name {name!r} is the beginning of another sandbox's id, which it could be taken for",
            hint="choose another name",
        )


def _first_record(services: Services, plan: CreatePlan, sandbox_id: str, turn: PlacedCandidate) -> Sandbox:
    created = services.clock()
    return Sandbox(
        id=sandbox_id,
        request=plan.request,
        profile=plan.profile.id,
        profile_version=plan.profile.version,
        extension=turn.candidate.extension,
        state=str(State.PROVISIONING),
        consumer=plan.consumer,
        host=turn.candidate.host,
        created_at=created,
        name=plan.request.name,
        labels=plan.request.labels,
        inputs=plan.shown_inputs,
        expires_at=None if plan.ttl is None else created + plan.ttl,
        failed_ttl=plan.failed_ttl,
        idempotency_key=plan.idempotency_key,
        fingerprint=plan.fingerprint,
        owner=this_owner(),
        seq=1,
    )


def carry_out(
    services: Services, plan: CreatePlan, begun: PendingCreate, deadline: Deadline, progress: Progress = no_progress
) -> Sandbox:
    """From intent to ready, by the owner. What goes wrong is taken back, recorded as `failed`, and raised.

    Releases the lock in every case."""
    sandbox_id = begun.record.id
    left = deadline.left()
    late = Deadline(None if left is None else left + ROLLBACK_GRACE_SECONDS)
    with begun.lock:
        try:
            with services.cancellations.watch(sandbox_id, deadline):
                return try_in_turn(services, plan, sandbox_id, deadline, progress)
        except BaseException as error:
            _give_up(services, sandbox_id, error, keep=plan.request.keep_failed, progress=progress, late=late)
            if isinstance(error, SandboxerError):
                error.sandbox_id = error.sandbox_id or sandbox_id
                record = services.store.get(sandbox_id)
                if record is not None and len(record.route.decisions) > 1:
                    with_decisions(error, record.route)
            raise


def hand_over(services: Services, begun: PendingCreate, start: Callable[[int], None]) -> Sandbox:
    """Leave the rest to a process that `start` begins, which is given the lock's descriptor; the record so far. When
    that fails, which an error says for certain, it is recorded as `failed` and raised."""
    with begun.lock as lock:
        try:
            start(lock.fileno())
        except SandboxerError as error:
            _give_up(services, begun.record.id, error, keep=False, progress=no_progress)
            error.sandbox_id = error.sandbox_id or begun.record.id
            raise
    return begun.record


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
        progress("rollback", "taking back what was begun")
        rest = _take_back(services, record, error, late)
        clean = rest is None or never_begun(record, error, rest)
        if rest is not None and not clean:
            document["details"] = {**(document.get("details") or {}), "rollback": rest.message}
            document["outcome"] = "unknown"
            if isinstance(error, SandboxerError):
                error.outcome = "unknown"
    if clean:  # an answer that was lost said that something may exist; it is certain by now that nothing does
        document["outcome"] = "failed"
        if isinstance(error, SandboxerError):
            error.outcome = "failed"

    def failed(now: Sandbox) -> Sandbox:
        turn = decisions.chosen_position(now.route)
        route = now.route
        if turn is not None:
            kept = clean or keep
            route = decisions.mark_ended(
                route, turn, outcome="failed" if kept else "unknown", reason=document["message"]
            )
        at = services.clock()
        after = msgspec.structs.replace(
            now, error=document, clean=clean, owner=None, expires_at=at + now.failed_ttl, route=route
        )
        return closed(after, at=at) if clean else after  # nothing of it runs any more, however long its record stays

    try:
        services.move(sandbox_id, Signal.FAIL, edit=failed, must_succeed=True)
    except Conflict:
        return  # destroyed meanwhile: the record already says more than `failed`
    if clean:
        _release(services, sandbox_id)


def _take_back(
    services: Services, record: Sandbox, error: BaseException, late: Deadline | None
) -> SandboxerError | None:
    """A place that did not answer has to the end of the create's time and a little more; one where only something took
    too long has to show by then that it is there, and then gets the time that it needs."""
    if not isinstance(error, Exception):
        return rollback(services, record, quick=True)
    if late is None or not isinstance(error, Unavailable | Timeout):
        return rollback(services, record, quick=False)
    if isinstance(error, Unavailable):
        return rollback(services, record, quick=False, seconds=late.seconds(ROLLBACK_SECONDS))
    return rollback(services, record, quick=False, answer_by=late)


def _release(services: Services, sandbox_id: str) -> None:
    """Give the money back. A reservation that stays open is settled by the next `expire` or `reconcile`: that must not
    hide why the create failed."""
    with suppress(SandboxerError):
        money.release(services, sandbox_id)


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


def wait_for_outcome(
    services: Services, sandbox_id: str, deadline: Deadline, sleep: Callable[[float], None]
) -> Sandbox:
    """Wait until an establishment that another process owns has ended; its record, or its error raised."""
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
