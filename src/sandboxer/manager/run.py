"""Run a command in a sandbox of its own: established for it, and destroyed whatever comes of it.

The record names the process that runs it (`ends_with`), so that a sweep takes away what a killed one has left."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import msgspec

from sandboxer.errors import Conflict, Interruption, SandboxerError, Timeout, Unavailable, Unsupported
from sandboxer.extensions.base import CanExec, Exec
from sandboxer.hosts.base import Streams
from sandboxer.locks import owner_state
from sandboxer.manager.destroy import await_life
from sandboxer.manager.exec import check_exec
from sandboxer.manager.services import Progress, Services
from sandboxer.models import Sandbox, Value
from sandboxer.state import ESTABLISHED, State
from sandboxer.timing import Deadline

if TYPE_CHECKING:
    from sandboxer.manager.establish.plan import CreatePlan
    from sandboxer.manager.manager import SandboxManager

StreamsFor = Callable[[Sandbox], AbstractContextManager[Streams]]
"""The streams of the command, for as long as it runs, once its sandbox is ready."""


class OneShot(Value, frozen=True, kw_only=True):
    """How a run ended: the command's exit code, and the record of its sandbox after it."""

    exit_code: int
    record: Sandbox


def run(
    manager: SandboxManager,
    plan: CreatePlan,
    request: Exec,
    streams: StreamsFor,
    *,
    timeout: float | None,
    keep: bool,
    progress: Progress,
) -> OneShot:
    """Establish, run, destroy; see `SandboxManager.run`. Raises what the first two raised, once the sandbox is gone as
    far as it could be; and what kept the third from being done."""
    check_run(manager.services, plan, request)
    deadline = Deadline(timeout or plan.request.timeout)
    plan = plan if keep else msgspec.structs.replace(plan, one_shot=True)
    pending = manager.begin(plan)
    if isinstance(pending, Sandbox):
        raise Conflict(
            f"the idempotency key was used before: it gave sandbox {pending.id}, which is {pending.state}",
            hint="a command is run once for a key; use a new key to run it again",
            sandbox_id=pending.id,
        )
    sandbox_id, code = pending.record.id, None
    try:
        record = manager.carry_out(plan, pending, timeout=deadline.left(), progress=progress)
        with streams(record) as given:
            code = manager.exec(sandbox_id, request, given, wanted=deadline)
        if not keep:
            record = manager.destroy(sandbox_id)
    except BaseException as error:
        if code is not None and isinstance(error, SandboxerError):
            raise _not_destroyed(error, code) from error
        if isinstance(error, SandboxerError | Interruption):
            error.sandbox_id = error.sandbox_id or sandbox_id
        if not keep:
            _take_away(manager, sandbox_id, error, keep_failed=plan.request.keep_failed)
        elif isinstance(error, Interruption):
            error.left = error.left or "stays"
        raise
    return OneShot(exit_code=code, record=record)


def check_run(services: Services, plan: CreatePlan, request: Exec) -> None:
    """Raise what is known to keep the command from running before anything is created."""
    check_exec(request)
    # the others of a route are not even imported: they may lack a package that nobody needs here
    if plan.candidates and not isinstance(services.extensions.get(plan.extension), CanExec):
        raise Unsupported(f"{plan.extension} has no exec", hint=f"run `sandboxer extensions show {plan.extension}`")


def abandoned(services: Services, record: Sandbox, *, grace: float) -> str | None:
    """Why a sandbox that was made for one command is not wanted any more: its process has died, or, where that cannot
    be proved from here, nobody has used it for the grace period. To decide on it, ask inside the lease guard."""
    if record.ends_with is None or record.state not in ESTABLISHED or services.leases.active(record.id):
        return None
    lives = owner_state(record.ends_with)
    if lives == "alive":
        return None
    seen = max(record.ready_at or record.created_at, services.leases.last_active(record.id) or 0)
    if lives == "unknown" and services.clock() - seen <= grace:
        return None
    return "it was made for one command, and the process that ran it has ended without destroying it"


def _take_away(manager: SandboxManager, sandbox_id: str, error: BaseException, *, keep_failed: bool) -> None:
    """Destroy it after an error; the request is durable before anything else. What cannot be destroyed in time is told
    by the error, and left to a sweep."""
    services = manager.services
    try:
        record = services.current(sandbox_id)
        if record.state == State.FAILED and not record.clean:
            if not keep_failed:
                manager.request_destroy(sandbox_id)  # it was tried just now
            return
        seconds = services.limits.destroy
        if isinstance(error, Interruption):
            seconds = services.limits.quick_rollback
        elif isinstance(error, Timeout | Unavailable) and record.state != State.FAILED:
            # the time is up: only for a place that shows that it is there is it worth going on
            manager.request_destroy(sandbox_id)
            await_life(services, record, Deadline(services.limits.rollback_grace))
        manager.destroy(sandbox_id, timeout=seconds)
    except SandboxerError as rest:
        _tell_rest(error, rest)
    else:
        if isinstance(error, Interruption):
            error.left = error.left or "destroyed"


def _tell_rest(error: BaseException, rest: SandboxerError) -> None:
    if isinstance(error, Interruption):
        error.left = "unknown" if error.left is not None else "going"
    elif isinstance(error, SandboxerError):
        error.outcome = "unknown"
        error.details = {**(error.details or {}), "destroy": rest.message}


def _not_destroyed(error: SandboxerError, code: int) -> SandboxerError:
    """What is raised when the command has ended and its sandbox could not be destroyed: never a Timeout, which would
    speak of the command."""
    told = Unavailable(error.message, hint=error.hint) if isinstance(error, Timeout) else error
    told.message = f"the command ended with {code}; its sandbox could not be destroyed: {error.message}"
    told.hint = "run `sandboxer reconcile --apply`; " + told.hint
    told.sandbox_id, told.outcome = error.sandbox_id, "unknown"
    told.details = {**(error.details or {}), "exit_code": code}
    return told
