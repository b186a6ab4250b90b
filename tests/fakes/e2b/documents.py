"""Rows and pages of a fake E2B's lists."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_plus

from tests.fakes.e2b.state import E2BSandbox, Template, stamp
from tests.fakes.server import ErrorReply, Reply, Request


def error(status: int, message: str, error_code: str | None = None) -> ErrorReply:
    """A refusal as E2B writes it."""
    body: dict[str, Any] = {"code": status, "message": message}
    return ErrorReply(Reply(status=status, json={**body, "error_code": error_code} if error_code else body))


def named(sandbox: E2BSandbox, envd: str) -> dict[str, Any]:
    """What every answer says of a sandbox."""
    told = {"templateID": sandbox.template.id, "sandboxID": sandbox.id, "clientID": "fake", "envdVersion": envd}
    return {**told, "alias": sandbox.alias} if sandbox.alias else told


def row(sandbox: E2BSandbox, envd: str) -> dict[str, Any]:
    """A sandbox in a list."""
    return {
        **named(sandbox, envd),
        "startedAt": stamp(sandbox.started_at),
        "endAt": stamp(sandbox.end_at),
        "cpuCount": sandbox.template.vcpu,
        "memoryMB": sandbox.template.memory_mb,
        "diskSizeMB": sandbox.template.disk_mb,
        "state": "paused" if sandbox.paused else "running",
        "metadata": dict(sandbox.metadata),
    }


def snapshot_row(template: Template) -> dict[str, Any]:
    """A snapshot in a list."""
    names = [f"fake-team/{name}:default" for name in template.names]
    return {"snapshotID": names[0] if names else f"{template.id}:default", "names": names}


def metadata_filter(text: str | None) -> dict[str, str]:
    """The filter, as the server takes it apart: the whole, then each key and value."""
    if not text:
        return {}
    wanted: dict[str, str] = {}
    for pair in unquote_plus(text).split("&"):
        parts = pair.split("=")
        if len(parts) != 2:
            raise error(400, "Error parsing metadata: invalid key value pair in query")
        wanted[unquote_plus(parts[0])] = unquote_plus(parts[1])
    return wanted


def page(request: Request, rows: list[dict[str, Any]], headers: dict[str, str]) -> Reply:
    """The part of a list that was asked for, and where the next begins."""
    limit = int(request.param("limit") or 100)
    if not 1 <= limit <= 100:
        raise error(400, "limit must be from 1 to 100")
    begin = int(request.param("nextToken") or 0)
    more = {"x-next-token": str(begin + limit)} if begin + limit < len(rows) else {}
    return Reply(json=rows[begin : begin + limit], headers={**headers, **more})
