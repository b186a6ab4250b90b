"""Run commands in a ready sandbox, copy, read logs: each under a lease, so that nothing sweeps it away meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sandboxer.errors import Conflict, Invalid, Unsupported
from sandboxer.extensions.base import CanCopy, CanExec, CanLogs, Exec
from sandboxer.hosts.base import Streams
from sandboxer.locks import Lease
from sandboxer.manager.copies import path_checks
from sandboxer.manager.presence import stop_noticed
from sandboxer.manager.quotas import exec_slot
from sandboxer.manager.services import Services
from sandboxer.models import Handle, Sandbox
from sandboxer.names import check_env_name, check_service
from sandboxer.state import USABLE, State
from sandboxer.store.base import Change, OtherRecords
from sandboxer.timing import Deadline, rfc3339

if TYPE_CHECKING:
    from sandboxer.manager.copies.copy import CopyReport


def check_usable(services: Services, sandbox_id: str) -> Sandbox:
    """The record, if it can be used now; raises Conflict."""
    record = services.current(sandbox_id)
    if record.state == State.STOPPED:
        raise stopped_error(record)
    if record.intent == "stop":  # what is begun now would be ended with it
        raise Conflict(
            f"a stop of sandbox {record.id} has begun",
            hint=f"run `sandboxer start {record.id}`",
            sandbox_id=record.id,
        )
    if record.state not in USABLE:
        raise Conflict(
            f"sandbox {record.id} is {record.state}",
            hint=f"run `sandboxer get {record.id}` to see why",
            sandbox_id=record.id,
        )
    if record.expires_at is not None and record.expires_at <= services.clock():
        raise Conflict(
            f"the TTL of sandbox {record.id} was over at {rfc3339(record.expires_at)}",
            hint=f"run `sandboxer extend-ttl {record.id} --duration 1h`",
            sandbox_id=record.id,
        )
    return record


def stopped_error(record: Sandbox) -> Conflict:
    """The error of a use of a sandbox that is known to be stopped."""
    seen = record.last_seen
    word = "stopped" if seen is None else f"{seen.detail}, since {rfc3339(seen.since)} as far as was seen"
    return Conflict(
        f"sandbox {record.id} is {word}",
        hint=f"run `sandboxer start {record.id}`",
        sandbox_id=record.id,
        details={"presence": "stopped"},
    )


@contextmanager
def leased(services: Services, sandbox_id: str, *, holder: str) -> Iterator[tuple[Sandbox, Handle]]:
    """Hold a lease on a usable sandbox; the record and its handle."""
    with services.leases.hold(sandbox_id, holder=holder, check=lambda: check_usable(services, sandbox_id)) as record:
        note_first_use(services, record)
        if record.handle is None:
            raise Conflict(f"sandbox {sandbox_id} has no handle", hint="run `sandboxer reconcile`")
        with stop_noticed(services, record):
            yield record, record.handle


def note_first_use(services: Services, record: Sandbox) -> None:
    """Record `sandbox.active` the first time: leases themselves cost no store write (decision 0003)."""
    if record.last_active_at is not None:
        return

    def change(now: Sandbox | None, _others: OtherRecords) -> Change:
        if now is None or now.last_active_at is not None or now.state not in USABLE:
            return Change()
        after, events = services.first_use(now)
        return Change(record=after, events=events)

    services.store.update(record.id, change)
    services.announce()


def lacks_capability(record: Sandbox, verb: str) -> Unsupported:
    """The error of an extension that has not the capability for a verb."""
    return Unsupported(f"{record.extension} has no {verb}", hint=f"run `sandboxer extensions show {record.extension}`")


def run(
    services: Services,
    sandbox_id: str,
    request: Exec,
    streams: Streams,
    *,
    timeout: float | None,
    wanted: Deadline | None = None,
) -> int:
    """Run a command inside; its exit code. Raises Timeout when `timeout` seconds pass (its children are killed), and
    when `wanted` is cancelled: whoever asked has gone."""
    check_exec(request)
    with (
        exec_slot(services, services.current(sandbox_id).consumer),
        leased(services, sandbox_id, holder="exec") as (record, handle),
    ):
        extension = services.extension(record)
        if not isinstance(extension, CanExec):
            raise lacks_capability(record, "exec")
        path_checks.check_sandbox_paths(services, record)
        deadline = (wanted or Deadline(None)).shorter(timeout)
        return extension.exec(handle, request, streams, services.context(record, deadline))


def check_exec(request: Exec) -> None:
    """What no backend can pass on; raises Invalid."""
    if not request.argv or not request.argv[0]:
        raise Invalid("there is no command to run", hint="write it after --: sandboxer exec ID -- ls -l")
    values = [*request.argv, *request.env.values(), request.cwd or ""]
    if any("\x00" in value for value in values):
        raise Invalid("a NUL character cannot be passed to a program", hint="remove it")
    for name in request.env:
        check_env_name(name)
    if request.service is not None:
        check_service(request.service)


def copy(
    services: Services,
    sandbox_id: str,
    *,
    source: str,
    target: str,
    inward: bool,
    service: str | None,
    max_size: int | None = None,
) -> CopyReport:
    """Copy into (`inward`) or out of a sandbox, like `cp -r`; what was left out, and what else to tell.
    `max_size`: what a copy out may take on this disk, in bytes."""
    from sandboxer.manager.copies import copy as file_copy  # tarfile and tempfile: only copies need them

    if service is not None:
        check_service(service)
    if "\x00" in source + target:
        raise Invalid("a path cannot hold a NUL character", hint="remove it")
    with leased(services, sandbox_id, holder="cp") as (record, handle):
        extension = services.extension(record)
        if not isinstance(extension, CanCopy):
            raise lacks_capability(record, "cp")
        path_checks.check_sandbox_paths(services, record)
        inside = file_copy.SandboxFiles(extension, handle, services.context(record, Deadline(None)), service)
        if inward:
            return file_copy.copy_in(source, target, inside)
        return file_copy.copy_out(source, target, inside, max_size=max_size)


def logs(
    services: Services, sandbox_id: str, streams: Streams, *, service: str | None, follow: bool, tail: int | None
) -> None:
    """Write the logs of a sandbox's services; also of one that is not ready, while its resources exist."""
    if service is not None:
        check_service(service)
    record = services.current(sandbox_id)
    extension = services.extension(record)
    if not isinstance(extension, CanLogs):
        raise lacks_capability(record, "logs")
    if record.handle is None or record.clean:
        raise Conflict(f"sandbox {record.id} is {record.state} and has no logs", hint="its error tells more")
    path_checks.check_sandbox_paths(services, record)  # a link in the file's place would be followed
    context = services.context(record, Deadline(None if follow else services.limits.logs))
    with stop_noticed(services, record):
        extension.logs(record.handle, streams, context, service=service, follow=follow, tail=tail)


def grant_lease(services: Services, sandbox_id: str, *, holder: str, seconds: float) -> Lease:
    """An explicit lease that lasts `seconds` unless it is renewed or released."""
    lease = services.leases.grant(
        sandbox_id, holder=holder, seconds=seconds, check=lambda: check_usable(services, sandbox_id)
    )
    note_first_use(services, services.current(sandbox_id))
    return lease


def renew_lease(services: Services, sandbox_id: str, lease_id: str, *, seconds: float) -> Lease:
    """Let an explicit lease end `seconds` from now. A sandbox whose TTL is over is not kept alive by renewing."""
    check_usable(services, sandbox_id)
    return services.leases.renew(sandbox_id, lease_id, seconds)
