"""Stop a sandbox at its backend, and start it again: what is meant is durable first, and what a crash leaves in between
is settled by what the backend shows, at the next `reconcile`, `expire` or `get --refresh`."""

from __future__ import annotations

from typing import Literal

import msgspec

from sandboxer.errors import BackendError, Conflict, SandboxerError
from sandboxer.extensions.base import CanStop, Context, Status
from sandboxer.manager.copies import path_checks
from sandboxer.manager.exec import lacks_capability
from sandboxer.manager.presence import look, record_presence
from sandboxer.manager.services import Progress, Services, no_progress
from sandboxer.manager.sweeps.report import location_of
from sandboxer.models import Handle, Ready, Sandbox
from sandboxer.state import ESTABLISHED
from sandboxer.timing import Deadline, rfc3339

_WANTED: dict[str, Status] = {"start": Status("running"), "stop": Status("stopped")}


def stop(services: Services, sandbox_id: str, deadline: Deadline, progress: Progress = no_progress) -> Sandbox:
    """Have the backend keep a sandbox without running it, also while it is in use; again is fine."""
    return _change(services, sandbox_id, "stop", deadline, progress)


def start(services: Services, sandbox_id: str, deadline: Deadline, progress: Progress = no_progress) -> Sandbox:
    """Have the backend run a sandbox again, up to the end that is agreed; one that runs is success."""
    return _change(services, sandbox_id, "start", deadline, progress)


def check_change(record: Sandbox, verb: Literal["start", "stop"], *, now: float) -> None:
    """Raise Conflict where a sandbox cannot be stopped, or started, at `now` (unix seconds). Pure."""
    if record.state not in ESTABLISHED:
        raise Conflict(
            f"sandbox {record.id} is {record.state}",
            hint=f"run `sandboxer get {record.id}` to see why",
            sandbox_id=record.id,
        )
    if verb == "start" and record.expires_at is not None and record.expires_at <= now:
        raise Conflict(
            f"the TTL of sandbox {record.id} was over at {rfc3339(record.expires_at)}",
            hint=f"run `sandboxer extend-ttl {record.id} --duration 1h`",
            sandbox_id=record.id,
        )


def _change(
    services: Services, sandbox_id: str, verb: Literal["start", "stop"], deadline: Deadline, progress: Progress
) -> Sandbox:
    record = services.current(sandbox_id)
    check_change(record, verb, now=services.clock())  # before the wait for whoever works on it
    _stopping(services, record, verb)
    with services.locks.acquire(sandbox_id, deadline, f"{verb} of sandbox {sandbox_id}"):
        intend(services, sandbox_id, verb)
        return carry_out(services, sandbox_id, verb, deadline, progress)


def carry_out(
    services: Services,
    sandbox_id: str,
    verb: Literal["start", "stop"],
    deadline: Deadline,
    progress: Progress = no_progress,
) -> Sandbox:
    """Do what is meant with a sandbox (`intend`), and record what came of it; the caller holds its lock."""
    record = services.current(sandbox_id)
    extension = _stopping(services, record, verb)
    if record.handle is None:
        raise Conflict(f"sandbox {sandbox_id} has no handle", hint="run `sandboxer reconcile`")
    progress(verb, location_of(record))
    path_checks.check_sandbox_paths(services, record)
    context = services.context(record, deadline, progress=progress, save=lambda handle: _save(services, record, handle))
    try:
        if verb == "stop":
            extension.stop(record.handle, context)
        else:
            _start(services, record, extension, context)
    except SandboxerError as error:
        return _failed(services, sandbox_id, verb, error)
    return _done(services, sandbox_id, verb)


def _stopping(services: Services, record: Sandbox, verb: Literal["start", "stop"]) -> CanStop:
    extension = services.extension(record)
    if not isinstance(extension, CanStop):
        raise lacks_capability(record, verb)
    return extension


def intend(services: Services, sandbox_id: str, verb: Literal["start", "stop"]) -> Sandbox:
    """Record what is meant with a sandbox; the caller holds its lock. Raises Conflict where it cannot be."""

    def edit(now: Sandbox) -> Sandbox:
        check_change(now, verb, now=services.clock())
        return msgspec.structs.replace(now, intent=verb)

    return services.edit(sandbox_id, edit)


def _start(services: Services, record: Sandbox, extension: CanStop, context: Context) -> None:
    """Start it with the end that is agreed, which may be moved meanwhile."""
    given = record
    while True:
        assert given.handle is not None  # noqa: S101 - _change has looked
        _note_reached(services, record.id, extension.start(given.handle, given.expires_at, context))
        now = services.current(record.id)
        if now.expires_at == given.expires_at or now.handle is None:
            return
        given = now


def _note_reached(services: Services, sandbox_id: str, ready: Ready | None) -> None:
    if ready is not None:
        services.edit(sandbox_id, lambda now: msgspec.structs.replace(now, reachability=ready.reachability))


def _save(services: Services, record: Sandbox, handle: Handle) -> None:
    services.edit(record.id, lambda now: msgspec.structs.replace(now, handle=handle))


def _done(services: Services, sandbox_id: str, verb: Literal["start", "stop"]) -> Sandbox:
    """Record what follows from an effect that was answered."""
    record = services.current(sandbox_id)
    status = look(services, record)
    if status.presence == "unknown":
        status = _WANTED[verb]
    after = record_presence(services, record, status, settles=True)
    check_change(after, "stop", now=services.clock())  # somebody may have asked it to go meanwhile
    if not _reached(verb, status):
        raise BackendError(
            f"{location_of(record)} answered to a {verb}, and shows sandbox {sandbox_id} {status.presence}",
            hint=f"run `sandboxer get --refresh {sandbox_id}`",
            sandbox_id=sandbox_id,
        )
    return after


def _reached(verb: Literal["start", "stop"], status: Status) -> bool:
    """Whether it is as the verb has it. All that a start has started may have ended by itself since."""
    return status.is_stopped if verb == "stop" else status.presence == "running" or status.ended_itself


def _failed(services: Services, sandbox_id: str, verb: Literal["start", "stop"], error: SandboxerError) -> Sandbox:
    """Record what is there after a failure, and raise it; but for a stop whose answer was lost. Where nothing can be
    seen the intent stays."""
    record = services.current(sandbox_id)
    status = look(services, record)
    error.sandbox_id = error.sandbox_id or sandbox_id
    error.outcome = "unknown" if status.presence == "unknown" else "failed"
    after = record_presence(services, record, status, settles=True)
    if verb == "stop" and _reached(verb, status):
        return after
    raise error
