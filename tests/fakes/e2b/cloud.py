"""The fake's control plane, and the fake as a whole."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from tests.fakes.e2b.documents import error, metadata_filter, named, page, row
from tests.fakes.e2b.exec import ExecRoutes
from tests.fakes.e2b.files import FileRoutes
from tests.fakes.e2b.snapshots import SnapshotRoutes
from tests.fakes.e2b.state import ENVD_VERSION, E2BSandbox, E2BState, Template, new_id, stamp
from tests.fakes.faults import Fault
from tests.fakes.sandbox_fs import SandboxFS
from tests.fakes.server import FakeServer, Reply, Request

KEY: Final = "e2b_0123456789abcdef0123456789abcdef01234567"
TEMPLATES: Final = (
    Template(id="rki5dems9wqfm4r03t7g", names=("base",)),
    Template(id="8k2vcpu4gibmemory01", names=("large",), vcpu=8, memory_mb=4096, disk_mb=20480),
)
_HERE: Final = r"/sandboxes/(?P<id>[^/]+)"


def no_room(*, times: int | None = 1) -> Fault:
    """E2B is out of capacity."""
    body = {"code": 503, "error_code": "sandbox_capacity_unavailable", "message": "No capacity for the sandbox"}
    return Fault(match="POST (/v2)?/sandboxes", kind="status", status=503, body=body, times=times)


def rate_limited(*, seconds: int = 1, match: str = "POST (/v2)?/sandboxes", times: int | None = 1) -> Fault:
    """Too many requests: ask again after `seconds`."""
    headers = {"retry-after": str(seconds), "ratelimit-limit": "1", "ratelimit-remaining": "0"}
    body = {"code": 429, "message": "Rate limit exceeded, please try again later."}
    return Fault(match=match, kind="status", status=429, body=body, headers=headers, times=times)


class FakeE2B(FakeServer):
    """E2B on loopback: control plane and envds at one address. A context manager.

    `keys` are keys and the accounts that they open. `second` and `idempotent` say whether it is a server of November
    (creates at /v2, which know idempotency keys) or one as it was before. `max_running` is the cap of each account,
    `max_hours` the longest time-out. `envd_version` is what sandboxes report."""

    def __init__(
        self,
        *,
        port: int = 0,
        latency: float = 0.0,
        keys: Mapping[str, str] | None = None,
        second: bool = True,
        idempotent: bool = True,
        max_running: int = 1000,
        max_hours: int = 24,
        envd_version: str = ENVD_VERSION,
        templates: Sequence[Template] = TEMPLATES,
    ) -> None:
        super().__init__(port=port, latency=latency)
        self.estate = E2BState(keys=keys or {KEY: "account"}, templates=templates, envd_version=envd_version)
        self.second, self.idempotent = second, idempotent
        self.max_running, self.max_hours = max_running, max_hours
        self.creates = 0
        self._watch = threading.Event()
        inside = ExecRoutes(self.estate)
        inside.serve(self)
        FileRoutes(inside).serve(self)
        SnapshotRoutes(self.estate, account=self._account, sandbox=self._theirs).serve(self)
        self._serve_control()

    def _serve_control(self) -> None:
        if self.second:
            self.route("POST", "/v2/sandboxes", self._create)
            self.route("POST", f"/v2{_HERE}/connect", self._connect)
        self.route("POST", "/sandboxes", self._create)
        self.route("POST", f"{_HERE}/(connect|resume)", self._connect)
        self.route("GET", "/v2/sandboxes", self._list)
        self.route("GET", "/sandboxes", self._list_running)
        self.route("GET", _HERE, self._get)
        self.route("DELETE", _HERE, self._kill)
        self.route("POST", f"{_HERE}/timeout", self._timeout)
        self.route("POST", f"{_HERE}/refreshes", self._refresh)
        self.route("POST", f"{_HERE}/pause", self._pause)
        self.route("GET", f"/v2{_HERE}/logs", self._logs)
        self.route("GET", f"{_HERE}/metrics", self._metrics)
        self.route("PUT", f"{_HERE}/network", self._network)

    # -- what every fake has -------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen, and end sandboxes when their time is over."""
        super().start()
        self._watch.clear()
        threading.Thread(target=self._sweep, name="fake-e2b-sweep", daemon=True).start()
        return self

    def stop(self) -> None:
        """Go down, and end and remove every sandbox."""
        super().stop()
        self._watch.set()
        self.estate.clear()

    def _sweep(self) -> None:
        while not self._watch.wait(0.2):
            self.estate.sweep()

    def environment(self) -> Mapping[str, str]:
        """The variables that point sandboxer, and E2B's own SDK, here."""
        return {"E2B_API_URL": self.url, "E2B_SANDBOX_URL": self.url, "E2B_API_KEY": next(iter(self.estate.keys))}

    def census(self) -> Sequence[str]:
        """Ids of all sandboxes that have not ended, and of snapshots."""
        self.estate.sweep()
        snapshots = [template.id for template in list(self.estate.templates.values()) if template.files is not None]
        return sorted([*list(self.estate.sandboxes), *snapshots])

    def billed_seconds(self, provider_id: str) -> float:
        """For how long a sandbox has run, pauses left out."""
        return (self.estate.sandboxes.get(provider_id) or self.estate.ended[provider_id]).billed

    def fallback(self, request: Request) -> Reply:
        """As E2B's router says it."""
        return Reply(status=404, body=b"404 page not found", headers={"content-type": "text/plain"})

    # -- making and ending ---------------------------------------------------------------------------------------

    def _account(self, request: Request) -> str:
        account = self.estate.keys.get(request.headers.get("x-api-key", ""))
        if account is None:
            raise error(401, "Invalid API key, please visit https://e2b.dev/docs/api-key for more information.")
        return account

    def _create(self, request: Request) -> Reply:
        account, asked = self._account(request), request.json()
        key = request.headers.get("idempotency-key")
        if key is None or not self.idempotent:
            return Reply(status=201, json=self._make(request, account, asked))
        mark = (account, key)
        fingerprint = json.dumps(asked, sort_keys=True)
        with self.estate.lock:
            known = self.estate.answers.get(mark)
            if known is not None and known[0] != fingerprint:
                raise error(422, "The idempotency key was used with another request", "idempotency_request_mismatch")
            if known is not None and known[1] is None:
                raise error(409, "A request with this key is in progress", "idempotency_in_progress")
            if known is not None:
                return Reply(status=201, json=known[1])
            self.estate.answers[mark] = (fingerprint, None)
        try:
            made = self._make(request, account, asked)
        except BaseException:
            with self.estate.lock:
                del self.estate.answers[mark]
            raise
        self.estate.answers[mark] = (fingerprint, made)
        return Reply(status=201, json=made)

    def _make(self, request: Request, account: str, asked: dict[str, Any]) -> dict[str, Any]:
        second = request.path.startswith("/v2/")
        name = asked.get("templateID")
        if not isinstance(name, str) or not name:
            raise error(400, "Error when parsing request: templateID is required")
        template = self.estate.template(name, account)
        if template is None:
            raise error(404, f"template '{name}' not found")
        seconds = self._seconds(asked, 300 if second else 15)
        metadata, env = asked.get("metadata") or {}, asked.get("envVars") or {}
        if not all(isinstance(value, str) for value in (*metadata.values(), *env.values())):
            raise error(400, "Error when parsing request: metadata and envVars are texts")
        with self.estate.lock:
            if len([one for one in self.estate.of(account) if not one.paused]) >= self.max_running:
                raise error(
                    429,
                    f"you have reached the maximum number of concurrent E2B sandboxes ({self.max_running}). "
                    "If you need more, please visit 'https://e2b.dev/docs/billing'",
                )
            sandbox = E2BSandbox(
                id=new_id(),
                account=account,
                template=template,
                alias=next(iter(template.names), None),
                metadata=metadata,
                env=env,
                internet=asked.get("allow_internet_access"),
                secured=second or asked.get("secure") is True,
                auto_pause=asked.get("autoPause") is True,
                end_at=time.time() + seconds,
                box=SandboxFS() if template.files is None else template.files.copy(),
            )
            self.creates += 1
            self.estate.add(sandbox)
        return self._reached(sandbox)

    def _seconds(self, asked: dict[str, Any], default: int | None = None) -> int:
        seconds = asked.get("timeout", default)
        if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds < 0:
            raise error(400, "Error when parsing request: timeout is a number of seconds")
        if seconds > self.max_hours * 3600:
            raise error(400, f"Timeout cannot be greater than {self.max_hours} hours")
        return seconds

    def _reached(self, sandbox: E2BSandbox) -> dict[str, Any]:
        token = {"envdAccessToken": self.estate.token(sandbox.id)} if sandbox.secured else {}
        return {**named(sandbox, self.estate.envd_version), **token, "domain": None}

    def _theirs(self, request: Request) -> E2BSandbox:
        sandbox = self.estate.seen(request.groups["id"], self._account(request))
        if sandbox is None:
            raise error(404, f"Sandbox \"{request.groups['id']}\" doesn't exist or you don't have access to it")
        return sandbox

    def _get(self, request: Request) -> Reply:
        sandbox = self._theirs(request)
        detail = {**row(sandbox, self.estate.envd_version), **self._reached(sandbox)}
        return Reply(json={**detail, "allowInternetAccess": sandbox.internet})

    def _kill(self, request: Request) -> Reply:
        self.estate.end(self._theirs(request))
        return Reply(status=204)

    def _timeout(self, request: Request) -> Reply:
        sandbox = self._theirs(request)
        if sandbox.paused:  # the server looks among those that run
            raise error(404, f"Sandbox '{sandbox.id}' not found")
        sandbox.end_at = time.time() + self._seconds(request.json())
        return Reply(status=204)

    def _refresh(self, request: Request) -> Reply:
        sandbox = self._theirs(request)
        sandbox.end_at = max(sandbox.end_at, time.time() + min(3600, int(request.json().get("duration") or 15)))
        return Reply(status=204)

    def _pause(self, request: Request) -> Reply:
        sandbox = self._theirs(request)
        if sandbox.paused:
            raise error(409, f"Sandbox '{sandbox.id}' is already paused")
        self.estate.pause(sandbox)
        return Reply(status=204)

    def _connect(self, request: Request) -> Reply:
        sandbox = self._theirs(request)
        seconds = self._seconds(request.json(), 300)
        was = self.estate.resume(sandbox, time.time() + seconds)
        return Reply(status=201 if was else 200, json=self._reached(sandbox))

    def _network(self, request: Request) -> Reply:
        self._theirs(request)
        return Reply(status=204)

    # -- lists ---------------------------------------------------------------------------------------------------

    def _list(self, request: Request) -> Reply:
        account = self._account(request)
        states = [state for value in request.query.get("state", []) for state in value.split(",")]
        known = self.estate.before if request.stale else self.estate.of(account)
        wanted = metadata_filter(request.param("metadata"))
        found = [
            sandbox
            for sandbox in sorted(known, key=lambda one: (-one.started_at, one.id))
            if sandbox.account == account
            and (not states or ("paused" if sandbox.paused else "running") in states)
            and wanted.items() <= dict(sandbox.metadata).items()
        ]
        rows = [row(sandbox, self.estate.envd_version) for sandbox in found]
        running = sum(not sandbox.paused for sandbox in found)
        return page(request, rows, {"x-total-running": str(running)})

    def _list_running(self, request: Request) -> Reply:
        account, wanted = self._account(request), metadata_filter(request.param("metadata"))
        found = [one for one in self.estate.of(account) if not one.paused]
        rows = [row(one, self.estate.envd_version) for one in found if wanted.items() <= dict(one.metadata).items()]
        return Reply(json=rows)

    def _logs(self, request: Request) -> Reply:
        sandbox = self._theirs(request)
        since = stamp(int(request.param("cursor") or 0) / 1000)
        limit = min(1000, int(request.param("limit") or 1000))
        if request.param("direction") == "backward":
            return Reply(json={"logs": sandbox.logs[::-1][:limit]})
        return Reply(json={"logs": [entry for entry in sandbox.logs if entry["timestamp"] >= since][:limit]})

    def _metrics(self, request: Request) -> Reply:
        self._theirs(request)
        return Reply(json=[])
