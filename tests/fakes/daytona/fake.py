"""The fake Daytona."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Literal, Self

from tests.fakes.daytona.access import AccessRoutes
from tests.fakes.daytona.control import Control
from tests.fakes.daytona.documents import refused
from tests.fakes.daytona.snapshots import SnapshotRoutes
from tests.fakes.daytona.state import DaytonaState, Quota, StoredSnapshot, new_id
from tests.fakes.daytona.toolbox import Toolbox
from tests.fakes.server import FakeServer, Reply, Request

KEY: Final = "dtn_fake_0123456789abcdef"
_TICK_SECONDS: Final = 0.25

Served = Callable[[Request, str], Reply]


class FakeDaytona(FakeServer):
    """Daytona on loopback. A context manager.

    `keys` maps keys to organizations, which do not see one another. `create_seconds` is how long a sandbox takes to
    start, `change_seconds` every other change. `release="0.190"` leaves out what the open server of June 2026 has not.
    `runs` is what a toolbox gives commands to: the first of zsh, bash and sh that is here, as Daytona does.
    `page` is the most that a page of a listing holds.
    `forward` moves its clock, so that timers need not be waited for.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        latency: float = 0.0,
        keys: Mapping[str, str] | None = None,
        quota: Quota | None = None,
        create_seconds: float = 0.0,
        change_seconds: float = 0.0,
        release: Literal["0.226", "0.190"] = "0.226",
        runs: str | None = None,
        page: int = 200,
    ) -> None:
        super().__init__(port=port, latency=latency)
        self.keys = dict(keys or {KEY: "organization-1"})
        self.old = release == "0.190"
        self._ahead = 0.0
        self._shell = runs or next(name for name in ("zsh", "bash", "sh") if shutil.which(name))
        self._toolboxes: dict[str, Toolbox] = {}
        self._toolboxes_lock = threading.Lock()
        self.estate = DaytonaState(clock=lambda: time.time() + self._ahead, change_seconds=change_seconds)
        self.ways = AccessRoutes(self.estate, url=lambda: self.url)
        self.keeping = SnapshotRoutes(self.estate)
        self.control = Control(
            self.estate,
            ways=self.ways,
            keeping=self.keeping,
            quota=quota or Quota(),
            old=self.old,
            create_seconds=create_seconds,
            url=lambda: self.url,
        )
        self.control.page = page
        self._add_snapshot("daytona-small")
        self._make_routes()

    def _make_routes(self) -> None:
        control, keeping = self.control, self.keeping
        self.route("POST", "/api/sandbox", self._keyed(control.create))
        self.route("GET", "/api/sandbox", self._keyed(control.listed))
        self.route("GET", "/api/config", lambda _request: Reply(json={"version": "0.226.1", "oidc": {}}))
        self.route("GET", "/api/snapshots", self._keyed(keeping.snapshots))
        self.route("*", r"/api/snapshots/(?P<snapshot>[^/]+)", self._keyed(keeping.snapshot))
        self.route("*", r"/toolbox/(?P<sandbox>[^/]+)(?P<path>/.*)", self._keyed(self._toolbox))
        self.route(
            "*", r"/api/sandbox/(?P<sandbox>[^/]+)(?:/(?P<act>[^/]+)(?:/(?P<rest>.+))?)?", self._keyed(control.one)
        )
        self.route("GET", r"/preview/(?P<sandbox>[^/]+)/(?P<port>\d+)(?:/(?P<rest>.*))?", self.ways.preview)

    def start(self) -> Self:
        """Listen, and let time pass for sandboxes that nobody asks for."""
        super().start()
        threading.Thread(target=self._tick, name="fake-daytona", daemon=True).start()
        return self

    def stop(self) -> None:
        """Go down, and end and remove everything."""
        super().stop()
        self.estate.close()

    def environment(self) -> Mapping[str, str]:
        """The variables that point sandboxer, and Daytona's own SDK, here."""
        key = next(iter(self.keys), KEY)
        return {"DAYTONA_API_KEY": key, "DAYTONA_API_URL": f"{self.url}/api"}

    def census(self) -> list[str]:
        """What lives and costs, by id and name."""
        with self.estate.held():
            machines = [f"sandbox {machine.id} {machine.name}" for machine in self.estate.machines.values()]
            kept = [f"snapshot {k.id} {k.name}" for k in self.estate.snapshots.values() if k.organization is not None]
        return sorted(machines + kept)

    @property
    def creates(self) -> int:
        """How many sandboxes were ever made."""
        return self.estate.creates

    def billed_seconds(self, provider_id: str) -> float:
        """For how long one has run, so far or until its end."""
        return self.estate.billed(provider_id)

    def forward(self, seconds: float) -> None:
        """Let time pass at once."""
        self._ahead += seconds

    def comes_to(self, state: str, reason: str) -> None:
        """The next sandbox does not start, but comes to this state."""
        self.control.trouble = (state, reason)

    def say_toolbox(self, url: str | None) -> None:
        """Tell another address of toolboxes from now on; with an empty one, only when it is asked for by itself."""
        self.control.toolbox_url = url

    @property
    def ssh_tokens(self) -> list[str]:
        """Those that let somebody in now."""
        now = self.estate.clock()
        return [token for token, (_, ends) in self.ways.ssh_tokens.items() if ends > now]

    def fallback(self, request: Request) -> Reply:
        """As its API answers for a path that it does not know."""
        return refused(request, 404, f"Cannot {request.method} {request.path}").reply

    def failed(self, request: Request, error: Exception) -> Reply:
        """As it answers for a bug."""
        return refused(request, 500, f"{type(error).__name__}: {error}").reply

    def _keyed(self, serve: Served) -> Callable[[Request], Reply]:
        def handler(request: Request) -> Reply:
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            organization = self.keys.get(key) if scheme == "Bearer" else None
            if organization is None:
                raise refused(request, 401, "Invalid credentials", code="UNAUTHORIZED")
            return serve(request, organization)

        return handler

    def _toolbox(self, request: Request, organization: str) -> Reply:
        with self.estate.held() as now:
            machine = self.estate.find(organization, request.groups["sandbox"])
            if machine is None or machine.id != request.groups["sandbox"]:
                raise refused(request, 404, "sandbox not found", source="DAYTONA_PROXY")
            if machine.state not in ("started", "snapshotting", "resizing"):
                raise refused(request, 400, f"sandbox is not started: {machine.state}", source="DAYTONA_PROXY")
            machine.active = now
        with self._toolboxes_lock:
            toolbox = self._toolboxes.get(machine.id)
            if toolbox is None:
                toolbox = self._toolboxes[machine.id] = Toolbox(machine.box, program=self._shell, old=self.old)
                toolbox.logs = machine.logs
        return toolbox.answer(request, request.groups["path"])

    def _add_snapshot(self, name: str) -> None:
        kept = StoredSnapshot(id=new_id(), organization=None, name=name, created=0.0, due=0.0)
        self.estate.snapshots[kept.id] = kept

    def _tick(self) -> None:
        while self.pause(_TICK_SECONDS):
            with self.estate.held():
                pass
