"""Extend the TTL of a sandbox, and end what is over.

To extend: the money first, then the backend's copy of the expiry, then the record, so that a renewal that was answered
holds, and one that failed can be asked for again without adding twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sandboxer.errors import Conflict, Internal, Invalid, NotFound, SandboxerError
from sandboxer.extensions.base import CanRenew
from sandboxer.manager import billing, path_checks
from sandboxer.manager.destroy import finish_teardown
from sandboxer.manager.presence import is_stopped, may_be_stopped, note_presence, presence_action, stop_noticed
from sandboxer.manager.services import Services
from sandboxer.manager.sweep_report import (
    Action,
    ActionKind,
    ActionOutcome,
    Report,
    caught,
    failed_action,
    location_lane,
    run_in_lanes,
    sweep_report,
)
from sandboxer.models import Isolation, Metering, Sandbox
from sandboxer.state import State, Trigger
from sandboxer.store.base import Change, OtherRecords
from sandboxer.timing import Deadline, format_duration, rfc3339

_PROVIDER_END = "its provider ends it at "


def extend(services: Services, sandbox_id: str, seconds: int) -> Sandbox:
    """Add `seconds` to a sandbox's life; see `SandboxManager.extend_ttl`."""
    # The guard keeps `expire` and other renewals out between the look and the commit.
    with services.leases.guard(sandbox_id):
        record = services.current(sandbox_id)
        until = extended_expiry(record, seconds, now=services.clock())
        metering = None if record.metering is None else billing.paid_until(record, record.metering, until)
        if metering is None:
            stored = _renew(services, record, seconds, until=until, metering=None)
        else:
            billing.raise_reservation(services, record, metering)
            try:
                stored = _renew(services, record, seconds, until=until, metering=metering)
            except BaseException:
                billing.restore_reservation(services, sandbox_id)
                raise
    services.announce()
    return stored


def _renew(services: Services, record: Sandbox, seconds: int, *, until: float, metering: Metering | None) -> Sandbox:
    extension = services.extension(record)
    handle = record.handle
    if isinstance(extension, CanRenew) and handle is not None:
        path_checks.check_sandbox_paths(services, record)  # its marker is written anew
        saved = [handle]  # some remember when their backend ends it
        context = services.context(record, Deadline(services.limits.renew), save=saved.append)
        try:
            with stop_noticed(services, record):
                extension.renew(handle, until, context)
        except Conflict as error:
            if record.state != State.STOPPED or not is_stopped(error):
                raise  # one that has no clock while it is stopped is given the end when it is started
        handle = saved[-1]

    def change(now: Sandbox | None, _others: OtherRecords) -> Change:
        if now is None:
            raise NotFound(f"no sandbox {record.id!r}", hint="run `sandboxer list --all`")
        extended_expiry(now, seconds, now=services.clock())  # it may have been asked to go meanwhile
        isolation = None if now.isolation is None else _without_end(now.isolation)
        after = msgspec.structs.replace(now, expires_at=until, handle=handle, isolation=isolation, seq=now.seq + 1)
        if metering is not None:
            cost = msgspec.structs.replace(now.cost, estimated_usd=metering.reserved_usd)
            after = msgspec.structs.replace(after, metering=metering, cost=cost)
        return Change(record=after, events=[services.event(now, after, "sandbox.extended")])

    stored = services.store.update(record.id, change)
    if stored is None:
        raise Internal("the store kept nothing of an extension")
    return stored


def with_provider_end(record: Sandbox, ends_at: float | None, *, slack: float) -> Sandbox:
    """The record with the end that its provider has set (unix seconds; None: it has none, or does not tell), where that
    is earlier than agreed by more than `slack`: shown, and nothing is charged beyond it. Pure."""
    agreed = record.expires_at
    if ends_at is None or agreed is None or ends_at >= agreed - slack:
        return record
    isolation = record.isolation
    if isolation is not None:
        note = f"{_PROVIDER_END}{rfc3339(ends_at)}; {rfc3339(agreed)} was agreed"
        isolation = msgspec.structs.replace(isolation, notes=[*_without_end(isolation).notes, note])
    return msgspec.structs.replace(record, expires_at=ends_at, isolation=isolation)


def _without_end(isolation: Isolation) -> Isolation:
    """The isolation without the note of an end that a provider had set: another end holds now."""
    notes = [note for note in isolation.notes if not note.startswith(_PROVIDER_END)]
    return msgspec.structs.replace(isolation, notes=notes)


def extended_expiry(record: Sandbox, seconds: int, *, now: float) -> float:
    """When a sandbox will end, in unix seconds, with `seconds` more; raises Conflict or Invalid. Pure."""
    if record.state not in (State.PROVISIONING, State.READY, State.STOPPED):
        raise Conflict(f"sandbox {record.id} is {record.state}", hint="only a living sandbox can be extended")
    if record.expires_at is None:
        raise Conflict(f"sandbox {record.id} never expires", hint="there is nothing to extend")
    agreed = max(record.expires_at, now)
    if record.max_expires_at is not None and agreed + seconds > record.max_expires_at:
        spare = max(0, int(record.max_expires_at - agreed))
        left = format_duration(spare)
        raise Invalid(
            f"{record.profile} allows sandbox {record.id} at most {left} more",
            hint=f"give --duration {left} or less" if spare else f"run `sandboxer recreate {record.id}` instead",
        )
    return agreed + seconds


# -- expire -----------------------------------------------------------------------------------------------------------


def expire(services: Services, *, apply: bool) -> Report:
    """End every sandbox whose TTL is over and that nobody uses; finish teardowns that were begun and left. Pay ahead
    for those without a TTL, and settle what ended and is not in the book."""
    records = services.store.list()
    due = [action for record in records if (action := _seen(services, record)) is not None]
    due += _presence_actions(services, records, due)
    if not apply:
        unsettled, unusable = billing.settle_open(services, grace=services.limits.stale_grace, apply=False)
        return Report(actions=[*due, *unsettled], remaining=unusable)
    done = run_in_lanes(due, lambda action: _ended(services, action), lane=location_lane)
    settled, unusable = billing.settle_open(services, grace=services.limits.stale_grace)
    report = sweep_report([*done, *settled])
    return msgspec.structs.replace(report, remaining=[*report.remaining, *unusable])


def _seen(services: Services, record: Sandbox) -> Action | None:
    def unseen(error: SandboxerError) -> Action:
        return Action(
            sandbox_id=record.id,
            action="expire",
            why=error.message,
            host=record.host,
            extension=record.extension,
            outcome="failed",
            error=error.document(),
        )

    return caught(lambda: _due(services, record), unseen)


def _presence_actions(services: Services, records: Sequence[Sandbox], due: Sequence[Action]) -> Sequence[Action]:
    """What is to be noted of those that nothing else happens to, where somebody may have stopped them."""
    busy = {action.sandbox_id for action in due}
    others = [record for record in records if record.id not in busy and may_be_stopped(services, record)]

    silent: set[str] = set()

    def noted(record: Sandbox) -> Action | None:
        return caught(lambda: presence_action(services, record, silent), lambda _error: None)

    return [action for action in run_in_lanes(others, noted, lane=location_lane) if action is not None]


def _ended(services: Services, action: Action) -> Action:
    return caught(lambda: _expire_one(services, action), lambda error: failed_action(action, error))


def _due(services: Services, record: Sandbox) -> Action | None:
    def action(does: ActionKind, why: str, outcome: ActionOutcome = "planned") -> Action:
        return Action(
            sandbox_id=record.id, action=does, why=why, host=record.host, extension=record.extension, outcome=outcome
        )

    if record.state == State.DESTROYED:
        return None  # an overlapping run was faster
    if record.state in (State.EXPIRED, State.DESTROYING):
        return action("destroy", "its teardown has not finished")
    if record.expires_at is None:
        return _unpaid(services, record, action)
    if record.expires_at > services.clock():
        return None
    if record.state == State.FAILED:
        return action("destroy", f"failed, and kept until {rfc3339(record.expires_at)}")
    if services.leases.active(record.id):
        return action("expire", "its TTL is over, but it is in use", "skipped")
    return action("expire", f"its TTL was over at {rfc3339(record.expires_at)}")


def _unpaid(services: Services, record: Sandbox, action: Callable[..., Action]) -> Action | None:
    """What follows from the money of a sandbox without a TTL."""
    try:
        found = billing.funding_due(services, record)
    except SandboxerError as error:  # a book that cannot be used is no reason to end anything
        return msgspec.structs.replace(action("fund", error.message, "failed"), error=error.document())
    if found is None:
        return None
    if isinstance(found, Metering):
        return action("fund", f"it has no TTL, and is paid for up to {rfc3339(found.funded_until)} then")
    if services.leases.active(record.id):
        return action("expire", f"{found}; but it is in use", "skipped")
    return action("expire", found)


def _expire_one(services: Services, action: Action) -> Action:
    sandbox_id = action.sandbox_id
    if sandbox_id is None or action.outcome != "planned":
        return action
    lock = services.locks.try_acquire(sandbox_id)
    if lock is None:
        return msgspec.structs.replace(action, outcome="skipped", why="another command is working on it")
    with lock:
        if action.action == "note":
            return note_presence(services, action)
        # The decision is made again under the lock and the lease guard: a renewal or a new use since then wins.
        with services.leases.guard(sandbox_id):
            record = services.store.get(sandbox_id)
            again = None if record is None else _due(services, record)
            if record is None or again is None:
                return msgspec.structs.replace(action, outcome="skipped", why="renewed or gone meanwhile")
            if again.outcome != "planned":
                return again
            if again.action == "fund":
                return _fund(services, record, again)
            if record.state not in (State.EXPIRED, State.DESTROYING, State.FAILED):
                try:
                    services.move(sandbox_id, Trigger.EXPIRE)
                except Conflict:  # somebody wished it gone just now, and waits for our lock to see to it
                    return msgspec.structs.replace(action, outcome="skipped", why="destroyed meanwhile")
        return finish_teardown(services, again)


def _fund(services: Services, record: Sandbox, action: Action) -> Action:
    """Pay further ahead; the caller holds the lock. When there is no money after all, the next run says so."""
    try:
        found = billing.funding_due(services, record)
        if isinstance(found, Metering):
            billing.pay_ahead(services, record, found)
    except SandboxerError as error:
        return msgspec.structs.replace(action, outcome="failed", error=error.document())
    return msgspec.structs.replace(action, outcome="done")
