"""The control plane: E2B's API for sandboxes as such, from `spec/openapi.yml` of 2026-08 and its November supplement.

Servers that speak E2B's API as of August have no `/v2` for create and connect; which of the two an address understands
is found out once and remembered as long as the process lives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from sandboxer.errors import BackendError, Unsupported
from sandboxer.extensions.base import Context
from sandboxer.extensions.e2b import connect
from sandboxer.extensions.e2b.errors import refuse
from sandboxer.extensions.e2b.handle import api_address, api_key, told
from sandboxer.http import Api, Response, segment
from sandboxer.models import Resources
from sandboxer.secrets import Secret
from sandboxer.timing import Deadline

PAGE: Final = 100
MAX_PAGES: Final = 10_000
_UNROUTED: Final = (404, 405)
_first_version: set[str] = set()
"""Base addresses that know only the first version."""


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


class E2BClient:
    """Calls on the control plane, with the key of a context. Each ends with the context's deadline unless told."""

    def __init__(self, ctx: Context, *, deadline: Deadline | None = None) -> None:
        self._key = api_key(ctx)
        self.base = api_address(ctx)
        self.key = self._key.fingerprint
        self.deadline = deadline or ctx.deadline
        self._api = Api(self.base, name="E2B", headers=self._headers, refuse=refuse)

    def _headers(self) -> Mapping[str, str]:
        return {"X-API-Key": self._key.reveal()}

    @property
    def knows_keys(self) -> bool:
        """Whether it is worth while to say a create again with the same idempotency key."""
        return self.base not in _first_version

    def create(self, body: Mapping[str, Any], *, key: str, deadline: Deadline) -> tuple[str, EnvdAccess, str]:
        """Make a sandbox: E2B's id, access, template. Asked once, never again by itself."""
        said = {"Idempotency-Key": key}
        answer: Response | None = None
        if self.base not in _first_version:
            answer = self._api.call("POST", "/v2/sandboxes", deadline, json=body, headers=said, expect=None)
            error = refuse(answer) if answer.status not in (200, 201) else None
            if error is not None and (answer.status not in _UNROUTED or error.fault == "caller"):
                raise error
            if error is not None:
                answer = None
        if answer is None:
            # remembered before it is known for sure: a lost answer of this one must not be asked for again
            _first_version.add(self.base)
            older = {**body, "secure": True}
            answer = self._api.call("POST", "/sandboxes", deadline, json=older, headers=said, expect=None)
            if answer.status in _UNROUTED:
                _first_version.discard(self.base)
            if answer.status not in (200, 201):
                raise refuse(answer)
        made = _object(answer)
        return told(made, "sandboxID"), _access(made), str(made.get("templateID") or "")

    def look(self, sandbox: str, *, deadline: Deadline | None = None) -> tuple[E2BSandbox, EnvdAccess] | None:
        """One sandbox as it is now; None when E2B does not know it."""
        answer = self._call("GET", f"/sandboxes/{segment(sandbox)}", expect=(200, 404), deadline=deadline)
        if answer.status == 404:
            return None
        detail = _object(answer)
        return _shown(detail), _access(detail)

    def all(self, labels: Mapping[str, str]) -> list[E2BSandbox]:
        """Every sandbox with these labels, running or paused: complete, or it raises.

        A filter that a server does not know is none, so the labels are looked at here, too."""
        params: dict[str, str | int] = {"metadata": connect.metadata_filter(labels)}
        further: dict[str, str | int] = {"state": "running,paused", "limit": PAGE}
        found = [_shown(row) for page in self._pages("/v2/sandboxes", {**params, **further}) for row in page]
        return [shown for shown in found if labels.items() <= shown.metadata.items()]

    def kill(self, sandbox: str) -> bool:
        """Kill a sandbox; False when E2B does not know it."""
        answer = self._call("DELETE", f"/sandboxes/{segment(sandbox)}", expect=(200, 204, 404))
        return answer.status != 404

    def end_in(self, sandbox: str, seconds: int) -> bool:
        """Let a sandbox end that many seconds from now; False when E2B does not know it."""
        answer = self._call(
            "POST", f"/sandboxes/{segment(sandbox)}/timeout", json={"timeout": seconds}, expect=(200, 204, 404)
        )
        return answer.status != 404

    def pause(self, sandbox: str) -> bool:
        """Pause a sandbox, with its memory; False when E2B does not know it."""
        answer = self._call(
            "POST", f"/sandboxes/{segment(sandbox)}/pause", json={"memory": True}, expect=(200, 204, 404, 409)
        )
        return answer.status != 404  # 409: it is paused already

    def connect(self, sandbox: str, seconds: int) -> EnvdAccess | None:
        """Let a sandbox run again, or go on for at least so long; how it is reached. None when E2B does not know it."""
        body = {"timeout": seconds}
        path = f"/sandboxes/{segment(sandbox)}/connect"
        if self.base not in _first_version:
            answer = self._call("POST", f"/v2{path}", json=body, expect=(200, 201, 404, 405))
            if answer.status in (200, 201):
                return _access(_object(answer) if answer.body else {})
        # the first version's answer tells a sandbox that is not there from a path that is not
        answer = self._call("POST", path, json=body, expect=(200, 201, 404))
        return None if answer.status == 404 else _access(_object(answer) if answer.body else {})

    def snapshot(self, sandbox: str, name: str) -> str:
        """Keep a sandbox as it is; E2B's id of the snapshot."""
        answer = self._api.call(
            "POST", f"/sandboxes/{segment(sandbox)}/snapshots", self.deadline, json={"name": name}, expect=(200, 201)
        )
        return told(_object(answer), "snapshotID")

    def snapshot_named(self, name: str) -> str | None:
        """E2B's id of the snapshot with that name, if there is one."""
        for page in self._pages("/snapshots", {"name": name, "limit": PAGE}):
            for row in page:
                names = [str(full) for full in row.get("names") or []]
                if any(full.rsplit("/", 1)[-1].split(":", 1)[0] == name for full in names):
                    return told(row, "snapshotID")
        return None

    def remove_template(self, template: str) -> None:
        """Remove a snapshot; one that is gone already is success."""
        self._call("DELETE", f"/templates/{segment(template)}", expect=(200, 202, 204, 404))

    def logs(self, sandbox: str, params: Mapping[str, str | int]) -> list[dict[str, Any]]:
        """Entries of a sandbox's log. Raises NotFound when E2B does not know it, Unsupported when it keeps no logs."""
        answer = self._call("GET", f"/v2/sandboxes/{segment(sandbox)}/logs", params=params, expect=(200, *_UNROUTED))
        if answer.status != 200:
            if self.look(sandbox) is None:
                raise refuse(answer)
            raise Unsupported(
                f"{self.base} keeps no logs of sandboxes", hint="write them to a file inside, and `cp` it"
            )
        return [entry for entry in _object(answer).get("logs") or [] if isinstance(entry, dict)]

    def probe(self) -> None:
        """Ask for next to nothing: is the key accepted? Raises what is wrong."""
        self._page("/v2/sandboxes", {"limit": 1})

    def _call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, str | int] | None = None,
        expect: Sequence[int] = (200,),
        deadline: Deadline | None = None,
    ) -> Response:
        """All but making things may arrive twice."""
        return self._api.call(
            method, path, deadline or self.deadline, json=json, params=params, retry="safe", expect=expect
        )

    def _pages(self, path: str, params: Mapping[str, str | int]) -> Iterator[list[dict[str, Any]]]:
        token = ""
        for _ in range(MAX_PAGES):
            answer = self._page(path, {**params, "nextToken": token} if token else params)
            rows = answer.json()
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise BackendError(f"E2B's list of {path} is not a list", hint="check E2B_API_URL")
            yield rows
            following = answer.headers.get("x-next-token", "")
            if not following:
                return
            if following == token:
                break
            token = following
        raise BackendError(f"E2B's list of {path} has no end", hint="try again; look at E2B's status page")

    def _page(self, path: str, params: Mapping[str, str | int]) -> Response:
        """One page of a list. A server that has only the first version of it gives all that runs, and no pages."""
        if not path.startswith("/v2/"):
            return self._call("GET", path, params=params)
        answer = self._call("GET", path, params=params, expect=(200, *_UNROUTED))
        if answer.status == 200:
            return answer
        older = {name: value for name, value in params.items() if name == "metadata"}
        return self._call("GET", path.removeprefix("/v2"), params=older)


def _object(answer: Response) -> dict[str, Any]:
    found = answer.json()
    if not isinstance(found, dict):
        raise BackendError(f"E2B answered {answer.asked} with something else than an object", hint="check E2B_API_URL")
    return found


def _access(data: Mapping[str, Any]) -> EnvdAccess:
    token, domain = data.get("envdAccessToken"), data.get("domain")
    return EnvdAccess(
        envd=connect.version(str(data.get("envdVersion") or "")),
        token=Secret(token) if isinstance(token, str) and token else None,
        domain=domain if isinstance(domain, str) and domain else None,
    )


def _shown(row: Mapping[str, Any]) -> E2BSandbox:
    """Raises BackendError for a row that does not say whose it is: a list with holes is not complete."""
    metadata, internet = row.get("metadata") or {}, row.get("allowInternetAccess")
    if not isinstance(metadata, dict):
        raise BackendError("E2B's answer has metadata that is none", hint="check E2B_API_URL")
    return E2BSandbox(
        id=told(dict(row), "sandboxID"),
        state=str(row.get("state") or "running"),
        metadata={str(name): str(value) for name, value in metadata.items()},
        started_at=connect.instant(row.get("startedAt")),
        end_at=connect.instant(row.get("endAt")),
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
