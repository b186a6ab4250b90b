"""Our exec client against code that is not ours: the Connect server that E2B's own client is generated with."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import uvicorn
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from e2b.envd.process import process_pb
from e2b.envd.process.process_connect import Process, ProcessASGIApplication
from protobuf import Oneof

from sandboxer.errors import BackendError, SandboxerError, Timeout
from sandboxer.extensions.e2b import exec as e2b_exec
from sandboxer.extensions.e2b.envd import Envd
from sandboxer.extensions.e2b.handle import E2BHandleData
from sandboxer.extensions.e2b.sandbox import EnvdAccess, version
from sandboxer.extensions.shell.processes import KILL_TREE
from sandboxer.hosts.base import Streams
from sandboxer.secrets import Secret
from sandboxer.timing import Deadline
from tests.extensions.e2b.harness import context
from tests.fakes.e2b import FakeE2B
from tests.testbed.waiting import eventually

NOBODY = 1 << 23


class Small(Process):
    """Runs programs of this machine, by asyncio."""

    def __init__(self) -> None:
        self.running: dict[int, asyncio.subprocess.Process] = {}
        self.started: list[process_pb.StartRequest] = []
        self.headers: list[dict[str, str]] = []

    async def start(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        self.started.append(request)
        self.headers.append({name.lower(): value for name, value in ctx.request_headers.items()})
        words = [request.process.cmd, *request.process.args]
        if KILL_TREE in words:
            raise ConnectError(Code.PERMISSION_DENIED, "nothing of this machine is ended by a script")
        if "refuse me" in words:
            raise ConnectError(Code.INVALID_ARGUMENT, "no")
        if "number" in words:
            yield _event("start", process_pb.ProcessEvent.StartEvent(pid=int(words[-1])))
            return
        if "break off" in words:
            # a number above the kernel's own limit: what is ended by it cannot exist on this machine
            yield _event("start", process_pb.ProcessEvent.StartEvent(pid=NOBODY))
            return
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *words, env=dict(request.process.envs), stdin=pipe if request.stdin else None, stdout=pipe, stderr=pipe
        )
        self.running[process.pid] = process
        yield _event("start", process_pb.ProcessEvent.StartEvent(pid=process.pid))
        assert process.stdout is not None
        assert process.stderr is not None
        while chunk := await process.stdout.read(10_000):
            yield _event("data", process_pb.ProcessEvent.DataEvent(output=_output("stdout", chunk)))
        while chunk := await process.stderr.read(10_000):
            yield _event("data", process_pb.ProcessEvent.DataEvent(output=_output("stderr", chunk)))
        code = await process.wait()
        words_of_it = f"exit status {code}" if code >= 0 else "signal: killed"
        yield _event(
            "end", process_pb.ProcessEvent.EndEvent(exit_code=max(code, -1), exited=code >= 0, status=words_of_it)
        )

    async def send_input(self, request: Any, ctx: Any) -> Any:
        process = self._of(request)
        assert process.stdin is not None
        process.stdin.write(request.input.input.value)
        await process.stdin.drain()
        return process_pb.SendInputResponse()

    async def close_stdin(self, request: Any, ctx: Any) -> Any:
        process = self._of(request)
        assert process.stdin is not None
        process.stdin.close()
        return process_pb.CloseStdinResponse()

    async def send_signal(self, request: Any, ctx: Any) -> Any:
        self._of(request).send_signal(int(request.signal))
        return process_pb.SendSignalResponse()

    def _of(self, request: Any) -> asyncio.subprocess.Process:
        found = self.running.get(request.process.selector.value)
        if found is None or found.returncode is not None:
            raise ConnectError(Code.NOT_FOUND, "no such process")
        return found


def _output(field: Any, chunk: bytes) -> Any:
    return Oneof(field, chunk)


def _event(field: Any, value: Any) -> Any:
    event: Any = Oneof(field, value)
    return process_pb.StartResponse(event=process_pb.ProcessEvent(event=event))


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Small, str]]:
    service = Small()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(ProcessASGIApplication(service), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    eventually(lambda: server.started, within=10, what="uvicorn")
    yield service, f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def envd(served: tuple[Small, str], shared: FakeE2B) -> Envd:
    data = E2BHandleData(sandbox_id="a23456789012", id="i1", api=shared.url, key="0" * 8, born=time.time(), user="user")
    access = EnvdAccess(envd=version("0.6.7"), token=Secret("token-of-the-sandbox"))
    return Envd(data, access, context(shared, endpoints={"api": shared.url, "sandbox": served[1]}))


def run(envd: Envd, *argv: str, stdin: bytes | None = None, seconds: float = 20.0) -> tuple[int, bytes, bytes]:
    out, err = bytearray(), bytearray()
    source = None if stdin is None else io.BytesIO(stdin)
    streams = Streams(stdin=source, stdout=out.extend, stderr=err.extend)
    code = e2b_exec.run(envd, envd, argv, streams, Deadline(seconds), env={"PATH": "/usr/bin:/bin", "V": "a b"})
    return code, bytes(out), bytes(err)


def test_a_command_runs_with_its_streams_and_code(envd: Envd) -> None:
    assert run(envd, "sh", "-c", 'echo "$V"; echo err >&2; exit 3') == (3, b"a b\n", b"err\n")


def test_binary_output_of_megabytes_arrives(envd: Envd) -> None:
    code, out, _ = run(envd, "head", "-c", "5000000", "/dev/urandom")
    assert (code, len(out)) == (0, 5_000_000)


def test_an_input_arrives_and_ends(envd: Envd) -> None:
    data = bytes(range(256)) * 2000
    assert run(envd, "cat", stdin=data)[:2] == (0, data)


def test_who_does_not_read_its_input_ends_by_itself(envd: Envd) -> None:
    assert run(envd, "true", stdin=bytes(1 << 20))[0] == 0


def test_headers_are_those_of_the_protocol(envd: Envd, served: tuple[Small, str]) -> None:
    run(envd, "true")
    headers = served[0].headers[-1]
    assert headers["content-type"] == "application/connect+json"
    assert headers["x-access-token"] == "token-of-the-sandbox"
    assert headers["e2b-sandbox-id"] == "i1"
    assert headers["authorization"] == "Basic dXNlcjo="


def test_a_time_out_ends_it(envd: Envd, served: tuple[Small, str]) -> None:
    with pytest.raises(Timeout, match="in time"):
        run(envd, "sleep", "1234", seconds=1.0)
    process = list(served[0].running.values())[-1]
    eventually(lambda: process.returncode == -9, within=5, what="the end of the command")


def test_an_error_of_the_server_is_told(envd: Envd) -> None:
    with pytest.raises(SandboxerError, match="no"):
        run(envd, "refuse me")


def test_a_stream_without_an_end_is_told(envd: Envd) -> None:
    with pytest.raises(BackendError):
        run(envd, "break off")


@pytest.mark.parametrize("number", ["0", "1"])
def test_a_number_that_stands_for_everything_is_never_ended(envd: Envd, served: tuple[Small, str], number: str) -> None:
    before = len(served[0].started)
    with pytest.raises(BackendError, match="number"):
        run(envd, "number", number)
    assert len(served[0].started) == before + 1, "nothing further was run, to end it or otherwise"
