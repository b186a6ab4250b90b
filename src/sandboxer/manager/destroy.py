"""Destroy a sandbox: the request is durable first, then teardown, and only a verified absence ends a record."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from sandboxer.errors import Conflict, Internal, SandboxerError, Unavailable
from sandboxer.manager import billing
from sandboxer.manager.services import Progress, Services, no_progress
from sandboxer.manager.sweeps.report import Action, location_of
from sandboxer.manager.sweeps.silent_hosts import SilentHosts
from sandboxer.models import Sandbox
from sandboxer.state import State, Trigger
from sandboxer.timing import Deadline


def destroy(services: Services, sandbox_id: str, deadline: Deadline, progress: Progress = no_progress) -> Sandbox:
    """Destroy a sandbox in whatever state it is; a destroyed one stays as it is. Raises what the teardown raised:
    the record is then kept, in `destroying`."""
    record = request_destroy(services, sandbox_id)
    if record.state == State.DESTROYED:
        _leave_nothing(services, record, progress)  # whoever ended it may have died before this
        return record
    with services.locks.acquire(sandbox_id, deadline, f"destroying sandbox {sandbox_id}"):
        return finish_destroy(services, sandbox_id, deadline, progress)


def request_destroy(services: Services, sandbox_id: str) -> Sandbox:
    """Record that it shall go. From here on nothing is charged, and its owner, if it has one, gives up."""
    return services.move(sandbox_id, Trigger.DESTROY, must_succeed=True)


def finish_destroy(
    services: Services, sandbox_id: str, deadline: Deadline, progress: Progress = no_progress
) -> Sandbox:
    """Tear down and end the record; the caller holds the sandbox's lock and the wish is recorded."""
    record = services.current(sandbox_id)
    if record.state == State.DESTROYED:
        _leave_nothing(services, record, progress)
        return record
    if record.state != State.DESTROYING:
        raise Conflict(f"sandbox {sandbox_id} is {record.state}", hint=f"run `sandboxer destroy {sandbox_id}`")
    metering = record.metering
    if not record.clean:
        progress("destroy", location_of(record))
        metering = billing.latest_metering(services, record, deadline)
        try:
            _teardown(services, record, deadline, progress)
        except SandboxerError as error:
            error.sandbox_id, error.outcome = sandbox_id, "unknown"  # what of it is left may be seen another time
            _remember(services, record, error)
            raise
    _forget_leases(services, sandbox_id)
    at = services.clock()

    def gone(now: Sandbox) -> Sandbox:
        last = msgspec.structs.replace(now, destroyed_at=at, clean=True, owner=None, error=_last_error(now))
        return billing.with_usage(last, at=at, metering=metering)

    ended = services.move(
        sandbox_id, Trigger.GONE, edit=gone, more=partial(billing.usage_events, services), must_succeed=True
    )
    billing.settle(services, ended, progress)
    return ended


def finish_teardown(services: Services, action: Action, silent: SilentHosts | None = None) -> Action:
    """Finish a destroy for a sweep; the caller holds the lock. What is on a host that is `silent` is not tried."""
    assert action.sandbox_id is not None  # noqa: S101 - a sweep plans it for a record only
    try:
        record = request_destroy(services, action.sandbox_id)
        if silent is not None and not record.clean:
            _reach(services, record, silent)
        finish_destroy(services, action.sandbox_id, Deadline(services.limits.sweep_one))
    except SandboxerError as error:
        return msgspec.structs.replace(action, outcome="failed", error=error.document())
    return msgspec.structs.replace(action, outcome="done")


def _reach(services: Services, record: Sandbox, silent: SilentHosts) -> None:
    try:
        silent.reach(services, record.host)
    except SandboxerError as error:
        error.sandbox_id, error.outcome = record.id, "unknown"
        _remember(services, record, error)
        raise


def _leave_nothing(services: Services, record: Sandbox, progress: Progress) -> None:
    """What the end of a sandbox leaves to be done, again if need be."""
    _forget_leases(services, record.id)
    billing.settle(services, record, progress)


def _forget_leases(services: Services, sandbox_id: str) -> None:
    with suppress(SandboxerError):  # they hold nothing any more, and must not keep what has ended from being recorded
        services.leases.forget(sandbox_id)


def rollback(
    services: Services, record: Sandbox, *, seconds: float, answer_by: Deadline | None = None
) -> SandboxerError | None:
    """Remove whatever a create has made so far; the error when that could not be done and verified. With `answer_by`
    the host or provider is asked for a sign of life first, which has to come by then."""
    deadline = Deadline(seconds)
    try:
        if answer_by is not None:
            await_life(services, record, answer_by.shorter(deadline.left()))
        _teardown(services, record, deadline, no_progress)
    except SandboxerError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a bug in a teardown must not hide the error that led to it
        return Internal(f"{type(error).__name__}: {error}")
    return None


def await_life(services: Services, record: Sandbox, deadline: Deadline) -> None:
    """Have the place of a record say anything at all; raises Unavailable or Timeout when it does not."""
    if record.host is not None:
        services.open_host(record.host).run(["true"], deadline)
        return
    extension, context = services.extension(record), services.context(record, deadline)
    if record.handle is None:
        extension.find(record.id, context)
    elif extension.status(record.handle, context).presence == "unknown":
        raise Unavailable(f"{record.extension} did not answer", hint="run `sandboxer reconcile --apply` when it does")


def _teardown(services: Services, record: Sandbox, deadline: Deadline, progress: Progress) -> None:
    """Free everything of a record. Without a handle (a crash inside provision) the backend is asked what there is."""
    extension = services.extension(record)
    context = services.context(record, deadline, progress=progress)
    context.host.connect(deadline)
    handle = record.handle if record.handle is not None else extension.find(record.id, context)
    if handle is None:
        return
    extension.teardown(handle, context)


def _remember(services: Services, record: Sandbox, error: SandboxerError) -> None:
    document = error.document()
    services.edit(record.id, lambda now: msgspec.structs.replace(now, error=document))


def _last_error(record: Sandbox) -> dict[str, Any] | None:
    """What there is to say of a sandbox that is gone for certain: why it failed, but not why an earlier teardown did,
    nor that something may exist."""
    if record.error is None or record.error.get("outcome") != "unknown":
        return record.error
    return None if record.ready_at is not None else settled_error(record.error)


def settled_error(document: Mapping[str, Any]) -> dict[str, Any]:
    """The error of a create of which nothing is left for certain: not what kept that from being certain before."""
    details = {name: value for name, value in (document.get("details") or {}).items() if name != "rollback"}
    settled = {**document, "outcome": "failed", "details": details}
    return settled if details else {name: value for name, value in settled.items() if name != "details"}
