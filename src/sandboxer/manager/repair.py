"""Writing records again from what the backends still show, after a store was lost or set aside."""

from __future__ import annotations

import msgspec

from sandboxer.errors import SandboxerError
from sandboxer.extensions.base import Found
from sandboxer.manager.services import Services
from sandboxer.manager.stale import LOOK_SECONDS, list_everywhere
from sandboxer.manager.sweep import Remaining, run_in_lanes
from sandboxer.models import Consumer, Decision, Request, Route, Sandbox
from sandboxer.names import LABEL_PROFILE
from sandboxer.state import State
from sandboxer.store.base import Change, OtherRecords
from sandboxer.timing import Deadline

UNKNOWN_VERSION = "0.0.0"


class RebuiltRecords(msgspec.Struct, frozen=True, kw_only=True):
    """What a repair brought back, and where it could not look."""

    records: list[Sandbox]
    unseen: list[Remaining]


def rebuild_records(services: Services) -> RebuiltRecords:
    """A record for every labelled resource of this installation that has none. What was not on the labels (who asked,
    inputs, labels of the user) is lost; what is there can be used and destroyed again."""
    seen, unseen = list_everywhere(services, services.store.list())
    lost = [item for item in seen if services.store.get(item[2].sandbox_id) is None]
    records = run_in_lanes(lost, lambda item: _restore_one(services, *item), lane=lambda item: item[1] or item[0])
    return RebuiltRecords(records=records, unseen=unseen)


def _restore_one(services: Services, extension: str, host: str | None, found: Found) -> Sandbox:
    created = found.created_at if found.created_at is not None else services.clock()
    decision = Decision(extension=extension, outcome="chosen", reason="found by doctor --repair", host=host)
    profile = found.labels.get(LABEL_PROFILE, "profile.unknown")
    record = Sandbox(
        id=found.sandbox_id,
        request=Request(profile=profile, host=host),
        profile=profile,
        profile_version=UNKNOWN_VERSION,
        extension=extension,
        state=str(State.READY),
        consumer=Consumer(actor="atm", name="doctor"),
        host=host,
        created_at=created,
        ready_at=created,
        expires_at=found.expires_at,
        handle=found.handle,
        route=Route(strategy="explicit", decisions=[decision]),
        seq=1,
    )
    try:
        ready = services.extension(record).wait_ready(found.handle, services.context(record, Deadline(LOOK_SECONDS)))
    except SandboxerError as error:
        document = {**error.document(), "sandbox_id": record.id}
        record = msgspec.structs.replace(record, state=str(State.FAILED), error=document)
    else:
        record = msgspec.structs.replace(record, reachability=ready.reachability, isolation=ready.isolation)

    def write(now: Sandbox | None, _others: OtherRecords) -> Change:
        if now is not None:
            return Change()  # somebody was faster
        return Change(record=record, events=[services.event(None, record, f"sandbox.{record.state}")])

    return services.store.update(record.id, write) or record
