"""End what is over: sandboxes whose TTL has passed, and teardowns that were begun and left. Made for cron."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sandboxer.errors import Conflict, SandboxerError
from sandboxer.manager import billing
from sandboxer.manager.destroy import finish_teardown
from sandboxer.manager.run import abandoned
from sandboxer.manager.services import Services
from sandboxer.manager.stop import carry_out, intend
from sandboxer.manager.sweeps.expiring import warn, warning_due
from sandboxer.manager.sweeps.idle import idle_end
from sandboxer.manager.sweeps.provider_looks import provider_actions
from sandboxer.manager.sweeps.reconcile import settle_record
from sandboxer.manager.sweeps.report import (
    Action,
    ActionKind,
    ActionOutcome,
    Remaining,
    Report,
    caught,
    failed_action,
    location_lane,
    run_in_lanes,
    sweep_report,
)
from sandboxer.manager.sweeps.silent_hosts import SilentHosts
from sandboxer.models import Metering, Sandbox
from sandboxer.state import State, Trigger
from sandboxer.timing import Deadline, format_duration, rfc3339


def expire(services: Services, *, apply: bool) -> Report:
    """End every sandbox whose TTL is over, in use or not, and every one that was idle for too long, or whose `run` was
    killed; tell of those whose end is near; finish teardowns that were begun and left. Pay ahead for those without a
    TTL, and settle what ended and is not in the book."""
    wall, up, tolerance = services.clock(), services.uptime(), services.limits.clock_jump
    note = services.sweeps.begin if apply else services.sweeps.look
    jump = note(wall=wall, up=up, tolerance=tolerance)
    records = services.store.list()
    if jump is not None:
        return _held(services, records, jump, apply=apply)
    due = [action for record in records if (action := _seen(services, record)) is not None]
    shown, held = _provider_actions(services, records, due, apply=apply)
    due += shown
    if not apply:
        unsettled, unusable = billing.settle_open(services, grace=services.limits.stale_grace, apply=False)
        return Report(actions=[*due, *unsettled], remaining=[*held, *unusable])
    silent = SilentHosts()
    done = run_in_lanes(due, lambda action: _ended(services, action, silent), lane=location_lane)
    settled, unusable = billing.settle_open(services, grace=services.limits.stale_grace)
    report = sweep_report([*done, *settled])
    report = msgspec.structs.replace(report, remaining=[*held, *report.remaining, *unusable])
    if not report.remaining:
        services.sweeps.succeeded(wall=services.clock())
    return report


def _held(services: Services, records: Sequence[Sandbox], jump: float, *, apply: bool) -> Report:
    """The report of a run that does nothing, since the clock cannot be trusted."""
    by = f"{'forward' if jump > 0 else 'back'} by {format_duration(abs(jump))}" if jump else "just now"
    why = f"the clock jumped {by} since the last run: this one ends nothing, the next one goes on"
    due = [action for record in records if (action := _seen(services, record)) is not None]
    held = [
        msgspec.structs.replace(action, outcome="skipped", why=f"{action.why}; but the clock jumped") for action in due
    ]
    clock = Remaining(why=why, host=None, extension="clock")
    left = [
        Remaining(sandbox_id=action.sandbox_id, why=action.why, host=action.host, extension=action.extension)
        for action in held
    ]
    return Report(actions=held, remaining=[clock, *left], applied=apply)


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


def _provider_actions(
    services: Services, records: Sequence[Sandbox], due: Sequence[Action], *, apply: bool
) -> tuple[Sequence[Action], Sequence[Remaining]]:
    """What follows from what providers show of those that nothing else happens to."""
    busy = {action.sandbox_id for action in due if action.action != "warn"}
    return provider_actions(services, [record for record in records if record.id not in busy], apply=apply)


def _ended(services: Services, action: Action, silent: SilentHosts) -> Action:
    return caught(lambda: _expire_one(services, action, silent), lambda error: failed_action(action, error))


def _due(services: Services, record: Sandbox) -> Action | None:
    def action(does: ActionKind, why: str, outcome: ActionOutcome = "planned") -> Action:
        return Action(
            sandbox_id=record.id, action=does, why=why, host=record.host, extension=record.extension, outcome=outcome
        )

    if record.state == State.DESTROYED:
        return None  # an overlapping run was faster
    if record.state in (State.EXPIRED, State.DESTROYING):
        return action("destroy", "its teardown has not finished")
    now = services.clock()
    if record.expires_at is not None and record.expires_at <= now:
        if record.state == State.FAILED:
            return action("destroy", f"failed, and kept until {rfc3339(record.expires_at)}")
        return action("expire", f"its TTL was over at {rfc3339(record.expires_at)}")
    if (left := abandoned(services, record, grace=services.limits.stale_grace)) is not None:
        return action("expire", left)
    if (since := _idle_since(services, record, now)) is not None:
        does: ActionKind = "stop" if record.idle_action == "stop" else "expire"
        return action(does, f"it was idle since {rfc3339(since)}")
    if record.expires_at is None:
        return _unpaid(services, record, action)
    if warning_due(record, now=now, within=services.limits.warning):
        return action("warn", f"its TTL is over at {rfc3339(record.expires_at)}")
    return None


def _idle_since(services: Services, record: Sandbox, now: float) -> float | None:
    """Since when a sandbox was idle that was so for too long; None for all others. A command that runs in it holds a
    lease, and so does whoever asked for one; services and what a command left in the background do not."""
    end = idle_end(record, None)
    if end is None or end > now or record.idle_ttl is None:  # most are not: the leases need no look
        return None
    if services.leases.active(record.id):
        return None
    end = idle_end(record, services.leases.last_active(record.id))  # after the look, which notes ends
    return None if end is None or end > now else end - record.idle_ttl


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


def _expire_one(services: Services, action: Action, silent: SilentHosts) -> Action:
    sandbox_id = action.sandbox_id
    if sandbox_id is None or action.outcome != "planned":
        return action
    if action.action == "warn":
        if warn(services, sandbox_id):
            return msgspec.structs.replace(action, outcome="done")
        return msgspec.structs.replace(action, outcome="skipped", why="moved, or told of meanwhile")
    if action.action in ("fail", "shorten", "note"):
        return settle_record(services, action, services.limits.stale_grace)
    lock = services.locks.try_acquire(sandbox_id)
    if lock is None:
        return msgspec.structs.replace(action, outcome="skipped", why="another command is working on it")
    with lock:
        # The decision is made again under the lock and the lease guard: a renewal or a new use since then wins.
        with services.leases.guard(sandbox_id):
            record = services.store.get(sandbox_id)
            again = None if record is None else _due(services, record)
            if record is None or again is None:
                return msgspec.structs.replace(action, outcome="skipped", why="renewed or gone meanwhile")
            if again.outcome != "planned":
                return again
            if again.action == "warn":
                return msgspec.structs.replace(action, outcome="skipped", why="renewed meanwhile")
            if again.action == "fund":
                return _fund(services, record, again)
            if again.action == "stop":
                intend(services, sandbox_id, "stop")  # from here on no use begins
            elif record.state not in (State.EXPIRED, State.DESTROYING, State.FAILED):
                try:
                    services.move(sandbox_id, Trigger.EXPIRE)
                except Conflict:  # somebody wished it gone just now, and waits for our lock to see to it
                    return msgspec.structs.replace(action, outcome="skipped", why="destroyed meanwhile")
        if again.action == "stop":
            silent.reach(services, record.host)
            carry_out(services, sandbox_id, "stop", Deadline(services.limits.stop))
            return msgspec.structs.replace(again, outcome="done")
        return finish_teardown(services, again, silent)


def _fund(services: Services, record: Sandbox, action: Action) -> Action:
    """Pay further ahead; the caller holds the lock. When there is no money after all, the next run says so."""
    try:
        found = billing.funding_due(services, record)
        if isinstance(found, Metering):
            billing.pay_ahead(services, record, found)
    except SandboxerError as error:
        return msgspec.structs.replace(action, outcome="failed", error=error.document())
    return msgspec.structs.replace(action, outcome="done")
