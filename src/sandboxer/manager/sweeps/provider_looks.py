"""Ask providers, for `expire`, what became of sandboxes that nobody else would look at: a provider ends, stops and
shortens them by itself, and the money follows what is true."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sandboxer.extensions.base import Status
from sandboxer.manager.presence import (
    look,
    may_be_stopped,
    noted_action,
    presence_change,
    record_presence,
)
from sandboxer.manager.services import Services
from sandboxer.manager.sweeps.reconcile import too_many
from sandboxer.manager.sweeps.report import Action, Remaining, caught, location_lane, run_in_lanes
from sandboxer.manager.ttl import with_provider_end
from sandboxer.models import Sandbox
from sandboxer.state import ESTABLISHED
from sandboxer.timing import Deadline, rfc3339


def provider_actions(
    services: Services, records: Sequence[Sandbox], *, apply: bool
) -> tuple[Sequence[Action], Sequence[Remaining]]:
    """What is to be done about sandboxes for what their providers show, and what a person has to look at first. Silence
    is no answer: nothing follows from it."""
    asked = [record for record in records if _worth_asking(record)]
    silent: set[str] = set()

    def seen(record: Sandbox) -> Action | None:
        return caught(lambda: _provider_action(services, record, silent, apply=apply), lambda _error: None)

    found = [action for action in run_in_lanes(asked, seen, lane=location_lane) if action is not None]
    lost = [action for action in found if action.action == "fail"]
    if not too_many(len(lost), len(records)):
        return found, []
    held = [
        Remaining(
            sandbox_id=action.sandbox_id,
            why=f"{action.why}; {len(lost)} of {len(records)} would be given up at once: look at it with "
            "`sandboxer reconcile`, and use its --force if that is right",
            host=action.host,
            extension=action.extension,
        )
        for action in lost
    ]
    return [action for action in found if action.action != "fail"], held


def _worth_asking(record: Sandbox) -> bool:
    """Whether something may have become of a sandbox that costs somebody money, or is half stopped. What is on hosts of
    ours and free is left to `reconcile`: a look there is a command on the host."""
    meant = record.intent is not None  # a stop or start that was begun and left
    return record.state in ESTABLISHED and (meant or record.host is None or record.metering is not None)


def _provider_action(services: Services, record: Sandbox, silent: set[str], *, apply: bool) -> Action | None:
    """What one look comes to. `silent`: where one was asked about in vain for the whole time that a look has; nothing
    more is asked there in this sweep."""
    lane = location_lane(record)
    if lane in silent:
        return None
    deadline = Deadline(services.limits.refresh)
    status = look(services, record, deadline)
    if status.presence == "unknown" and deadline.passed:
        silent.add(lane)
    if status.presence == "absent":
        gone = noted_action(record, "the backend has lost it")
        return msgspec.structs.replace(gone, action="fail")
    shorter = with_provider_end(record, status.ends_at, slack=services.limits.provider_end)
    if shorter is not record:
        why = f"its provider ends it at {rfc3339(shorter.expires_at)}, earlier than was agreed"
        return msgspec.structs.replace(noted_action(record, why), action="shorten")
    changed = presence_change(record, status) if may_be_stopped(services, record) else None
    if changed is not None:
        return noted_action(record, changed)
    if apply:
        _note_alive(services, record, status)
    return None


def _note_alive(services: Services, record: Sandbox, status: Status) -> None:
    """Record when a sandbox that costs something was last seen to run: what is found to be gone later is charged for no
    longer than that."""
    seen = record.last_seen
    if record.metering is None or status.presence != "running":
        return
    if seen is None or services.clock() - seen.at >= services.limits.seen_again:
        record_presence(services, record, status)
