"""Record whether the backend of a sandbox runs it or has it stopped, whoever did that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec

from sandboxer.errors import Conflict, Internal, SandboxerError, Unavailable
from sandboxer.extensions.base import CanStop, Status
from sandboxer.manager.services import Services
from sandboxer.manager.sweeps.report import Action
from sandboxer.models import LastSeen, Sandbox
from sandboxer.payments.prices import priced
from sandboxer.payments.usage import with_billed
from sandboxer.state import ESTABLISHED, State, Trigger
from sandboxer.timing import Deadline


def with_presence(record: Sandbox, status: Status, *, at: float) -> Sandbox:
    """The record with what its backend showed at `at` (unix seconds); as it was where that is `unknown`. Pure."""
    if status.presence == "unknown":
        return record
    before = record.last_seen
    same = before is not None and before.presence == status.presence
    since = before.since if before is not None and same else at
    if before is None and status.presence == "running" and record.ready_at is not None:
        since = record.ready_at  # that is when it was seen to run first
    seen = LastSeen(presence=status.presence, detail=status.detail or status.presence, since=since, at=at)
    after = msgspec.structs.replace(record, last_seen=seen)
    metering = record.metering
    if metering is None or status.presence == "absent":
        return after
    if status.presence == "running":
        return with_billed(after, status.billed, at=at)
    if status.billed is None or not priced(metering.prices, status.billed):
        return after  # it is not known what is billed for, and so what was is
    return with_billed(after, status.billed, at=at)


def presence_change(record: Sandbox, status: Status) -> str | None:
    """What a record does not say yet of what its backend shows, for people; None: nothing. Pure."""
    if record.state not in ESTABLISHED:
        return None
    if record.intent is not None and status.presence in ("running", "stopped"):
        return f"its {record.intent} was begun and not finished: it is {status.detail or status.presence}"
    if status.is_stopped and record.state != State.STOPPED:
        return f"it is {status.detail or 'stopped'}, and not by a command of sandboxer"
    if status.is_stopped and bills_otherwise(record, status):
        return f"it is {status.detail or 'stopped'}, for which something else is billed"
    if status.presence == "running" and record.state == State.STOPPED:
        return "it was stopped, and runs again"
    if status.ended_itself and record.state == State.STOPPED:
        return f"it was stopped, and is not any more: {status.detail}"
    return None


def bills_otherwise(record: Sandbox, status: Status) -> bool:
    """Whether its backend bills from now on for something else than the record says. Pure."""
    at = 0.0 if record.last_seen is None else record.last_seen.at
    return with_presence(record, status, at=at).reduced_billing != record.reduced_billing


def last_seen_alive(record: Sandbox) -> float | None:
    """When a sandbox was known to run last, in unix seconds; None where nobody has looked since it was ready. Pure."""
    seen = record.last_seen
    if seen is None or seen.presence == "absent" or record.ready_at is None:
        return None
    return max(record.ready_at, record.last_active_at or record.ready_at, seen.at)


def record_presence(services: Services, record: Sandbox, status: Status, *, settles: bool = False) -> Sandbox:
    """Record what was shown of `record` a moment ago, and let its state follow. Nothing is recorded where it is not
    known, where somebody else has recorded another look since `record` was read (theirs is newer), nor while it is
    being stopped or started; but by who `settles` that, and holds the sandbox's lock."""
    if status.presence == "unknown" or record.state not in ESTABLISHED:
        return record
    at = services.clock()

    def edit(now: Sandbox) -> Sandbox:
        if now.last_seen != record.last_seen:
            raise Conflict(f"sandbox {now.id} was looked at meanwhile", hint=f"run `sandboxer get {now.id}`")
        if now.intent is not None and not settles:
            raise Conflict(f"a {now.intent} of sandbox {now.id} is under way", hint=f"run `sandboxer get {now.id}`")
        return msgspec.structs.replace(with_presence(now, status, at=at), intent=None)

    with suppress(Conflict):  # or it has begun to end meanwhile
        if status.presence == "absent" or not may_be_stopped(services, record):
            # `reconcile` settles the one; of the other the state says whether it can be used, which it goes on to say
            return services.edit(record.id, edit)
        signal = Trigger.STOPPED if status.is_stopped else Trigger.STARTED
        return services.move(record.id, signal, edit=edit)
    return services.current(record.id)


def look(services: Services, record: Sandbox, deadline: Deadline | None = None) -> Status:
    """Ask the backend about one sandbox; `unknown` where it does not say by the deadline (`Limits.refresh`)."""
    deadline = deadline or Deadline(services.limits.refresh)
    try:
        extension = services.extension(record)
        context = services.context(record, deadline)
        context.host.connect(deadline)
        if record.handle is None:
            return Status("absent") if extension.find(record.id, context) is None else Status("running")
        return extension.status(record.handle, context)
    except SandboxerError as error:
        return Status("unknown", error.message)
    except Exception as error:  # noqa: BLE001 - a bug in an adapter must not hide what led to this look
        return Status("unknown", f"{type(error).__name__}: {error}")


def refresh(services: Services, record: Sandbox) -> Sandbox:
    """Ask the backend whether it runs a sandbox, and record that; one that is on its way or has ended is as the record
    says. Raises Unavailable when the backend does not say."""
    if record.state not in ESTABLISHED:
        return record
    status = look(services, record)
    if status.presence == "unknown":
        raise Unavailable(
            f"it cannot be told whether sandbox {record.id} runs: {status.detail or 'no answer'}",
            hint=f"`sandboxer get {record.id}` shows what was last known",
            sandbox_id=record.id,
        )
    lock = services.locks.try_acquire(record.id)
    if lock is None:
        return record_presence(services, record, status)
    with lock:  # nobody stops or starts it: what was begun with it was left
        return record_presence(services, record, status, settles=True)


@contextmanager
def stop_noticed(services: Services, record: Sandbox) -> Iterator[None]:
    """Let a verb of the block that fails because the backend has the sandbox stopped leave that in the record. The
    error is raised all the same."""
    try:
        yield
    except Conflict as error:
        if is_stopped(error):
            with suppress(SandboxerError):  # the verb's own error is what counts
                _notice(services, record, error)
        raise


def is_stopped(error: SandboxerError) -> bool:
    """Whether a backend refuses because it has the sandbox stopped."""
    return (error.details or {}).get("presence") == "stopped"


def _notice(services: Services, record: Sandbox, error: SandboxerError) -> None:
    status = look(services, record)
    if status.presence == "unknown":
        status = Status("stopped", str((error.details or {}).get("state", "stopped")))
    record_presence(services, record, status)


def may_be_stopped(services: Services, record: Sandbox) -> bool:
    """Whether its backend is one that stops sandboxes; False too where it is not there to be asked."""
    if record.state not in ESTABLISHED:
        return False
    try:
        return isinstance(services.extension(record), CanStop)
    except SandboxerError:
        return False


def noted_action(record: Sandbox, why: str) -> Action:
    """The action that records whether a sandbox runs."""
    return Action(sandbox_id=record.id, action="note", why=why, host=record.host, extension=record.extension)


def note_presence(services: Services, action: Action) -> Action:
    """Record for a sweep whether a sandbox runs; the caller holds its lock."""
    if action.sandbox_id is None:
        raise Internal("there is nothing to note of no sandbox")
    record = services.current(action.sandbox_id)
    status = look(services, record)
    if presence_change(record, status) is None:
        return msgspec.structs.replace(action, outcome="skipped", why="changed meanwhile")
    record_presence(services, record, status, settles=True)
    return msgspec.structs.replace(action, outcome="done")
