"""Letting a sandbox live longer: its money first, then the backend's copy of the expiry, then the record, so that a
renewal that was answered holds, and one that failed can be asked for again without adding twice."""

from __future__ import annotations

import msgspec

from sandboxer.errors import Conflict, Internal, Invalid, NotFound
from sandboxer.extensions.base import CanRenew
from sandboxer.manager import billing, permissions
from sandboxer.manager.services import Services
from sandboxer.models import Metering, Sandbox
from sandboxer.state import State
from sandboxer.store.base import Change, OtherRecords
from sandboxer.timing import Deadline, format_duration

RENEW_SECONDS = 60.0


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
        permissions.check_sandbox_paths(services, record)  # its marker is written anew
        saved = [handle]  # some remember when their backend ends it
        extension.renew(handle, until, services.context(record, Deadline(RENEW_SECONDS), save=saved.append))
        handle = saved[-1]

    def change(now: Sandbox | None, _others: OtherRecords) -> Change:
        if now is None:
            raise NotFound(f"no sandbox {record.id!r}", hint="run `sandboxer list --all`")
        extended_expiry(now, seconds, now=services.clock())  # it may have been asked to go meanwhile
        after = msgspec.structs.replace(now, expires_at=until, handle=handle, seq=now.seq + 1)
        if metering is not None:
            cost = msgspec.structs.replace(now.cost, estimated_usd=metering.reserved_usd)
            after = msgspec.structs.replace(after, metering=metering, cost=cost)
        return Change(record=after, events=[services.event(now, after, "sandbox.extended")])

    stored = services.store.update(record.id, change)
    if stored is None:
        raise Internal("the store kept nothing of an extension")
    return stored


def extended_expiry(record: Sandbox, seconds: int, *, now: float) -> float:
    """When a sandbox will end, in unix seconds, with `seconds` more; raises Conflict or Invalid. Pure."""
    if record.state not in (State.PROVISIONING, State.READY):
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
