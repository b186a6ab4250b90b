"""Snapshots at the fake Daytona."""

from __future__ import annotations

import math

from tests.fakes.daytona import documents
from tests.fakes.daytona.documents import refused
from tests.fakes.daytona.state import DaytonaState, FakeMachine, StoredSnapshot, new_id
from tests.fakes.server import Reply, Request


class SnapshotRoutes:
    """Making, showing and removing them."""

    def __init__(self, estate: DaytonaState) -> None:
        self.estate = estate

    def keep(self, request: Request, machine: FakeMachine, rest: str) -> None:
        """The files of a sandbox, under a name."""
        name = request.json()["name"]
        if self.estate.snapshot(machine.organization, name) is not None:
            raise refused(request, 409, f"Snapshot with name {name} already exists")
        if machine.state not in ("started", "stopped"):
            raise refused(request, 400, f"Sandbox is not in valid state: {machine.state}")
        now = self.estate.clock()
        kept = StoredSnapshot(
            id=new_id(),
            organization=machine.organization,
            name=name,
            created=now,
            due=now + self.estate.change_seconds,
            box=machine.box.copy(),
            source=machine.id,
            cpu=machine.cpu,
            memory=machine.memory,
            disk=machine.disk,
        )
        self.estate.snapshots[kept.id] = kept
        self.estate.go(machine, "snapshotting", machine.state)

    def snapshots(self, request: Request, organization: str) -> Reply:
        """Those of an organization, by pages with numbers."""
        page, limit = int(request.param("page") or 1), int(request.param("limit") or 100)
        wanted = request.param("name") or ""
        with self.estate.held() as now:
            found = [
                documents.snapshot(kept, now)
                for kept in self.estate.snapshots.values()
                if kept.organization in (None, organization) and wanted in kept.name
            ]
        pages = max(1, math.ceil(len(found) / limit))
        items = found[(page - 1) * limit : page * limit]
        return Reply(json={"items": items, "total": len(found), "page": page, "totalPages": pages})

    def snapshot(self, request: Request, organization: str) -> Reply:
        """One of them; or its end."""
        which = request.groups["snapshot"]
        with self.estate.held() as now:
            kept = self.estate.snapshot(organization, which)
            if kept is None or (request.method == "DELETE" and kept.organization is None):
                raise refused(request, 404, f"Snapshot {which} not found", code="SNAPSHOT_NOT_FOUND")
            if request.method == "DELETE":
                del self.estate.snapshots[kept.id]
                if kept.box is not None:
                    self.estate.doomed.append(kept.box)
                return Reply(status=200)
            return Reply(json=documents.snapshot(kept, now))
