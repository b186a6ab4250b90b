"""What answers hold, where that is not a document of the core already; the OpenAPI description is made from these."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from starlette.responses import Response

from sandboxer.api.problems import encode
from sandboxer.documents import SandboxDocument
from sandboxer.locks import Lease
from sandboxer.manager.tokens import TokenDocument
from sandboxer.models import AuditEntry, Event, Manifest, Profile, Value
from sandboxer.payments.usage import UsageItem
from sandboxer.timing import rfc3339

MAX_STREAM = 1024 * 1024
"""How much of each output stream of a command is answered, in bytes."""


class SandboxList(Value, frozen=True, kw_only=True):
    """A page of sandboxes, oldest first. `next_cursor` is null on the last page."""

    sandboxes: list[SandboxDocument]
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


class ExecResult(Value, frozen=True, kw_only=True):
    """How a command ended. `stdout` and `stderr` hold at most 1 MiB each, as text; where the bytes are not valid UTF-8
    they are in `..._base64` besides (null else)."""

    exit_code: int
    stdout: str
    stderr: str
    stdout_base64: str | None
    stderr_base64: str | None
    stdout_truncated: bool
    stderr_truncated: bool


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


class Health(Value, frozen=True, kw_only=True):
    """That it answers."""

    status: str


def answer(document: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
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


class Capture:
    """The first bytes of an output stream; the rest is counted as truncated, and not kept."""

    def __init__(self, limit: int = MAX_STREAM) -> None:
        self._limit = limit
        self._kept = bytearray()
        self.truncated = False

    def __call__(self, chunk: bytes) -> None:
        room = self._limit - len(self._kept)
        self._kept += chunk[:room]
        self.truncated = self.truncated or len(chunk) > room

    @property
    def text(self) -> str:
        """The bytes as text; what is not UTF-8 is replaced."""
        return self._whole().decode("utf-8", "replace")

    @property
    def base64(self) -> str | None:
        """The exact bytes, when they are not valid UTF-8."""
        try:
            self._whole().decode("utf-8")
        except UnicodeDecodeError:
            return base64.b64encode(self._kept).decode("ascii")
        return None

    def _whole(self) -> bytes:
        """Without a character that the limit has cut in two: that is no reason to call the rest binary."""
        kept = bytes(self._kept)
        if not self.truncated:
            return kept
        for length in range(1, min(4, len(kept)) + 1):
            byte = kept[-length]
            if byte & 0xC0 == 0x80:
                continue  # inside a character: its first byte is further back
            size = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return kept[:-length] if size > length else kept
        return kept


def exec_result(code: int, stdout: Capture, stderr: Capture) -> ExecResult:
    """The answer to an exec."""
    return ExecResult(
        exit_code=code,
        stdout=stdout.text,
        stderr=stderr.text,
        stdout_base64=stdout.base64,
        stderr_base64=stderr.base64,
        stdout_truncated=stdout.truncated,
        stderr_truncated=stderr.truncated,
    )
