"""Snapshots of a fake E2B: templates of one account that keep a sandbox's files."""

from __future__ import annotations

from collections.abc import Callable

from tests.fakes.e2b.documents import error, page, snapshot_row
from tests.fakes.e2b.state import E2BSandbox, E2BState, Template, new_id
from tests.fakes.server import FakeServer, Reply, Request


class SnapshotRoutes:
    """Their part of the control plane. `account` tells whose a request is, `sandbox` which sandbox it means."""

    def __init__(
        self, estate: E2BState, *, account: Callable[[Request], str], sandbox: Callable[[Request], E2BSandbox]
    ) -> None:
        self.estate = estate
        self._account, self._theirs = account, sandbox

    def serve(self, server: FakeServer) -> None:
        """Add the routes."""
        server.route("POST", r"/sandboxes/(?P<id>[^/]+)/snapshots", self._snapshot)
        server.route("GET", "/snapshots", self._snapshots)
        server.route("DELETE", "/templates/(?P<id>.+)", self._remove_template)

    def _snapshot(self, request: Request) -> Reply:
        sandbox, asked = self._theirs(request), request.json()
        name = asked.get("name")
        template = Template(
            id=new_id("s"),
            names=(name,) if name else (),
            vcpu=sandbox.template.vcpu,
            memory_mb=sandbox.template.memory_mb,
            disk_mb=sandbox.template.disk_mb,
            account=sandbox.account,
            files=sandbox.box.copy(),
            source=sandbox.id,
        )
        with self.estate.lock:
            older = self.estate.template(name, sandbox.account) if name else None
            if older is not None and older.files is not None:
                del self.estate.templates[older.id]
                older.files.close()
            self.estate.templates[template.id] = template
        return Reply(status=201, json=snapshot_row(template))

    def _snapshots(self, request: Request) -> Reply:
        account, name, source = self._account(request), request.param("name"), request.param("sandboxID")
        rows = [
            snapshot_row(template)
            for template in list(self.estate.templates.values())
            if template.files is not None
            and template.account == account
            and (source is None or template.source == source)
            and (name is None or self.estate.template(name, account) is template)
        ]
        return page(request, rows, {})

    def _remove_template(self, request: Request) -> Reply:
        account = self._account(request)
        with self.estate.lock:
            template = self.estate.template(request.groups["id"], account)
            if template is None or template.account != account:
                raise error(404, f"template '{request.groups['id']}' not found")
            del self.estate.templates[template.id]
        if template.files is not None:
            template.files.close()
        return Reply(status=204)
