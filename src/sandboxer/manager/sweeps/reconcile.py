"""Reconcile every record, and every labelled resource, with what the backends really show."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sandboxer.errors import SandboxerError
from sandboxer.extensions.base import Status
from sandboxer.locks import owner_state
from sandboxer.manager import billing, destroy
from sandboxer.manager.destroy import finish_teardown
from sandboxer.manager.presence import (
    last_seen_alive,
    may_be_stopped,
    note_presence,
    presence_change,
    record_presence,
)
from sandboxer.manager.run import abandoned
from sandboxer.manager.services import Services
from sandboxer.manager.snapshots.ends import settle_snapshots
from sandboxer.manager.sweeps.report import (
    Action,
    ActionKind,
    Remaining,
    Report,
    caught,
    failed_action,
    location_lane,
    run_in_lanes,
    sweep_report,
)
from sandboxer.manager.sweeps.stale import find_stale, reap_stale
from sandboxer.manager.ttl import with_provider_end
from sandboxer.models import Sandbox
from sandboxer.payments.usage import closed
from sandboxer.state import ESTABLISHED, State, Trigger
from sandboxer.timing import Deadline, rfc3339

MASS_COUNT = 5
MASS_SHARE = 0.2
"""A sweep that would remove more than this many and more than this share of what is known stops and asks."""


def reconcile(services: Services, *, apply: bool, force: bool = False, grace: float) -> Report:
    """Settle every record, then look for resources of ours without a live record."""
    records = services.store.list()
    looked = run_in_lanes(records, lambda record: look_at(services, record, grace), lane=location_lane)
    planned = [item for item in looked if isinstance(item, Action)]
    remaining = [item for item in looked if isinstance(item, Remaining)]
    strays, unseen, shown = find_stale(services, records, grace)
    remaining += unseen
    known = len(records) + shown
    removals = len(strays) + sum(1 for action in planned if action.action == "fail")
    if too_many(removals, known) and not force:
        held = [*strays, *(action for action in planned if action.action == "fail")]
        remaining += [
            Remaining(
                why=f"{action.why}; {removals} of {known} would go at once: use --force if that is right",
                host=action.host,
                extension=action.extension,
                sandbox_id=action.sandbox_id,
            )
            for action in held
        ]
        planned, strays = [action for action in planned if action.action != "fail"], []
    if not apply:
        unsettled, unusable = billing.settle_open(services, grace=grace, apply=False)
        snapshots, unknown = settle_snapshots(services, grace=grace, apply=False)
        actions = [*planned, *strays, *unsettled, *snapshots]
        return Report(actions=actions, remaining=[*remaining, *unusable, *unknown])
    done = run_in_lanes(
        planned, lambda action: done_safely(action, lambda: settle_record(services, action, grace)), lane=location_lane
    )
    done += run_in_lanes(
        strays, lambda action: done_safely(action, lambda: reap_stale(services, action)), lane=location_lane
    )
    settled, unusable = billing.settle_open(services, grace=grace)
    snapshots, unknown = settle_snapshots(services, grace=grace, apply=True)
    report = sweep_report([*done, *settled, *snapshots])
    return msgspec.structs.replace(report, remaining=[*remaining, *report.remaining, *unusable, *unknown])


def done_safely(action: Action, do: Callable[[], Action]) -> Action:
    return caught(do, lambda error: failed_action(action, error))


def too_many(removals: int, known: int) -> bool:
    """Whether a sweep is about to remove so much that a person should look first (promise 6)."""
    return removals > MASS_COUNT and removals > MASS_SHARE * known


def look_at(services: Services, record: Sandbox, grace: float) -> Action | Remaining | None:
    """What should happen to one record; nothing while its owner lives and works on it."""
    lock = services.locks.try_acquire(record.id)
    if lock is None:
        return None
    with lock:
        return caught(lambda: _judge(services, record.id, grace), lambda error: _remains(record, error.message, error))


def _judge(services: Services, sandbox_id: str, grace: float) -> Action | Remaining | None:
    """The same, from its state, its owner, and what the backend shows; the caller holds the sandbox's lock."""
    record = services.store.get(sandbox_id)
    if record is None or record.state == State.DESTROYED:
        return None

    def action(does: ActionKind, why: str) -> Action:
        return Action(sandbox_id=sandbox_id, action=does, why=why, host=record.host, extension=record.extension)

    if record.state in (State.PROVISIONING, State.EXPIRED, State.DESTROYING):
        if not _orphaned(record, grace, services.clock()):
            return _remains(record, "it is not certain that its owner is dead; wait for the grace period")
        if record.state == State.PROVISIONING:
            return action("take-back", "its creator died before it was ready")
        return action("destroy", "its teardown has not finished")
    if record.state == State.FAILED:
        return None if record.clean or record.request.keep_failed else action("take-back", "failed, not clean")
    if (left := abandoned(services, record, grace=grace)) is not None:
        return action("destroy", left)
    status = _status(services, record)
    if status.presence == "absent":
        return action("fail", "the backend has lost it")
    if status.presence == "unknown":
        return _remains(record, status.detail or "the backend could not be asked")
    if status.broken:
        return action("fail", f"half of it is gone: {status.detail}")
    shorter = with_provider_end(record, status.ends_at, slack=services.limits.provider_end)
    if shorter is not record:
        return action("shorten", f"its provider ends it at {rfc3339(shorter.expires_at)}, earlier than was agreed")
    changed = presence_change(record, status) if may_be_stopped(services, record) else None
    return None if changed is None else action("note", changed)


def _remains(record: Sandbox, why: str, error: SandboxerError | None = None) -> Remaining:
    return Remaining(
        sandbox_id=record.id,
        why=why,
        host=record.host,
        extension=record.extension,
        error=error.document() if error else None,
    )


def _orphaned(record: Sandbox, grace: float, now: float) -> bool:
    """Whether nobody works on a record whose lock is free. The lock proves it on this machine; a record that another
    machine wrote (a shared data directory) is given the grace period."""
    if record.owner is None:
        return True
    return owner_state(record.owner) != "unknown" or now - record.created_at > grace


def _status(services: Services, record: Sandbox) -> Status:
    deadline = Deadline(services.limits.inspect)
    context = services.context(record, deadline)
    context.host.connect(deadline)
    extension = services.extension(record)
    if record.handle is None:
        return Status("absent") if extension.find(record.id, context) is None else Status("running")
    return extension.status(record.handle, context)


def settle_record(services: Services, action: Action, grace: float) -> Action:
    assert action.sandbox_id is not None  # noqa: S101 - _judge makes actions of records only
    lock = services.locks.try_acquire(action.sandbox_id)
    if lock is None:
        return msgspec.structs.replace(action, outcome="skipped", why="another command is working on it")
    with lock:
        again = _judge(services, action.sandbox_id, grace)
        if not isinstance(again, Action) or again.action != action.action:
            return msgspec.structs.replace(action, outcome="skipped", why="settled meanwhile")
        if action.action == "destroy":
            return _finish(services, action, grace)
        if action.action == "shorten":
            return _shorten(services, action)
        if action.action == "note":
            return note_presence(services, action)
        return _fail(services, action)


def _finish(services: Services, action: Action, grace: float) -> Action:
    """Finish a teardown, or take away what was made for one command; the caller holds the lock."""
    assert action.sandbox_id is not None  # noqa: S101 - see settle_record
    with services.leases.guard(action.sandbox_id):  # whoever uses it since then has it
        record = services.current(action.sandbox_id)
        if record.state in ESTABLISHED and abandoned(services, record, grace=grace) is None:
            return msgspec.structs.replace(action, outcome="skipped", why="used meanwhile")
        destroy.request_destroy(services, action.sandbox_id)
    return finish_teardown(services, action)


def _shorten(services: Services, action: Action) -> Action:
    """Record the end that the provider has set."""
    assert action.sandbox_id is not None  # noqa: S101 - see settle_record
    record = services.current(action.sandbox_id)
    status = _status(services, record)
    ends_at = status.ends_at
    record_presence(services, record, status, settles=True)  # it may run again, with that end
    slack = services.limits.provider_end
    services.edit(action.sandbox_id, lambda now: with_provider_end(now, ends_at, slack=slack))
    return msgspec.structs.replace(action, outcome="done")


def _fail(services: Services, action: Action) -> Action:
    """Take back what is left of a record and mark it failed; it keeps its error until its failure TTL is over."""
    assert action.sandbox_id is not None  # noqa: S101 - see settle_record
    record = services.current(action.sandbox_id)
    rest = destroy.rollback(services, record, seconds=services.limits.rollback)
    code = "interrupted" if action.action == "take-back" else "backend_error"
    document = record.error or {
        "code": code,
        "message": action.why,
        "hint": "create it again, or `sandboxer destroy` it",
        "retryable": True,
        "outcome": "failed",
        "sandbox_id": record.id,
    }

    if rest is None:
        document = destroy.settled_error(document)

    def failed(now: Sandbox) -> Sandbox:
        if action.action == "fail" and now.wished_at is not None and (alive := last_seen_alive(now)) is not None:
            # Nothing is charged beyond the real end, and nobody knows when after the last look that was.
            now = msgspec.structs.replace(now, wished_at=min(now.wished_at, alive))
        expires = now.expires_at if now.state == State.FAILED else services.clock() + now.failed_ttl
        after = msgspec.structs.replace(now, error=document, clean=rest is None, owner=None, expires_at=expires)
        return closed(after, at=services.clock()) if rest is None else after

    if record.state == State.FAILED:
        after = services.edit(record.id, failed)
    else:
        after = services.move(record.id, Trigger.FAIL, edit=failed, must_succeed=True)
    billing.settle(services, after)
    if rest is not None:
        return msgspec.structs.replace(action, outcome="failed", error=rest.document())
    return msgspec.structs.replace(action, outcome="done")
