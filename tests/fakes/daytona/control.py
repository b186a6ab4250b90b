"""Sandboxes in Daytona's own API, as the fake serves it."""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Callable
from typing import Any, Final

from tests.fakes.daytona import documents
from tests.fakes.daytona.access import AccessRoutes
from tests.fakes.daytona.documents import refused
from tests.fakes.daytona.snapshots import SnapshotRoutes
from tests.fakes.daytona.state import DaytonaState, FakeMachine, NameTaken, Quota, new_id
from tests.fakes.sandbox_fs import SandboxFS
from tests.fakes.server import Reply, Request

_KNOWN: Final = frozenset({
    "name", "snapshot", "user", "env", "labels", "public", "networkBlockAll", "kvm", "networkAllowList",
    "domainAllowList", "outboundProxyUrl", "otelEndpointOverride", "target", "cpu", "gpu", "gpuType", "spot", "memory",
    "disk", "autoStopInterval", "autoPauseInterval", "autoArchiveInterval", "autoDeleteInterval", "ttlMinutes",
    "queueTimeout", "volumes", "buildInfo", "linkedSandbox", "secrets",
})  # fmt: skip
_SIZES: Final = ("cpu", "memory", "disk", "gpu")
_TIMERS: Final = {
    "autoStopInterval": "auto_stop",
    "autoPauseInterval": "auto_pause",
    "autoArchiveInterval": "auto_archive",
    "autoDeleteInterval": "auto_delete",
}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")

Act = Callable[[Request, FakeMachine, str], Reply | None]


class Control:
    """Sandboxes of one fake. `create_seconds` is how long one takes to start; 0 is one from a warm pool.

    An image whose name holds `broken` cannot be built. `trouble`, when set, is the state and reason to which the next
    sandbox comes instead of `started`."""

    def __init__(
        self,
        estate: DaytonaState,
        *,
        ways: AccessRoutes,
        keeping: SnapshotRoutes,
        quota: Quota,
        old: bool,
        create_seconds: float,
        url: Callable[[], str],
    ) -> None:
        self.estate, self.quota, self.old, self.create_seconds = estate, quota, old, create_seconds
        self._url = url
        self.trouble: tuple[str, str] | None = None
        self.toolbox_url: str | None = None
        self.page = 200
        self._ways = ways
        self._acts: dict[tuple[str, str], Act] = {
            ("POST", "start"): self._start,
            ("POST", "stop"): self._stop,
            ("POST", "pause"): self._pause,
            ("POST", "archive"): self._archive,
            ("POST", "recover"): self._start,
            ("POST", "autostop"): self._timer("auto_stop"),
            ("POST", "autopause"): self._timer("auto_pause"),
            ("POST", "autoarchive"): self._timer("auto_archive"),
            ("POST", "autodelete"): self._timer("auto_delete"),
            ("POST", "ttl"): self._ttl,
            ("POST", "public"): self._public,
            ("POST", "last-activity"): self._touch,
            ("POST", "network-settings"): self._network,
            ("POST", "snapshot"): keeping.keep,
            ("POST", "ssh-access"): ways.ssh,
            ("DELETE", "ssh-access"): ways.no_ssh,
            ("PUT", "labels"): self._labels,
            ("GET", "ports"): ways.port,
            ("GET", "toolbox-proxy-url"): lambda *_: Reply(json={"url": self.toolbox()}),
            ("GET", "build-logs"): lambda _request, machine, _rest: Reply(body=machine.build_logs),
            ("GET", "build-logs-url"): lambda _request, machine, _rest: Reply(
                json={"url": f"{self._url()}/api/sandbox/{machine.id}/build-logs"}
            ),
        }
        if old:
            del self._acts["POST", "ttl"]

    def toolbox(self) -> str:
        """Where toolboxes are told to be."""
        return self.toolbox_url or f"{self._url()}/toolbox"

    def shown(self, machine: FakeMachine, *, listed: bool = False) -> dict[str, Any]:
        """A sandbox as it is shown."""
        toolbox = "" if self.toolbox_url == "" else self.toolbox()
        return documents.sandbox(machine, toolbox=toolbox, old=self.old, listed=listed)

    # -- sandboxes ------------------------------------------------------------------------------------------------

    def create(self, request: Request, organization: str) -> Reply:
        """A new one."""
        asked: dict[str, Any] = request.json()
        if unknown := sorted(set(asked) - _KNOWN):
            raise refused(request, 400, f"property {unknown[0]} should not exist")
        sizes = self._sizes(request, organization, asked)
        identity = new_id()
        name = asked.get("name") or identity
        if not _NAME.fullmatch(name):
            raise refused(request, 400, f"name {name!r} is not allowed")
        box = self._inside(request, organization, asked)
        with self.estate.held() as now:
            ttl = None if self.old else asked.get("ttlMinutes")
            machine = FakeMachine(
                id=identity,
                organization=organization,
                name=name,
                box=box,
                asked=asked,
                labels=dict(asked.get("labels") or {}),
                created=now,
                changed=now,
                active=now,
                state="creating",
                ends=now + ttl * 60 if ttl else None,
                public=bool(asked.get("public")),
                blocked=bool(asked.get("networkBlockAll")),
                allow_list=asked.get("networkAllowList"),
                preview=uuid.uuid4().hex,
                logs=b"",
                cpu=sizes["cpu"],
                memory=sizes["memory"],
                disk=sizes["disk"],
                gpu=sizes["gpu"],
            )
            for key, timer in _TIMERS.items():
                if asked.get(key) is not None:
                    setattr(machine, timer, asked[key])
            self._destine(machine, asked)
            try:
                self._check_quota(request, organization, machine)
                self.estate.add(machine)
            except NameTaken:
                box.close()
                raise refused(request, 409, f"Sandbox with name {name} already exists") from None
            except BaseException:
                box.close()
                raise
            return Reply(json=self.shown(machine))

    def _destine(self, machine: FakeMachine, asked: dict[str, Any]) -> None:
        """Which way it goes from its creation."""
        content = (asked.get("buildInfo") or {}).get("dockerfileContent", "")
        trouble, self.trouble = self.trouble, None
        if "broken" in content:
            trouble = ("build_failed", "failed to pull image: manifest unknown")
            machine.build_logs = b"Step 1/1 : FROM broken\nmanifest unknown\n"
        if trouble is not None:
            machine.error = trouble[1]
            self.estate.go(machine, "pending_build" if content else "creating", trouble[0], seconds=self.create_seconds)
            return
        machine.build_logs = b"Step 1/1 : FROM image\ndone\n" if content else b""
        if self.create_seconds <= 0:
            machine.state = "started"
            return
        self.estate.go(machine, "building_snapshot" if content else "creating", "started", seconds=self.create_seconds)

    def _inside(self, request: Request, organization: str, asked: dict[str, Any]) -> SandboxFS:
        name = asked.get("snapshot")
        kept = None
        if name:
            with self.estate.held():
                kept = self.estate.snapshot(organization, name)
            if kept is None:
                raise refused(request, 400, f"Snapshot {name} not found. Did you add it through the Daytona Dashboard?")
        if kept is not None and kept.box is not None:
            return kept.box.copy()
        user = asked.get("user") or "daytona"
        return SandboxFS(user=user, uid=0 if user == "root" else 1000)

    def _sizes(self, request: Request, organization: str, asked: dict[str, Any]) -> dict[str, int]:
        sizes = {name: asked.get(name) for name in _SIZES}
        if not asked.get("buildInfo"):
            if any(value is not None for value in sizes.values()):
                raise refused(request, 400, "Cannot specify Sandbox resources when using a snapshot")
            kept = self.estate.snapshot(organization, asked["snapshot"]) if asked.get("snapshot") else None
            return {"cpu": 1, "memory": 1, "disk": 3, "gpu": 0} if kept is None else {
                "cpu": kept.cpu, "memory": kept.memory, "disk": kept.disk, "gpu": 0}  # fmt: skip
        found = {"cpu": 1, "memory": 1, "disk": 3, "gpu": 0} | {k: int(v) for k, v in sizes.items() if v is not None}
        for name in ("cpu", "memory", "disk"):
            most = getattr(self.quota, f"per_{name}")
            if found[name] > most and not found["gpu"]:
                said = f"{name} request {found[name]} exceeds maximum allowed per sandbox ({most})"
                raise refused(request, 403, said)
        return found

    def _check_quota(self, request: Request, organization: str, machine: FakeMachine) -> None:
        for name in ("cpu", "memory", "disk"):
            most = getattr(self.quota, name)
            used = sum(getattr(m, name) for m in self.estate.machines.values() if m.organization == organization)
            if most is not None and used + getattr(machine, name) > most:
                raise refused(request, 403, f"Total {name} limit exceeded. Maximum allowed: {most}.")

    def listed(self, request: Request, organization: str) -> Reply:
        """A page, newest first."""
        try:
            labels = json.loads(request.param("labels") or "{}")
            limit = max(1, min(self.page, int(request.param("limit") or 100)))
            at = int(base64.b64decode(request.param("cursor") or "") or 0)
        except ValueError:
            raise refused(request, 400, "the query is not valid") from None
        states = request.query.get("states") or []
        prefix, ids = request.param("name") or "", request.param("id") or ""
        with self.estate.held():
            machines = [
                machine
                for machine in (self.estate.before if request.stale else self.estate.index)
                if machine.organization == organization
                and labels.items() <= machine.labels.items()
                and (not states or machine.state in states)
                and machine.name.lower().startswith(prefix.lower())
                and machine.id.startswith(ids)
            ]
            machines.sort(key=lambda machine: (machine.created, machine.id), reverse=True)
            items = [self.shown(machine, listed=True) for machine in machines[at : at + limit]]
        more = at + limit < len(machines)
        cursor = base64.b64encode(str(at + limit).encode()).decode() if more else None
        return Reply(json={"items": items, "nextCursor": cursor})

    def one(self, request: Request, organization: str) -> Reply:
        """Everything that is about one sandbox."""
        which, act, rest = request.groups["sandbox"], request.groups.get("act"), request.groups.get("rest") or ""
        if which == "ssh-access" and act == "validate":
            return self._ways.validate(request)
        handler = self._acts.get((request.method, act)) if act else None
        if act and handler is None:
            raise refused(request, 404, f"Cannot {request.method} {request.path}")
        with self.estate.held():
            machine = self.estate.find(organization, which)
            if machine is None:
                raise refused(request, 404, f"Sandbox with ID or name {which} not found", code="SANDBOX_NOT_FOUND")
            if handler is not None:
                reply = handler(request, machine, rest)
                return Reply(json=self.shown(machine)) if reply is None else reply
            if request.method == "DELETE":
                if machine.state != "destroying":
                    self.estate.go(machine, "destroying", "destroyed")
                return Reply(json=self.shown(machine))
            return Reply(json=self.shown(machine))

    def _settled(self, request: Request, machine: FakeMachine) -> None:
        if machine.then is not None:
            raise refused(request, 409, "Sandbox state change in progress")

    def _start(self, request: Request, machine: FakeMachine, rest: str) -> None:
        self._settled(request, machine)
        if machine.state == "started":
            return
        if machine.state not in ("stopped", "archived", "paused"):
            raise refused(request, 400, f"Sandbox is not in valid state: {machine.state}")
        through = {"archived": "restoring", "paused": "resuming"}.get(machine.state, "starting")
        machine.active = self.estate.clock()
        self.estate.go(machine, through, "started")

    def _stop(self, request: Request, machine: FakeMachine, rest: str) -> None:
        self._settled(request, machine)
        if machine.state != "started":
            raise refused(request, 400, f"Sandbox is not started: {machine.state}")
        self.estate.go(machine, "stopping", "destroyed" if machine.auto_delete == 0 else "stopped")

    def _pause(self, request: Request, machine: FakeMachine, rest: str) -> None:
        raise refused(request, 400, "Sandboxes of this class cannot be paused")

    def _archive(self, request: Request, machine: FakeMachine, rest: str) -> None:
        self._settled(request, machine)
        if machine.state != "stopped":
            raise refused(request, 400, "Sandbox is not stopped")
        self.estate.go(machine, "archiving", "archived")

    def _timer(self, name: str) -> Act:
        def act(request: Request, machine: FakeMachine, rest: str) -> None:
            try:
                setattr(machine, name, int(rest))
            except ValueError:
                raise refused(request, 400, "the interval is not a number") from None

        return act

    def _ttl(self, request: Request, machine: FakeMachine, rest: str) -> None:
        count = int(rest)
        machine.ends = self.estate.clock() + count * 60 if count else None

    def _public(self, request: Request, machine: FakeMachine, rest: str) -> None:
        machine.public = rest == "true"

    def _touch(self, request: Request, machine: FakeMachine, rest: str) -> Reply:
        machine.active = self.estate.clock()
        return Reply(status=201)

    def _network(self, request: Request, machine: FakeMachine, rest: str) -> None:
        asked = request.json()
        machine.blocked = bool(asked.get("networkBlockAll", machine.blocked))
        machine.allow_list = asked.get("networkAllowList", machine.allow_list)

    def _labels(self, request: Request, machine: FakeMachine, rest: str) -> Reply:
        machine.labels = {str(key): str(value) for key, value in request.json()["labels"].items()}
        return Reply(json={"labels": machine.labels})
