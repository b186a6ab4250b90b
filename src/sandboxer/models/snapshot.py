"""What the core keeps of a snapshot."""

from __future__ import annotations

from typing import Literal

from sandboxer.models.base import Value
from sandboxer.models.catalog import SecretRef
from sandboxer.models.record import Consumer, Handle, Owner, Request

SnapshotState = Literal["taking", "kept", "deleting", "deleted"]
"""`taking`: it is being made, or was when its maker died; `deleting`: somebody wants it gone; `deleted`: nothing of it
is left but the fact, which is not told yet."""


class UntoldFact(Value, frozen=True, kw_only=True):
    """A fact of a snapshot that is not among the events yet. With a fixed id and time it may be told again."""

    event_type: str
    event_id: str
    at: float


class Snapshot(Value, frozen=True, kw_only=True):
    """One snapshot. The outside sees `documents.snapshot_document` of it; the rest is the core's own.

    `size_bytes` and `stored_bytes` (what it added to the store) are None where a provider keeps the files."""

    id: str
    sandbox_id: str
    request: Request
    profile: str
    profile_version: str
    extension: str
    consumer: Consumer
    created_at: float
    state: SnapshotState
    name: str | None = None
    host: str | None = None
    size_bytes: int | None = None
    stored_bytes: int | None = None
    consistent: bool = False
    contents: list[str] = []
    notes: list[str] = []
    """What whoever restores it should know."""
    # the core's own
    handle: Handle | None = None
    secret_refs: dict[str, SecretRef] = {}
    owner: Owner | None = None
    untold: list[UntoldFact] = []
