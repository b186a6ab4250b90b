"""Move the end of a sandbox: the money first, then the backend's copy of the expiry, then the record, so that a renewal
that was answered holds, and one that failed can be asked for again without adding twice. Of a shorter life the money
comes last: it is given back when the rest is durable."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal

import msgspec

from sandboxer.errors import Conflict, Internal, Invalid, NotFound, SandboxerError
from sandboxer.extensions.base import CanRenew
from sandboxer.manager import billing
from sandboxer.manager.copies import path_checks
from sandboxer.manager.presence import is_stopped, stop_noticed
from sandboxer.manager.services import Services
from sandboxer.models import Isolation, Metering, Sandbox
from sandboxer.state import State
from sandboxer.store.base import Change, OtherRecords
from sandboxer.timing import MAX_SECONDS, Deadline, format_duration, rfc3339

_PROVIDER_END = "its provider ends it at "


Judge = Callable[[Sandbox], float]
"""The new end of a record, in unix seconds; raises Conflict or Invalid."""


def extend(services: Services, sandbox_id: str, seconds: int) -> Sandbox:
    """Add `seconds` to a sandbox's life; see `SandboxManager.extend_ttl`."""
    return _move_end(services, sandbox_id, lambda record: extended_expiry(record, seconds, now=services.clock()))


def set_ttl(services: Services, sandbox_id: str, seconds: int) -> Sandbox:
    """Let a sandbox end `seconds` from now; see `SandboxManager.set_ttl`."""
    return _move_end(services, sandbox_id, lambda record: new_expiry(record, seconds, now=services.clock()))


def _move_end(services: Services, sandbox_id: str, judge: Judge) -> Sandbox:
    # The guard keeps `expire` and other renewals out between the look and the commit.
    with services.leases.guard(sandbox_id):
        record = services.current(sandbox_id)
        until = judge(record)
        metering = None if record.metering is None else billing.paid_until(record, record.metering, until)
        if record.metering is None or metering is None:
            stored = _renew(services, record, judge, until=until, metering=None)
        elif Decimal(metering.reserved_usd) < Decimal(record.metering.reserved_usd):
            stored = _renew(services, record, judge, until=until, metering=metering)
            with suppress(SandboxerError):  # what stays reserved too much is given back at the end
                billing.raise_reservation(services, stored, metering)
        else:
            billing.raise_reservation(services, record, metering)
            try:
                stored = _renew(services, record, judge, until=until, metering=metering)
            except BaseException:
                billing.restore_reservation(services, sandbox_id)
                raise
    services.announce()
    return stored


def _renew(services: Services, record: Sandbox, judge: Judge, *, until: float, metering: Metering | None) -> Sandbox:
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
        judge(now)  # it may have been asked to go meanwhile
        isolation = None if now.isolation is None else _without_end(now.isolation)
        after = msgspec.structs.replace(
            now, expires_at=until, renewed_at=services.clock(), handle=handle, isolation=isolation, seq=now.seq + 1
        )
        if metering is not None:
            cost = msgspec.structs.replace(now.cost, estimated_usd=metering.reserved_usd)
            after = msgspec.structs.replace(after, metering=metering, cost=cost)
        later = now.expires_at is not None and until >= now.expires_at
        told = "sandbox.extended" if later else "sandbox.shortened"
        return Change(record=after, events=[services.event(now, after, told)])

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
    _check_lives(record)
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
    if agreed + seconds > now + MAX_SECONDS:  # a time of five digits for the year is none of RFC 3339
        spare = max(0, int(now + MAX_SECONDS - agreed))
        raise Invalid(
            f"sandbox {record.id} may end {format_duration(MAX_SECONDS)} from now at the latest",
            hint=f"give --duration {format_duration(spare)} or less" if spare else "its end is that far off already",
        )
    return agreed + seconds


def new_expiry(record: Sandbox, seconds: int, *, now: float) -> float:
    """When a sandbox will end, in unix seconds, with `seconds` to live from `now`, whatever was agreed before; raises
    Conflict or Invalid. Pure."""
    _check_lives(record)
    if record.max_expires_at is not None and now + seconds > record.max_expires_at:
        spare = max(0, int(record.max_expires_at - now))
        raise Invalid(
            f"{record.profile} lets sandbox {record.id} live at most {format_duration(spare)} from now",
            hint=f"give --ttl {format_duration(spare)} or less"
            if spare
            else f"run `sandboxer recreate {record.id}` instead",
        )
    return now + seconds


def _check_lives(record: Sandbox) -> None:
    if record.state not in (State.PROVISIONING, State.READY, State.STOPPED):
        raise Conflict(f"sandbox {record.id} is {record.state}", hint="only a living sandbox has an end to be moved")
