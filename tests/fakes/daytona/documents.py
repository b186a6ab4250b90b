"""How the fake Daytona shows what it has."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from tests.fakes.daytona.state import FakeMachine, StoredSnapshot
from tests.fakes.server import ErrorReply, Reply, Request

NEWER = ("kvm", "sandboxClass", "autoDestroyAt", "spot", "queueTimeout", "gpuType", "autoPauseInterval")
"""Fields that the open server of June 2026 has not."""
DETAILS = ("env", "kvm", "volumes", "buildInfo", "linkedSandboxId", "backupCreatedAt")
"""Fields of a sandbox that a listing leaves out."""


def instant(seconds: float) -> str:
    """As Daytona writes times."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sandbox(machine: FakeMachine, *, toolbox: str, old: bool, listed: bool = False) -> dict[str, Any]:
    """One sandbox."""
    asked = machine.asked
    document: dict[str, Any] = {
        "id": machine.id,
        "organizationId": machine.organization,
        "name": machine.name,
        "snapshot": asked.get("snapshot") or ("" if asked.get("buildInfo") else "daytona-small"),
        "user": asked.get("user") or "daytona",
        "env": asked.get("env") or {},
        "labels": machine.labels,
        "public": machine.public,
        "networkBlockAll": machine.blocked,
        "kvm": False,
        "target": asked.get("target") or "us",
        "cpu": machine.cpu,
        "gpu": machine.gpu,
        "memory": machine.memory,
        "disk": machine.disk,
        "state": machine.state,
        "desiredState": _desired(machine),
        "backupState": "None",
        "autoStopInterval": machine.auto_stop,
        "autoPauseInterval": machine.auto_pause,
        "autoArchiveInterval": machine.auto_archive,
        "autoDeleteInterval": machine.auto_delete,
        "volumes": asked.get("volumes") or [],
        "createdAt": instant(machine.created),
        "updatedAt": instant(max(machine.created, machine.changed)),
        "lastActivityAt": instant(machine.active),
        "sandboxClass": "container",
        "spot": False,
        "recoverable": False,
        "daemonVersion": "0.226.1",
        "runnerId": "0f5f4f5c-0000-4000-8000-000000000001",
        "toolboxProxyUrl": toolbox,
    }
    if machine.gpu and asked.get("gpuType"):
        document["gpuType"] = asked["gpuType"][0]
    if machine.allow_list is not None:
        document["networkAllowList"] = machine.allow_list
    if machine.error is not None:
        document["errorReason"] = machine.error
    if machine.ends is not None:
        document["autoDestroyAt"] = instant(machine.ends)
    if asked.get("buildInfo"):
        built = {"createdAt": instant(machine.created), "updatedAt": instant(machine.created), "snapshotRef": "build"}
        document["buildInfo"] = {**asked["buildInfo"], **built}
    for name in (*(NEWER if old else ()), *(DETAILS if listed else ())):
        document.pop(name, None)
    return document


def _desired(machine: FakeMachine) -> str:
    final = machine.then or machine.state
    return final if final in ("destroyed", "started", "stopped", "archived", "paused") else "started"


def snapshot(kept: StoredSnapshot, now: float) -> dict[str, Any]:
    """One snapshot."""
    return {
        "id": kept.id,
        "organizationId": kept.organization or "00000000-0000-0000-0000-000000000000",
        "general": kept.organization is None,
        "name": kept.name,
        "imageName": "",
        "state": "active" if now >= kept.due else "snapshotting",
        "size": 0.1,
        "entrypoint": None,
        "cpu": kept.cpu,
        "gpu": 0,
        "mem": kept.memory,
        "disk": kept.disk,
        "errorReason": None,
        "createdAt": instant(kept.created),
        "updatedAt": instant(kept.created),
        "lastUsedAt": None,
        "sourceSandboxId": kept.source,
        "sandboxClass": "container",
    }


def refused(
    request: Request, status: int, message: str, *, source: str = "DAYTONA_API", code: str | None = None
) -> ErrorReply:
    """An error as Daytona writes it, to be raised."""
    document = {
        "path": request.path,
        "timestamp": instant(0),
        "statusCode": status,
        "error": HTTPStatus(status).phrase,
        "message": message,
        "source": source,
    }
    return ErrorReply(Reply(status=status, json=document if code is None else {**document, "code": code}))
