"""A metered provider that tells its clients everything they sent it, and an adapter that passes all of it on."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from sandboxer.errors import BackendError
from sandboxer.extensions.base import (
    CanExec,
    CanMeter,
    Context,
    Exec,
    Found,
    SandboxExtension,
    Spec,
    Status,
)
from sandboxer.hosts.base import Command, Streams
from sandboxer.http import ApiClient
from sandboxer.models import Handle, Isolation, Reachability, Ready, Resources, Written
from tests.fakes.server import FakeServer, Reply, Request

Mode = Literal[
    "well", "401", "403", "404", "409", "429", "500", "503", "302", "junk", "headers", "sentence", "crash", "chain",
    "unready", "leak-handle", "leak-base64", "leak-argv", "leak-output", "leak-log",
]  # fmt: skip
ECHOED: tuple[Mode, ...] = (
    "401", "403", "404", "409", "429", "500", "503", "302", "junk", "headers", "sentence", "crash", "chain", "unready",
)  # fmt: skip
"""The ways in which a create fails and words with the keys in them come back."""
HEADER = "x-key-"


class EchoServer(FakeServer):
    """The provider. What fails quotes the headers and the body of the request."""

    def __init__(self) -> None:
        super().__init__()
        self.sandboxes: dict[str, str] = {}
        self.route("POST", r"/sandboxes/(?P<id>[^/]+)/(?P<mode>[^/]+)", self._create)
        self.route("GET", r"/sandboxes", self._list)
        self.route("GET", r"/sandboxes/(?P<id>[^/]+)", self._get)
        self.route("DELETE", r"/sandboxes/(?P<id>[^/]+)", self._delete)

    def keys(self) -> str:
        """All that was sent in the headers of keys, and in bodies."""
        return "\n".join(
            value
            for asked in list(self.requests)
            for value in (*(value for name, value in asked.headers.items() if name.startswith(HEADER)),
                          asked.body.decode())
        )  # fmt: skip

    def _create(self, request: Request) -> Reply:
        mode = request.groups["mode"]
        said = {"message": "you sent " + " ".join(request.headers.values()), "body": request.body.decode()}
        if mode == "junk":
            return Reply(status=200, body=f"<html>{said}</html>".encode())
        if mode == "302":
            key = request.headers.get(HEADER + "0", "")
            return Reply(status=302, json=said, headers={"Location": f"/login?key={key}"})
        if mode == "headers":
            return Reply(status=400, json=said, headers={"X-You-Sent": request.headers.get(HEADER + "0", "")})
        if mode.isdigit():
            return Reply(status=int(mode), json=said, headers={"Retry-After": "0"} if mode == "429" else {})
        self.sandboxes[request.groups["id"]] = mode
        return Reply(status=201, json={"id": request.groups["id"], **said})

    def _list(self, request: Request) -> Reply:
        return Reply(json=[{"id": name, "message": str(request.headers)} for name in self.sandboxes])

    def _get(self, request: Request) -> Reply:
        known = request.groups["id"] in self.sandboxes
        return Reply(status=200 if known else 404, json={"message": str(request.headers)})

    def _delete(self, request: Request) -> Reply:
        self.sandboxes.pop(request.groups["id"], None)
        return Reply(status=204)


class EchoOptions(Written, frozen=True, kw_only=True):
    """How a create goes."""

    mode: Mode = "well"


class EchoExtension(SandboxExtension, CanExec, CanMeter):
    """The adapter: each of its secrets goes into a header, inputs into the body."""

    Options: ClassVar[type[Written]] = EchoOptions

    def check(self, ctx: Context) -> None:
        self._api(ctx)

    def provision(self, spec: Spec, ctx: Context) -> Handle:
        mode = spec.options.mode
        key = next((secret.reveal() for secret in ctx.secrets.values()), "")
        path = f"/sandboxes/{spec.resource}/{mode}"
        answer = self._api(ctx).call("POST", path, ctx.deadline, json=dict(spec.inputs), expect=(200, 201))
        ctx.progress("start", answer.text)
        logging.getLogger("httpx").debug("asked %s with %s", path, ctx.secrets)
        said = str(answer.json()["message"])
        if mode == "sentence":
            raise BackendError(f"it is too busy: {said}", hint=f"say {said[:77]}", details={"said": [said]})
        if mode == "crash":
            raise ValueError(f"cannot parse {said}")
        if mode == "chain":
            try:
                raise KeyError(said)
            except KeyError as error:
                raise BackendError(f"unexpected: {error!r}") from error
        data: dict[str, Any] = {"id": spec.resource, "mode": mode}
        _leak(mode, key, data, ctx)
        return Handle(version=1, data=data)

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        if handle.data["mode"] == "unready":
            answer = self._api(ctx).call("GET", "/sandboxes/nothing", ctx.deadline, expect=(200, 404))
            raise BackendError(f"it came up wrong: {answer.text}", details={"answer": answer.json()})
        return Ready(
            reachability=Reachability(kind="api", command="sandboxer exec"),
            isolation=Isolation(class_="remote", network="internet"),
        )

    def status(self, handle: Handle, ctx: Context) -> Status:
        answer = self._api(ctx).call("GET", f"/sandboxes/{handle.data['id']}", ctx.deadline, expect=(200, 404))
        return Status("running" if answer.status == 200 else "absent", answer.text)

    def find(self, sandbox_id: str, ctx: Context) -> Handle | None:
        handle = Handle(version=1, data={"id": f"sbx-{sandbox_id}", "mode": "well"})
        return handle if self.status(handle, ctx).presence == "running" else None

    def inventory(self, ctx: Context) -> Sequence[Found]:
        return [
            Found(
                sandbox_id=entry["id"].removeprefix("sbx-"),
                handle=Handle(version=1, data={"id": entry["id"], "mode": "well"}),
                created_at=1.0,
                detail=entry["message"],
            )
            for entry in self._api(ctx).call("GET", "/sandboxes", ctx.deadline).json()
        ]

    def teardown(self, handle: Handle, ctx: Context) -> None:
        self._api(ctx).call("DELETE", f"/sandboxes/{handle.data['id']}", ctx.deadline, expect=(204,))

    def exec(self, handle: Handle, request: Exec, streams: Streams, ctx: Context) -> int:
        return ctx.host.stream(Command(argv=request.argv, env=request.env, clean_env=True), streams, ctx.deadline)

    def estimate_cost(self, options: Any) -> Resources:
        return Resources(vcpu=1, memory_gib=1)

    def meter_actual(self, handle: Handle, ctx: Context) -> Resources | None:
        raise BackendError(f"no metrics for {self._headers(ctx)}")

    def _api(self, ctx: Context) -> ApiClient:
        return ApiClient(ctx.endpoints["api"], name="Echo", headers=lambda: self._headers(ctx))

    def _headers(self, ctx: Context) -> dict[str, str]:
        values = [secret.reveal() for secret in ctx.secrets.values()]
        return {f"{HEADER}{number}": value for number, value in enumerate(values)}


def _leak(mode: Mode, key: str, data: dict[str, Any], ctx: Context) -> None:
    """What no adapter may do, planted to see it found."""
    if mode == "leak-handle":
        data["key"] = key
    if mode == "leak-base64":
        data["authorization"] = "Basic " + base64.b64encode(f"user:{key}".encode()).decode()
    if mode == "leak-argv":
        ctx.host.run(["sh", "-c", "sleep 0.3", "sh", key], ctx.deadline)
    if mode == "leak-output":
        print(key)  # noqa: T201 - the leak itself
    if mode == "leak-log":
        logging.getLogger("httpx").debug("asked with %s", key)
