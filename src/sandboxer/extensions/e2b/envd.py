"""Call the envd of one sandbox: processes over the Connect protocol, files over HTTP."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

from sandboxer.errors import NotConfigured, SandboxerError
from sandboxer.extensions.base import Context
from sandboxer.extensions.e2b import connect
from sandboxer.extensions.e2b.errors import envd_error, stream_error
from sandboxer.extensions.e2b.handle import DEFAULT_API, E2BHandleData
from sandboxer.extensions.e2b.sandbox import EnvdAccess
from sandboxer.extensions.provider.command_bytes import carried
from sandboxer.hosts.base import Sink
from sandboxer.http import ApiClient
from sandboxer.timing import Deadline

PORT: Final = 49983
_STDIN_FLAG: Final = (0, 3, 0)
_DEFAULT_USER: Final = (0, 4, 0)
_CLOSE_STDIN: Final = (0, 5, 2)
_RAW_UPLOAD: Final = (0, 5, 7)
"""envd's versions since which it understands the field `stdin`, a request without a user, CloseStdin, and uploads that
are no form (`e2b.envd.versions` of the SDK)."""
_OLD_USER: Final = "user"
_SHARED_DOMAINS: Final = frozenset({
    "e2b.app", "e2b.dev", "e2b.pro", "e2b-staging.dev", "e2b-tango.dev", "e2b-juliett.dev", "foxtrot-2.e2b.dev",
})  # fmt: skip
"""Domains where one host serves all sandboxes, which headers tell apart (`e2b.sandbox_domains` of the SDK)."""
_KEEPALIVE_SECONDS: Final = 50
_BACKSTOP_SECONDS: Final = 30
"""So much later than ourselves envd ends a command by itself: only when we are no longer there to do it."""
CHUNK: Final = 256 * 1024
_WHOLE: Final = 4 << 20
"""Up to so many bytes of a file are held in memory, to send it with its length."""


def domain_of(api: str, access: EnvdAccess | None, chosen: str | None) -> str | None:
    """Choose the domain below which the ports of sandboxes are: what E2B says, else the one that was chosen by
    E2B_DOMAIN, else that of an API at `api.DOMAIN`. Pure."""
    if access is not None and access.domain:
        return access.domain
    if chosen:
        return chosen
    host = urlsplit(api or DEFAULT_API).hostname or ""
    return host.removeprefix("api.") if host.startswith("api.") else None


def address_of(data: E2BHandleData, access: EnvdAccess, endpoints: Mapping[str, str]) -> str:
    """Choose the address of a sandbox's envd: at E2B_SANDBOX_URL when that is set. Pure. Raises NotConfigured when
    nothing tells: what another server made is not looked for at E2B, and its token not sent there."""
    if endpoint := endpoints.get("sandbox"):
        return endpoint
    domain = domain_of(data.api, access, endpoints.get("domain"))
    if domain is None:
        raise NotConfigured(
            f"{data.api} does not tell how its sandboxes are reached",
            hint="set E2B_DOMAIN, or E2B_SANDBOX_URL to the address at which they are",
        )
    return f"https://sandbox.{domain}" if domain in _SHARED_DOMAINS else f"https://{PORT}-{data.id}.{domain}"


def address_known(data: E2BHandleData, access: EnvdAccess, ctx: Context) -> bool:
    """Tell whether the address of a sandbox's envd is known. Pure."""
    return bool(ctx.endpoints.get("sandbox")) or domain_of(data.api, access, ctx.endpoints.get("domain")) is not None


class Envd:
    """Calls on the envd of one sandbox, as the user of its profile or as `user`."""

    def __init__(self, data: E2BHandleData, access: EnvdAccess, ctx: Context, *, user: str | None = None) -> None:
        self._access = access
        self._data = data
        self._user = user or data.user or (None if access.envd >= _DEFAULT_USER else _OLD_USER)
        base = address_of(data, access, ctx.endpoints)
        self._api = ApiClient(base, name="E2B's sandbox", headers=self._headers, refuse=envd_error)

    def _headers(self) -> Mapping[str, str]:
        headers = {"E2b-Sandbox-Id": self._data.id, "E2b-Sandbox-Port": str(PORT)}
        if self._access.token is not None:
            headers["X-Access-Token"] = self._access.token.reveal()
        if self._user is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{self._user}:".encode()).decode()
        return headers

    @property
    def closes_stdin(self) -> bool:
        """Whether an input can be ended: older ones get theirs from a file."""
        return self._access.envd >= _CLOSE_STDIN

    def healthy(self, deadline: Deadline) -> None:
        """Ask whether it answers. Raises what it says otherwise."""
        self._api.call("GET", "/health", deadline, retry="safe", expect=(200, 204))

    @contextmanager
    def start(
        self,
        words: Sequence[str],
        deadline: Deadline,
        *,
        env: Mapping[str, str] | None = None,
        stdin: bool = False,
        size: tuple[int, int] | None = None,
    ) -> Iterator[Iterator[connect.ProcessEvent]]:
        """Start a process (`sh -c SCRIPT NAME WORD...`) and read its events. `size` (columns, rows) gives it a
        terminal. Leaving the `with` does not end the process. Raises what envd says of it, and Invalid."""
        (command, *args), envs = carried(words, env or {})
        request: dict[str, Any] = {"process": {"cmd": command, "args": args, "envs": envs}}
        if size is not None:
            request["pty"] = {"size": {"cols": size[0], "rows": size[1]}}
        if self._access.envd >= _STDIN_FLAG:
            request["stdin"] = stdin
        headers = {
            "Content-Type": "application/connect+json",
            "Connect-Protocol-Version": "1",
            "Keepalive-Ping-Interval": str(_KEEPALIVE_SECONDS),
        }
        left = deadline.left()
        if left is not None:
            headers["Connect-Timeout-Ms"] = str(int((left + _BACKSTOP_SECONDS) * 1000))
        with self._api.stream(
            "POST", "/process.Process/Start", deadline, content=connect.frame(request), headers=headers
        ) as answer:
            yield _events(answer.chunks())

    def send(self, pid: int, data: bytes, deadline: Deadline, *, terminal: bool) -> None:
        """Write to a process's input. Raises BrokenPipeError when it takes no more."""
        kind = "pty" if terminal else "stdin"
        request = {"process": {"pid": pid}, "input": {kind: data}}
        try:
            self._api.call("POST", "/process.Process/SendInput", deadline, json=request)
        except SandboxerError as error:
            # a process that has ended, or closed its input, is "not found" or an internal error of the write
            details = error.details or {}
            if details.get("status") in (404, 500) and details.get("connect") != "unimplemented":
                raise BrokenPipeError from error
            raise

    def end_input(self, pid: int, deadline: Deadline) -> None:
        """Tell a process that its input has ended; one that is gone does not care."""
        request = {"process": {"pid": pid}}
        self._api.call("POST", "/process.Process/CloseStdin", deadline, json=request, expect=(200, 404))

    def kill(self, pid: int, deadline: Deadline) -> None:
        """Kill one process, not what it has started; one that is gone is success."""
        request = {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"}
        self._api.call("POST", "/process.Process/SendSignal", deadline, json=request, retry="safe", expect=(200, 404))

    def upload(self, path: str, content: BinaryIO, deadline: Deadline) -> None:
        """Write a file; missing directories are made. A small one goes as the field of a form, of a length that is told
        before: every server understands that. A large one is sent as it is read."""
        params, first = self._of(path), _some(content, _WHOLE + 1)
        whole = len(first) <= _WHOLE
        if self._access.envd >= _RAW_UPLOAD and not whole:
            self._api.call("POST", "/files", deadline, params=params, content=_pieces(first, content))
            return
        boundary = f"sandboxer-{os.urandom(16).hex()}"
        form = _form(boundary, _pieces(first, content))
        self._api.call(
            "POST",
            "/files",
            deadline,
            params=params,
            content=b"".join(form) if whole else form,
            headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
        )

    def download(self, path: str, sink: Sink, deadline: Deadline) -> None:
        """Read a file as it comes."""
        with self._api.stream("GET", "/files", deadline, params=self._of(path)) as answer:
            for chunk in answer.chunks():
                sink(chunk)

    def remove(self, path: str, deadline: Deadline) -> None:
        """Remove a file; one that is gone is success."""
        self._api.call(
            "POST", "/filesystem.Filesystem/Remove", deadline, json={"path": path}, retry="safe", expect=(200, 404)
        )

    def _of(self, path: str) -> dict[str, str]:
        return {"path": path} if self._user is None else {"path": path, "username": self._user}


def _events(chunks: Iterator[bytes]) -> Iterator[connect.ProcessEvent]:
    for event in connect.events(chunks):
        if isinstance(event, connect.ConnectError):
            raise stream_error(event.code, event.message)
        yield event


def _some(content: BinaryIO, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (chunk := content.read(min(CHUNK, size - len(data)))):
        data += chunk
    return bytes(data)


def _pieces(first: bytes, rest: BinaryIO) -> Iterator[bytes]:
    if first:
        yield first
    while chunk := rest.read(CHUNK):
        yield chunk


def _form(boundary: str, content: Iterator[bytes]) -> Iterator[bytes]:
    """A file as the only field of a form."""
    yield (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    yield from content
    yield f"\r\n--{boundary}--\r\n".encode()
