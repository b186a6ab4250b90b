"""Render responses that are no documents of the core; the OpenAPI description is made from these."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from sandboxer.api.problem_details import encode
from sandboxer.documents import SandboxDocument, SnapshotDocument
from sandboxer.locks import Lease
from sandboxer.manager.host_inspection import HostSandbox
from sandboxer.manager.tokens import TokenDocument
from sandboxer.models import AuditEntry, Event, Manifest, Profile, Value
from sandboxer.payments.usage import UsageItem
from sandboxer.telemetry.network_pool import NetworkPool
from sandboxer.timing import rfc3339

MAX_STREAM = 1024 * 1024
"""How much of each output stream of a command is answered, in bytes."""


class SandboxList(Value, frozen=True, kw_only=True):
    """A page of sandboxes, oldest first. `next_cursor` is null on the last page."""

    sandboxes: list[SandboxDocument]
    next_cursor: str | None


class SnapshotList(Value, frozen=True, kw_only=True):
    """A page of snapshots, oldest first. `next_cursor` is null on the last page."""

    snapshots: list[SnapshotDocument]
    next_cursor: str | None


class LeaseDocument(Value, frozen=True, kw_only=True):
    """Somebody uses a sandbox. `expires_at` null: as long as the command runs that holds it."""

    id: str
    sandbox_id: str
    holder: str
    acquired_at: str
    expires_at: str | None


class LeaseList(Value, frozen=True, kw_only=True):
    """The leases that live, oldest first."""

    leases: list[LeaseDocument]


class ProfileList(Value, frozen=True, kw_only=True):
    """Every profile."""

    profiles: list[Profile]


class ExtensionDocument(Manifest, frozen=True, kw_only=True):
    """A manifest, and what its class can do besides the life cycle (null when the class cannot be imported)."""

    capabilities: list[str] | None


class ExtensionList(Value, frozen=True, kw_only=True):
    """Every extension."""

    extensions: list[ExtensionDocument]


class EventList(Value, frozen=True, kw_only=True):
    """Events that are still kept, oldest first."""

    events: list[Event]


class UsageList(Value, frozen=True, kw_only=True):
    """The usage of sandboxes, oldest first."""

    usage: list[UsageItem]


class TokenList(Value, frozen=True, kw_only=True):
    """All tokens."""

    tokens: list[TokenDocument]


class AuditList(Value, frozen=True, kw_only=True):
    """What was changed, oldest first."""

    audit: list[AuditEntry]


class HostDocument(Value, frozen=True, kw_only=True):
    """What a placement host says of itself (docs/host-telemetry.md); null is what it did not tell."""

    host: str
    hostname: str | None
    system: str | None
    kernel: str | None
    architecture: str | None
    os: str | None
    cpu_count: int | None
    cpu_model: str | None
    load_1m: float | None
    load_5m: float | None
    load_15m: float | None
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    swap_total_bytes: int | None
    swap_free_bytes: int | None
    disk_mount: str | None
    disk_total_bytes: int | None
    disk_free_bytes: int | None
    uptime_seconds: float | None
    engines: list[dict[str, Any]]
    tools: dict[str, dict[str, Any] | None]
    sandboxes: list[HostSandbox]
    network_pools: list[NetworkPool]


class HealthDocument(Value, frozen=True, kw_only=True):
    """That it answers."""

    status: str


def json_response(document: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A document as JSON."""
    return Response(encode(document), status, headers, "application/json")


def lease_document(lease: Lease) -> LeaseDocument:
    """The public document of a lease."""
    return LeaseDocument(
        id=lease.lease_id,
        sandbox_id=lease.sandbox_id,
        holder=lease.holder,
        acquired_at=str(rfc3339(lease.acquired_at)),
        expires_at=rfc3339(lease.expires_at),
    )


def extension_document(manifest: Manifest, capabilities: list[str] | None) -> dict[str, Any]:
    """The public document of an extension."""
    return {**msgspec.to_builtins(manifest), "capabilities": capabilities}
