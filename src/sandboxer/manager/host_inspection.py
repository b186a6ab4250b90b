"""Inspect a host: what it says of itself, what our sandboxes use of it, and its engines' networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sandboxer.errors import SandboxerError
from sandboxer.extensions.base import CanShowUsage
from sandboxer.manager.services import Services
from sandboxer.models import Sandbox, Value
from sandboxer.names import check_host
from sandboxer.state import ESTABLISHED
from sandboxer.telemetry import host_telemetry
from sandboxer.telemetry.network_pool import network_pools
from sandboxer.telemetry.processes import SandboxUsage, sandbox_usage
from sandboxer.timing import Deadline


class HostSandbox(Value, frozen=True, kw_only=True):
    """One of our sandboxes on a host, and what it uses of it; null is what cannot be seen. `cpu_s` is what its living
    processes have used so far, and the shares are of all processors and all memory of the host, now."""

    id: str
    name: str | None
    profile: str
    extension: str
    state: str
    processes: int | None
    cpu_s: float | None
    cpu_share: float | None
    memory_bytes: int | None
    memory_share: float | None


def inspect_host(services: Services, name: str) -> dict[str, Any]:
    """The report on a host; raises Unavailable, Denied when it cannot be asked at all."""
    deadline = Deadline(services.limits.inspect)
    host = services.open_host(check_host(name))
    host.connect(deadline)
    told = host_telemetry(host, deadline, engines=True)
    records = [one for one in services.store.list() if one.host == name and one.state in ESTABLISHED and one.handle]
    roots = _first_processes(services, records, name, deadline)
    try:
        used = sandbox_usage(host, roots, deadline)
    except SandboxerError:
        used = {}
    try:
        pools = network_pools(host, deadline)
    except SandboxerError:
        pools = []
    rows = [_row(record, used.get(record.id), told) for record in records]
    return {"host": name, **told, "sandboxes": msgspec.to_builtins(rows), "network_pools": msgspec.to_builtins(pools)}


def _first_processes(
    services: Services, records: Sequence[Sandbox], name: str, deadline: Deadline
) -> dict[str, Sequence[int]]:
    """By sandbox, where its extension shows them: one that fails to takes nothing from the others."""
    found: dict[str, Sequence[int]] = {}
    for extension_id in sorted({record.extension for record in records}):
        own = [record for record in records if record.extension == extension_id]
        try:
            extension = services.extensions.get(extension_id)
            if not isinstance(extension, CanShowUsage):
                continue
            context = services.extension_context(extension_id, name, deadline)
            shown = extension.first_processes([record.handle for record in own if record.handle], context)
        except SandboxerError:
            continue
        found |= {record.id: first for record, first in zip(own, shown, strict=True)}
    return found


def _row(record: Sandbox, used: SandboxUsage | None, told: dict[str, Any]) -> HostSandbox:
    count, total = told.get("cpu_count"), told.get("memory_total_bytes")
    return HostSandbox(
        id=record.id,
        name=record.name,
        profile=record.profile,
        extension=record.extension,
        state=record.state,
        processes=used.processes if used else None,
        cpu_s=used.cpu_s if used else None,
        cpu_share=round(used.cpu_busy / count, 4) if used and used.cpu_busy is not None and count else None,
        memory_bytes=used.memory_bytes if used else None,
        memory_share=round(used.memory_bytes / total, 4) if used and total else None,
    )
