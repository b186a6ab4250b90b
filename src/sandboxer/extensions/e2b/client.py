"""Call E2B's API for sandboxes as such (the control plane), from `spec/openapi.yml` of 2026-08 and its November
supplement.

Servers that speak E2B's API as of August have no `/v2` for create and connect; which of the two an address understands
is found out once and remembered as long as the process lives.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from sandboxer.errors import BackendError, SandboxerError, Unsupported
from sandboxer.extensions.base import Context
from sandboxer.extensions.e2b.errors import api_error
from sandboxer.extensions.e2b.handle import (
    E2BHandleData,
    api_address,
    api_key,
    other_key_error,
    proves_absence,
    seconds_until,
)
from sandboxer.extensions.e2b.sandbox import E2BSandbox, EnvdAccess, parse_access, parse_sandbox, required_text
from sandboxer.extensions.provider.errors import ended, stopped
from sandboxer.http import ApiClient, Response, segment
from sandboxer.timing import Deadline

PAGE: Final = 100
MAX_PAGES: Final = 10_000
_KEPT: Final = 512
"""How many sandboxes' tokens a process remembers."""
_UNROUTED: Final = (404, 405)
_first_version: set[str] = set()
"""Base addresses that know only the first version."""


class E2BClient:
    """Calls on the control plane, with the key of a context. Each ends with the context's deadline unless told."""

    def __init__(self, ctx: Context, *, deadline: Deadline | None = None) -> None:
        self._key = api_key(ctx)
        self.base = api_address(ctx)
        self.key = self._key.fingerprint
        self.deadline = deadline or ctx.deadline
        self._api = ApiClient(self.base, name="E2B", headers=self._headers, refuse=api_error)

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
            error = api_error(answer) if answer.status not in (200, 201) else None
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
                raise api_error(answer)
        made = _object(answer)
        return required_text(made, "sandboxID"), parse_access(made), str(made.get("templateID") or "")

    def look(self, sandbox: str, *, deadline: Deadline | None = None) -> tuple[E2BSandbox, EnvdAccess] | None:
        """One sandbox as it is now; None when E2B does not know it."""
        answer = self._call("GET", f"/sandboxes/{segment(sandbox)}", expect=(200, 404), deadline=deadline)
        if answer.status == 404:
            return None
        detail = _object(answer)
        return parse_sandbox(detail), parse_access(detail)

    def all(self, labels: Mapping[str, str]) -> list[E2BSandbox]:
        """Every sandbox with these labels, running or paused: complete, or it raises.

        A filter that a server does not know is none, so the labels are looked at here, too."""
        params: dict[str, str | int] = {"metadata": metadata_filter(labels)}
        further: dict[str, str | int] = {"state": "running,paused", "limit": PAGE}
        found = [parse_sandbox(row) for page in self._pages("/v2/sandboxes", {**params, **further}) for row in page]
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
                return parse_access(_object(answer) if answer.body else {})
        # the first version's answer tells a sandbox that is not there from a path that is not
        answer = self._call("POST", path, json=body, expect=(200, 201, 404))
        return None if answer.status == 404 else parse_access(_object(answer) if answer.body else {})

    def snapshot(self, sandbox: str, name: str) -> str:
        """Keep a sandbox as it is; E2B's id of the snapshot."""
        answer = self._api.call(
            "POST", f"/sandboxes/{segment(sandbox)}/snapshots", self.deadline, json={"name": name}, expect=(200, 201)
        )
        return required_text(_object(answer), "snapshotID")

    def snapshot_named(self, name: str) -> str | None:
        """E2B's id of the snapshot with that name, if there is one."""
        for page in self._pages("/snapshots", {"name": name, "limit": PAGE}):
            for row in page:
                names = [str(full) for full in row.get("names") or []]
                if any(full.rsplit("/", 1)[-1].split(":", 1)[0] == name for full in names):
                    return required_text(row, "snapshotID")
        return None

    def remove_template(self, template: str) -> None:
        """Remove a snapshot; one that is gone already is success."""
        self._call("DELETE", f"/templates/{segment(template)}", expect=(200, 202, 204, 404))

    def logs(self, sandbox: str, params: Mapping[str, str | int]) -> list[dict[str, Any]]:
        """Entries of a sandbox's log. Raises NotFound when E2B does not know it, Unsupported when it keeps no logs."""
        answer = self._call("GET", f"/v2/sandboxes/{segment(sandbox)}/logs", params=params, expect=(200, *_UNROUTED))
        if answer.status != 200:
            if self.look(sandbox) is None:
                raise api_error(answer)
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


def metadata_filter(labels: Mapping[str, str]) -> str:
    """Encode the `metadata` query parameter: keys and values quoted once, joined as a query, which the server takes
    apart after the HTTP layer has unquoted the whole (`parseFilters` of the server, and the SDK's own encoding)."""
    return urlencode({quote(key): quote(value) for key, value in labels.items()})


def running_sandbox(control: E2BClient, data: E2BHandleData, ctx: Context) -> tuple[E2BSandbox, EnvdAccess]:
    """Look at a sandbox that is to be used. Raises Conflict, saying why, when it does not run."""
    looked = control.look(data.id)
    if looked is None:
        raise (
            ended(data.id, provider="E2B", sandbox_id=data.sandbox_id)
            if proves_absence(data, ctx)
            else other_key_error(data)
        )
    if looked[0].state != "running":
        raise stopped(data.id, looked[0].state, provider="E2B", sandbox_id=data.sandbox_id)
    return looked


class AccessCache:
    """Tokens of sandboxes, in memory only: a handle holds none. Each is bound to the key that it was given to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str, str], EnvdAccess] = OrderedDict()

    def keep(self, control: E2BClient, sandbox: str, access: EnvdAccess) -> None:
        """Remember."""
        with self._lock:
            self._known[control.base, control.key, sandbox] = access
            self._known.move_to_end((control.base, control.key, sandbox))
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)

    def forget(self, control: E2BClient, sandbox: str) -> None:
        """It has gone, or its token is not valid any more."""
        with self._lock:
            self._known.pop((control.base, control.key, sandbox), None)

    def known(self, control: E2BClient, data: E2BHandleData) -> EnvdAccess | None:
        """How a sandbox is reached, if this process knows."""
        with self._lock:
            return self._known.get((control.base, control.key, data.id))

    def of(self, control: E2BClient, data: E2BHandleData, ctx: Context) -> EnvdAccess:
        """How a sandbox is reached, asked for if it is not known. Raises Conflict when it does not run."""
        known = self.known(control, data)
        if known is not None:
            return known
        shown, access = running_sandbox(control, data, ctx)
        return self.learn(control, data, shown, access)

    def learn(self, control: E2BClient, data: E2BHandleData, shown: E2BSandbox, access: EnvdAccess) -> EnvdAccess:
        """How a running sandbox is reached, from a look at it. A look need not tell the token: the answer to the create
        did, and the one to `connect` does. That is told the end which the sandbox has anyway."""
        known = self.known(control, data)
        if access.token is None and known is not None and known.token is not None:
            access = msgspec.structs.replace(known, domain=access.domain or known.domain)
        elif access.token is None:
            with suppress(SandboxerError):  # then envd says whether it wants one
                ends = shown.end_at or data.ends or 0.0
                access = control.connect(data.id, seconds_until(ends, time.time())) or access
        self.keep(control, data.id, access)
        return access
