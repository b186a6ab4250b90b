"""What a fake sandbox's envd answers: processes over the Connect protocol with JSON, and its health."""

from __future__ import annotations

import base64
import binascii
import json
import struct
import time
from collections.abc import Iterator
from typing import Any, Final

from tests.fakes.e2b.processes import Event, RunningProcess, stream
from tests.fakes.e2b.state import E2BSandbox, E2BState
from tests.fakes.server import ErrorReply, FakeServer, Reply, Request

_STATUS: Final = {
    "canceled": 499, "invalid_argument": 400, "deadline_exceeded": 504, "not_found": 404, "already_exists": 409,
    "permission_denied": 403, "resource_exhausted": 429, "unimplemented": 501, "internal": 500, "unavailable": 503,
    "unauthenticated": 401,
}  # fmt: skip


def refused(code: str, message: str) -> ErrorReply:
    """An error as Connect tells it."""
    return ErrorReply(Reply(status=_STATUS.get(code, 500), json={"code": code, "message": message}))


class ExecRoutes:
    """The envds of all sandboxes. Each request names its sandbox by a header."""

    def __init__(self, estate: E2BState) -> None:
        self._estate = estate

    def serve(self, server: FakeServer) -> None:
        """Add the routes."""
        server.route("GET", "/health", self._health)
        server.route("GET", "/envs", lambda request: Reply(json=dict(self.of(request).env)))
        process = "/process.Process/"
        server.route("POST", process + "Start", self._start)
        server.route("POST", process + "Connect", self._connect)
        server.route("POST", process + "List", self._list)
        server.route("POST", process + "SendInput", self._send_input)
        server.route("POST", process + "StreamInput", self._stream_input, lazy=True)
        server.route("POST", process + "CloseStdin", self._close_stdin)
        server.route("POST", process + "SendSignal", self._send_signal)
        server.route("POST", process + "Update", self._update)

    def envd_is(self, *version: int) -> bool:
        """Whether the envds are of this version or a later one."""
        return self._estate.envd_is(*version)

    def of(self, request: Request) -> E2BSandbox:
        """The sandbox that a request is for, if it runs and the token is right."""
        sandbox_id = self._named(request)
        sandbox = self._estate.running(sandbox_id)
        if sandbox is None:
            body = {"sandboxId": sandbox_id, "message": "The sandbox was not found", "code": 502}
            raise ErrorReply(Reply(status=502, json=body))
        if sandbox.secured and request.headers.get("x-access-token") != self._estate.token(sandbox_id):
            raise refused("unauthenticated", "unauthorized access, please provide a valid access token")
        return sandbox

    def _named(self, request: Request) -> str:
        """Which sandbox is meant. The host name says it at E2B; at one address for all a header does, which `connect`
        of client 2.20 forgets: then the token tells."""
        told = request.headers.get("e2b-sandbox-id")
        token = request.headers.get("x-access-token")
        if told is None and token is not None:
            told = next((known for known in list(self._estate.sandboxes) if self._estate.token(known) == token), None)
        return told or ""

    def uid(self, request: Request, sandbox: E2BSandbox) -> int | None:
        """Who asks: 0 for root, None for the sandbox's own user; nobody else is known."""
        said = request.headers.get("authorization", "")
        name = request.param("username") or ""
        if said.lower().startswith("basic "):
            try:
                name = base64.b64decode(said[6:]).decode().partition(":")[0]
            except (binascii.Error, UnicodeDecodeError):
                raise refused("unauthenticated", "invalid basic authorization") from None
        if not name and not self._estate.envd_is(0, 4, 0):
            raise refused("unauthenticated", "no user specified")
        if name in ("", sandbox.box.user):
            return None
        if name == "root":
            return 0
        raise refused("unauthenticated", f"invalid username: '{name}'")

    def _health(self, request: Request) -> Reply:
        if self._estate.running(self._named(request)) is None:
            self.of(request)
        return Reply(status=204)

    def _start(self, request: Request) -> Reply:
        sandbox = self.of(request)
        uid = self.uid(request, sandbox)
        asked = _only_message(request.body)
        process = asked.get("process") or {}
        size = (asked.get("pty") or {}).get("size")
        box = sandbox.box
        cwd = str(process.get("cwd") or "") or None
        if cwd is not None and not box.is_directory(cwd if cwd.startswith("/") else f"{box.home}/{cwd}"):
            return _failed("invalid_argument", f"cwd '{cwd}' does not exist")
        keepalive = float(request.headers.get("keepalive-ping-interval") or 90)
        running = RunningProcess(
            box,
            [str(process.get("cmd", "")), *(str(word) for word in process.get("args") or [])],
            env={**sandbox.env, **(process.get("envs") or {})},
            cwd=cwd,
            uid=uid,
            stdin=asked.get("stdin", True) is not False or not self._estate.envd_is(0, 3, 0),
            size=None if size is None else (int(size.get("cols", 80)), int(size.get("rows", 24))),
            tag=asked.get("tag"),
            done=lambda ended: _forget(sandbox, ended),
            wrote=lambda name, data: sandbox.log(data.decode("utf-8", "replace").rstrip("\n"), event_type=name),
        )
        sandbox.processes[running.pid] = running
        sandbox.log("Process started", event_type="process_start", pid=str(running.pid))
        return _stream(stream(running, keepalive=keepalive, until=_until(request), started=True))

    def _connect(self, request: Request) -> Reply:
        sandbox = self.of(request)
        running = self._selected(sandbox, _only_message(request.body))
        keepalive = float(request.headers.get("keepalive-ping-interval") or 90)
        return _stream(stream(running, keepalive=keepalive, until=_until(request), started=False))

    def _list(self, request: Request) -> Reply:
        sandbox = self.of(request)
        found = [
            {"config": running.config, "pid": running.pid, **({"tag": running.tag} if running.tag else {})}
            for running in list(sandbox.processes.values())
        ]
        return Reply(json={"processes": found})

    def _send_input(self, request: Request) -> Reply:
        sandbox, asked = self.of(request), request.json()
        _write(self._selected(sandbox, asked), asked.get("input") or {})
        return Reply(json={})

    def _stream_input(self, request: Request) -> Reply:
        sandbox, running = self.of(request), None
        for message in _messages(request.incoming()):
            if "start" in message:
                running = self._selected(sandbox, message["start"])
            elif "data" in message and running is not None:
                _write(running, message["data"].get("input") or {})
        end = struct.pack(">BI", 0, 2) + b"{}" + struct.pack(">BI", 2, 2) + b"{}"
        return Reply(body=end, headers={"content-type": "application/connect+json"})

    def _close_stdin(self, request: Request) -> Reply:
        if not self._estate.envd_is(0, 5, 2):
            return Reply(status=404, body=b"404 page not found", headers={"content-type": "text/plain"})
        running = self._selected(self.of(request), request.json())
        if running.terminal:
            raise refused("unknown", "error closing stdin: cannot close stdin for PTY process")
        running.close_input()
        return Reply(json={})

    def _send_signal(self, request: Request) -> Reply:
        asked = request.json()
        running = self._selected(self.of(request), asked)
        number = {"SIGNAL_SIGTERM": 15, "SIGNAL_SIGKILL": 9, 15: 15, 9: 9}.get(asked.get("signal"))
        if number is None:
            raise refused("unimplemented", f"invalid signal: {asked.get('signal')}")
        running.signal(number)
        return Reply(json={})

    def _update(self, request: Request) -> Reply:
        self._selected(self.of(request), request.json())
        return Reply(json={})

    def _selected(self, sandbox: E2BSandbox, asked: dict[str, Any]) -> RunningProcess:
        selector = asked.get("process") or {}
        if "pid" in selector:
            found = sandbox.processes.get(int(selector["pid"]))
            what = f"process with pid {selector['pid']} not found"
        else:
            tag = selector.get("tag")
            found = next((running for running in list(sandbox.processes.values()) if running.tag == tag), None)
            what = f"process with tag {tag} not found"
        if found is None:
            raise refused("not_found", what)
        return found


def _until(request: Request) -> float | None:
    """When the call is over: a little before its client gives up, who began to count earlier."""
    timeout = int(request.headers.get("connect-timeout-ms") or 0) / 1000
    return time.monotonic() + timeout - min(0.1, timeout / 10) if timeout else None


def _forget(sandbox: E2BSandbox, ended: RunningProcess) -> None:
    sandbox.processes.pop(ended.pid, None)
    sandbox.log("Process ended", event_type="process_end", pid=str(ended.pid))


def _write(running: RunningProcess, data: dict[str, Any]) -> None:
    kind = "pty" if "pty" in data else "stdin"
    if (kind == "pty") != running.terminal:
        raise refused("internal", f"error writing to {kind}: it is not what the process has")
    try:
        running.write(base64.b64decode(data.get(kind, "")))
    except OSError as error:
        raise refused("internal", f"error writing to {kind}: {error}") from None


def _messages(chunks: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    held = b""
    for chunk in chunks:
        held += chunk
        while len(held) >= 5 and len(held) >= 5 + (length := int.from_bytes(held[1:5], "big")):
            body, held = held[5 : 5 + length], held[5 + length :]
            yield json.loads(body or b"{}")


def _only_message(body: bytes) -> dict[str, Any]:
    messages = list(_messages(iter([body])))
    if len(messages) != 1:
        raise refused("invalid_argument", "one message was expected")
    return messages[0]


def _frame(message: Any, flags: int = 0) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode()
    return struct.pack(">BI", flags, len(body)) + body


def _stream(events: Iterator[Event | None]) -> Reply:
    def frames() -> Iterator[bytes]:
        try:
            for event in events:
                if event is None:
                    message = "the deadline of the call has passed"
                    yield _frame({"error": {"code": "deadline_exceeded", "message": message}}, 2)
                    return
                yield _frame({"event": event}) + (_frame({}, 2) if "end" in event else b"")
        finally:
            close = getattr(events, "close", None)
            if close is not None:
                close()

    return Reply(stream=frames(), headers={"content-type": "application/connect+json"})


def _failed(code: str, message: str) -> Reply:
    """An error of a streaming call comes inside the stream, with status 200."""
    body = _frame({"error": {"code": code, "message": message}}, 2)
    return Reply(body=body, headers={"content-type": "application/connect+json"})
