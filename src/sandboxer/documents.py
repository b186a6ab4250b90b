"""What the outside sees of a record: the sandbox document of contract §3, as plain JSON values."""

from __future__ import annotations

from typing import Any

import msgspec

from sandboxer.models import Sandbox, Value
from sandboxer.state import State
from sandboxer.timing import rfc3339


class SandboxDocument(Value, frozen=True, kw_only=True):
    """The public document of one sandbox (`get --json`, each item of `list --json`, the HTTP answers)."""

    id: str
    name: str | None
    profile: str
    profile_version: str
    extension: str
    state: State
    consumer: dict[str, str]
    labels: dict[str, str]
    inputs: dict[str, Any]
    placement: dict[str, str | None]
    isolation: dict[str, Any] | None
    reachability: dict[str, Any] | None
    created_at: str
    ready_at: str | None
    expires_at: str | None
    last_active_at: str | None
    destroyed_at: str | None
    route: dict[str, Any]
    cost: dict[str, Any]
    snapshot_of: str | None
    report: dict[str, Any] | None
    error: dict[str, Any] | None


def sandbox_document(record: Sandbox, *, active: bool = False, last_active: float | None = None) -> dict[str, Any]:
    """The document of `record`. `active`: a lease is held now; `last_active`: unix seconds of the last use."""
    state = State.ACTIVE if active and record.state == State.READY else record.state
    plain = msgspec.to_builtins
    latest = max((t for t in (record.last_active_at, last_active) if t is not None), default=None)
    return {
        "id": record.id,
        "name": record.name,
        "profile": record.profile,
        "profile_version": record.profile_version,
        "extension": record.extension,
        "state": str(state),
        "consumer": plain(record.consumer),
        "labels": record.labels,
        "inputs": record.inputs,
        "placement": {"host": record.host},
        "isolation": plain(record.isolation),
        "reachability": plain(record.reachability),
        "created_at": rfc3339(record.created_at),
        "ready_at": rfc3339(record.ready_at),
        "expires_at": rfc3339(record.expires_at),
        "last_active_at": rfc3339(latest),
        "destroyed_at": rfc3339(record.destroyed_at),
        "route": plain(record.route),
        "cost": plain(record.cost),
        "snapshot_of": record.snapshot_of,
        "report": record.report,
        "error": record.error,
    }
