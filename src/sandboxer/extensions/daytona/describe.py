"""Describe a sandbox to the core: how it is reached and isolated, without anything that would let somebody in."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from sandboxer.errors import BackendError
from sandboxer.extensions.base import Status
from sandboxer.extensions.daytona import ssh
from sandboxer.extensions.daytona.client import DaytonaClient
from sandboxer.extensions.daytona.handle import DaytonaHandleData
from sandboxer.extensions.daytona.sandbox import DaytonaSandbox
from sandboxer.http import segment
from sandboxer.models import Isolation, Reachability, Resources, Service
from sandboxer.timing import Deadline

_HEADER: Final = "Authorization: Bearer $DAYTONA_API_KEY"


def reachability(
    cloud: DaytonaClient,
    data: DaytonaHandleData,
    up: DaytonaSandbox,
    *,
    workspace: str | None,
    deadline: Deadline,
) -> Reachability:
    """Describe how a sandbox is reached. Tokens (SSH, previews) are not in it: `tunnel` says how each is had with the
    key."""
    path = f"{cloud.base}/sandbox/{segment(up.id)}"
    ways: dict[str, Any] = {}
    gateway = None
    if data.ssh:
        gateway = ssh.find_gateway(cloud, data.name, deadline)
        asked = f"POST {path}/ssh-access?expiresInMinutes=60"
        ways["ssh"] = {"request": asked, "header": _HEADER, "answer": "sshCommand"}
    services = [_service(cloud, data.name, port, deadline) for port in data.ports]
    if services and not up.public:
        asked = f"GET {path}/ports/PORT/preview-url"
        ways["preview"] = {"request": asked, "header": _HEADER, "answer": "token", "send": "x-daytona-preview-token"}
    return Reachability(
        kind="api",
        host=None if gateway is None else gateway.host,
        port=None if gateway is None else gateway.port,
        remote_dir=workspace,
        command=f"sandboxer exec {data.sandbox_id} -- sh",
        provider_id=up.id,
        services=services,
        tunnel=ways or None,
    )


def _service(cloud: DaytonaClient, name: str, port: int, deadline: Deadline) -> Service:
    answer = cloud.api.call("GET", f"/sandbox/{segment(name)}/ports/{port}/preview-url", deadline, retry="safe")
    document = answer.json()
    url = document.get("url") if isinstance(document, dict) else None
    token = document.get("token") if isinstance(document, dict) else None
    parts = urlsplit(url) if isinstance(url, str) else None
    if not isinstance(url, str) or parts is None or not parts.hostname or (token and token in url):
        raise BackendError(f"Daytona gave no address for port {port} that can be told", hint="leave out options.ports")
    return Service(
        name=f"port-{port}",
        container_port=port,
        host=parts.hostname,
        port=parts.port or (443 if parts.scheme == "https" else 80),
        url=url,
    )


def status(found: DaytonaSandbox) -> Status:
    """Describe the state of a sandbox. One that is stopped is billed its disk, one that is archived nothing. Pure."""
    if found.phase != "resting":
        return Status(found.presence, found.trouble, ends_at=found.destroyed_at)
    billed = None if found.resources is None else Resources(disk_gib=found.resources.disk_gib)
    return Status(
        found.presence,
        f"{found.trouble} at Daytona",
        ends_at=found.destroyed_at,
        billed=Resources() if found.state == "archived" else billed,
    )


def isolation(up: DaytonaSandbox, data: DaytonaHandleData) -> Isolation:
    """Describe the isolation as Daytona says it; nothing of it is measured from here."""
    notes = [f"as Daytona says (class {up.sandbox_class or 'not told'}); not measured"]
    if data.until is not None and up.destroyed_at is None:
        notes.append("this server keeps no TTL of its own: only sandboxer ends it")
    network = "none" if up.blocked else "ranges" if up.allow_list else "internet"
    if up.public:
        notes.append("its ports are open to everybody who knows their addresses")
    return Isolation(class_=up.isolation, network=network, notes=notes)
