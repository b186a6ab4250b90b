"""What the outside sees of a record and of a command that was run (contract §3, §9), as plain JSON values."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import msgspec

from sandboxer.errors import SandboxerError, Timeout
from sandboxer.masking import masked_values
from sandboxer.models import Sandbox, Snapshot, Value
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
    last_seen: dict[str, Any] | None


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
        "last_seen": _last_seen(record),
    }


def _last_seen(record: Sandbox) -> dict[str, Any] | None:
    seen = record.last_seen
    if seen is None:
        return None
    return {
        "presence": seen.presence,
        "detail": seen.detail,
        "since": rfc3339(seen.since),
        "at": rfc3339(seen.at),
    }


class SnapshotDocument(Value, frozen=True, kw_only=True):
    """The public document of one snapshot. `size_bytes` and `stored_bytes` (what it added to what was kept) are null
    where a provider keeps the files; `consistent`: they are certainly those of one moment; `notes`: what was left
    out."""

    id: str
    name: str | None
    sandbox_id: str
    profile: str
    extension: str
    consumer: dict[str, str]
    state: Literal["taking", "kept", "deleting", "deleted"]
    created_at: str
    size_bytes: int | None
    stored_bytes: int | None
    consistent: bool
    contents: list[str]
    host: str | None
    notes: list[str]


def snapshot_document(snapshot: Snapshot) -> dict[str, Any]:
    """The document of `snapshot`."""
    return {
        "id": snapshot.id,
        "name": snapshot.name,
        "sandbox_id": snapshot.sandbox_id,
        "profile": snapshot.profile,
        "extension": snapshot.extension,
        "consumer": msgspec.to_builtins(snapshot.consumer),
        "state": snapshot.state,
        "created_at": rfc3339(snapshot.created_at),
        "size_bytes": snapshot.size_bytes,
        "stored_bytes": snapshot.stored_bytes,
        "consistent": snapshot.consistent,
        "contents": snapshot.contents,
        "host": snapshot.host,
        "notes": snapshot.notes,
    }


class ExecResult(Value, frozen=True, kw_only=True):
    """How a command ended. `stdout` and `stderr` hold at most 1 MiB each (16 MiB at the command line), as text; where
    the bytes are not valid UTF-8 they are in `..._base64` besides (null else)."""

    exit_code: int
    stdout: str
    stderr: str
    stdout_base64: str | None
    stderr_base64: str | None
    stdout_truncated: bool
    stderr_truncated: bool


class RunResult(ExecResult, frozen=True, kw_only=True):
    """How the command of a `run` ended, and the sandbox that it ran in."""

    sandbox_id: str


class OutputCapture:
    """Keep the first bytes of an output stream. The rest is taken all the same, so that the command goes on, and is not
    kept."""

    def __init__(self, limit: int) -> None:
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


def exec_result(code: int, stdout: OutputCapture, stderr: OutputCapture) -> ExecResult:
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


@contextmanager
def output_in_timeout(stdout: OutputCapture, stderr: OutputCapture) -> Iterator[None]:
    """Let a Timeout of the block tell what the command had written until then; and an error that came after its end,
    which tells its exit code."""
    try:
        yield
    except SandboxerError as error:
        if isinstance(error, Timeout) or "exit_code" in (error.details or {}):
            error.details = {**(error.details or {}), **masked_values(_output(stdout, stderr))}
        raise


def _output(stdout: OutputCapture, stderr: OutputCapture) -> dict[str, Any]:
    """Each stream as text, or as base64 where it is not UTF-8."""
    found: dict[str, Any] = {}
    for name, stream in (("stdout", stdout), ("stderr", stderr)):
        exact = stream.base64
        found |= {name: stream.text} if exact is None else {f"{name}_base64": exact}
        found[f"{name}_truncated"] = stream.truncated
    return found
