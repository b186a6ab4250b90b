"""Build the event of a change, and the JSON that a hub gets (contract §7). Pure, but for the default of `event_id`.

Inputs, options, handles, reports and error messages have no way into a fact: any of them may hold a secret.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Literal

from sandboxer.models import Event, HubSettings, Sandbox
from sandboxer.timing import rfc3339

SOURCE: Final = "sand-boxer"

_PHRASES: Final = {
    "sandbox.provisioning": "is being established",
    "sandbox.ready": "is ready",
    "sandbox.active": "is in use",
    "sandbox.stopped": "is stopped",
    "sandbox.started": "runs again",
    "sandbox.extended": "lives longer",
    "sandbox.shortened": "ends sooner",
    "sandbox.expiring": "is about to expire",
    "sandbox.expired": "has expired",
    "sandbox.destroying": "is being destroyed",
    "sandbox.destroyed": "is gone",
    "sandbox.failed": "has failed",
    "usage.metered": "was metered",
}


def build_event(
    record_before: Sandbox | None,
    record: Sandbox,
    event_type: str,
    now: float,
    *,
    detail: Mapping[str, Any] | None = None,
    event_id: str | None = None,
) -> Event:
    """Build the event that tells of `record_before` having become `record` at `now` (unix seconds).

    `detail` is laid over the usual one, and must be free of secrets; `event_id` None makes a fresh one. The actor is
    the sandbox's consumer, `seq` the record's own count, which the caller has raised for this event."""
    usual: dict[str, Any] = {
        "sandbox_id": record.id,
        "profile": record.profile,
        "extension_id": record.extension,
        "from_state": record_before.state if record_before is not None else None,
        "to_state": record.state,
        "host": record.host,
        "expires_at": rfc3339(record.expires_at),
        "seq": record.seq,
    }
    if record.error is not None:
        usual["error_code"] = record.error.get("code")
    return Event(
        event_id=event_id or new_event_id(),
        event_type=event_type,
        occurred_at=rfc3339(now) or "",
        actor=f"{record.consumer.actor}:{record.consumer.name}",
        summary=_summary(record, event_type, dict(detail or {})),
        detail=usual | dict(detail or {}),
    )


def build_usage_event(metered: Event, body: Mapping[str, Any]) -> Event:
    """Build the item for fin-hub that goes with the `usage.metered` event of the same change. `body` is what fin-hub
    gets; its `usage_id` is the id, so that what is sent again is known there."""
    return Event(
        event_id=str(body["usage_id"]),
        event_type=metered.event_type,
        occurred_at=metered.occurred_at,
        actor=metered.actor,
        summary=metered.summary,
        detail=dict(body),
        sink="fin-hub",
    )


def new_event_id() -> str:
    """Make a random UUID (version 4) in hexadecimal; made by hand, since importing `uuid` takes 7 ms."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return raw.hex()


def initial_status(endpoint: HubSettings) -> Literal["pending", "kept"]:
    """Tell the status with which an event is recorded: without a hub it is only kept."""
    return "pending" if endpoint.url else "kept"


def payload(event: Event) -> dict[str, Any]:
    """Encode an event as the State Hub gets it."""
    return {
        "event_id": event.event_id,
        "event_type": event.event_type,
        "source": SOURCE,
        "occurred_at": event.occurred_at,
        "actor": event.actor,
        "summary": event.summary,
        "detail": event.detail,
    }


_OF_SNAPSHOTS: Final = {
    "snapshot.created": "was taken of",
    "snapshot.deleted": "is gone, of",
    "snapshot.restored": "was restored as",
}


def _summary(record: Sandbox, event_type: str, detail: Mapping[str, Any]) -> str:
    if event_type in _OF_SNAPSHOTS:
        return (
            f"snapshot {detail.get('snapshot_id')} {_OF_SNAPSHOTS[event_type]} sandbox {record.id} ({record.profile})"
        )
    phrase = _PHRASES.get(event_type, f"has a new fact, {event_type},")
    return f"sandbox {record.id} {phrase} on {record.host or record.extension} ({record.profile})"
