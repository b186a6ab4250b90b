"""Read what E2B's API says of one sandbox. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from sandboxer.errors import BackendError
from sandboxer.models import Resources
from sandboxer.secrets import Secret


class EnvdAccess(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to reach a sandbox's envd. The token is this process's secret: others ask for it again."""

    envd: tuple[int, ...]
    token: Secret | None = None
    domain: str | None = None


class E2BSandbox(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox as E2B shows it. Instants are unix seconds."""

    id: str
    state: str
    metadata: Mapping[str, str]
    started_at: float | None
    end_at: float | None
    resources: Resources
    internet: bool | None = None
    template: str = ""


def parse_access(data: Mapping[str, Any]) -> EnvdAccess:
    token, domain = data.get("envdAccessToken"), data.get("domain")
    return EnvdAccess(
        envd=version(str(data.get("envdVersion") or "")),
        token=Secret(token) if isinstance(token, str) and token else None,
        domain=domain if isinstance(domain, str) and domain else None,
    )


def parse_sandbox(row: Mapping[str, Any]) -> E2BSandbox:
    """Parse a row of a list, or a whole answer. Raises BackendError for one that does not say whose it is: a list with
    holes is not complete."""
    metadata, internet = row.get("metadata") or {}, row.get("allowInternetAccess")
    if not isinstance(metadata, dict):
        raise BackendError("E2B's answer has metadata that is none", hint="check E2B_API_URL")
    return E2BSandbox(
        id=required_text(dict(row), "sandboxID"),
        state=str(row.get("state") or "running"),
        metadata={str(name): str(value) for name, value in metadata.items()},
        started_at=instant(row.get("startedAt")),
        end_at=instant(row.get("endAt")),
        resources=Resources(
            vcpu=_number(row.get("cpuCount")),
            memory_gib=_number(row.get("memoryMB")) / 1024,
            disk_gib=_number(row.get("diskSizeMB")) / 1024,
        ),
        internet=internet if isinstance(internet, bool) else None,
        template=str(row.get("templateID") or ""),
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def required_text(data: dict[str, Any], name: str) -> str:
    """Read a text that must be in an answer. Raises BackendError."""
    value = data.get(name)
    if not isinstance(value, str) or not value:
        raise BackendError(f"E2B's answer lacks {name!r}", hint="check E2B_API_URL", outcome="unknown")
    return value


def instant(text: object) -> float | None:
    """Parse an RFC 3339 time to unix seconds; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed.timestamp() if parsed.tzinfo is not None else None


def version(text: str) -> tuple[int, ...]:
    """`0.5.7` as numbers to compare; what is no number is left out."""
    return tuple(int(part[:9]) for part in text.split("-")[0].split(".") if part.isascii() and part.isdigit())
