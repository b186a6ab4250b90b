"""The worker that runs a sandbox: those methods of `modal.task_command_router.TaskCommandRouter` that are needed."""

from __future__ import annotations

import asyncio
import base64
import json
import shlex
import socket
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from grpclib import GRPCError, Status
from modal_proto import task_command_router_pb2 as pb

from tests.fakes.modal.programs import Program
from tests.fakes.modal.state import Image, ModalSandbox, ModalState, identifier

Metadata = Mapping[str, str]


class Router:
    """Commands in sandboxes, as real processes. What a command leaves running holds its output open."""

    def __init__(self, world: ModalState) -> None:
        self._world = world

    async def sandbox_wait_until_ready(self, message: Any, metadata: Metadata) -> Any:
        sandbox = self._sandbox(message, metadata)
        probe = sandbox.definition.readiness_probe
        if probe.WhichOneof("probe_oneof") is None:
            raise GRPCError(Status.INVALID_ARGUMENT, "Sandbox has no readiness probe")
        end = time.monotonic() + message.timeout
        await sandbox.started.wait()
        while sandbox.ready_at is None:
            if not sandbox.running:
                raise GRPCError(Status.FAILED_PRECONDITION, "Sandbox has already completed")
            if time.monotonic() > end:
                raise GRPCError(Status.DEADLINE_EXCEEDED, "Sandbox is not ready")
            if await self._world.in_thread(_ready, sandbox, probe):
                sandbox.ready_at = time.time()
            else:
                await asyncio.sleep(probe.interval_ms / 1000)
        return pb.SandboxWaitUntilReadyTcrResponse(ready_at=sandbox.ready_at)

    async def task_exec_start(self, message: Any, metadata: Metadata) -> Any:
        """The same id again is the same command."""
        sandbox = self._sandbox(message, metadata)
        await sandbox.started.wait()
        if message.exec_id in sandbox.execs:
            return pb.TaskExecStartResponse()
        env = dict(sandbox.env)
        for source in message.secret_sources:
            env |= dict(source.env.contents)
            env |= self._world.secrets.get(source.secret_id, {})
        argv = list(message.command_args)
        pty = message.HasField("pty_info") and message.pty_info.enabled
        if pty:
            argv = ["script", "-qefc", shlex.join(argv), "/dev/null"]
        try:
            process = await self._world.in_thread(
                lambda: sandbox.box.start(
                    argv, env=env, cwd=message.workdir or sandbox.definition.workdir or "/", stdin=True, merged=pty
                )
            )
        except FileNotFoundError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, f"working directory {error.filename!r} does not exist") from None
        except RuntimeError:
            raise GRPCError(Status.NOT_FOUND, f"Task {message.task_id} has ended") from None
        program = sandbox.execs[message.exec_id] = Program(process)
        if message.timeout_secs:
            program.end_after(message.timeout_secs)
        return pb.TaskExecStartResponse()

    async def task_exec_stdio_read(self, message: Any, metadata: Metadata) -> AsyncIterator[Any]:
        program = self._exec(message, metadata)
        stderr = message.file_descriptor == pb.TASK_EXEC_STDIO_FILE_DESCRIPTOR_STDERR
        async for _, chunk in (program.stderr if stderr else program.stdout).read(message.offset):
            yield pb.TaskExecStdioReadResponse(data=chunk)

    async def task_exec_stdin_write(self, message: Any, metadata: Metadata) -> Any:
        program = self._exec(message, metadata)
        try:
            await self._world.in_thread(lambda: program.feed(message.offset, message.data, eof=message.eof))
        except (BrokenPipeError, ValueError):
            raise GRPCError(Status.FAILED_PRECONDITION, "stdin is closed") from None
        return pb.TaskExecStdinWriteResponse()

    async def task_exec_wait(self, message: Any, metadata: Metadata) -> Any:
        program = self._exec(message, metadata)
        return pb.TaskExecWaitResponse(code=await asyncio.shield(program.code))

    def task_exec_poll(self, message: Any, metadata: Metadata) -> Any:
        program = self._exec(message, metadata)
        return pb.TaskExecPollResponse(code=program.code.result()) if program.code.done() else pb.TaskExecPollResponse()

    async def sandbox_stdio_read_v2(self, message: Any, metadata: Metadata) -> AsyncIterator[Any]:
        sandbox = self._sandbox(message, metadata)
        await sandbox.started.wait()
        if sandbox.main is None:
            return
        stderr = message.file_descriptor == pb.SANDBOX_STDIO_FILE_DESCRIPTOR_STDERR
        async for at, chunk in (sandbox.main.stderr if stderr else sandbox.main.stdout).read(message.offset):
            yield pb.SandboxStdioReadV2Response(data=chunk, starting_offset=at)

    async def task_snapshot_filesystem(self, message: Any, metadata: Metadata) -> Any:
        """The same id again is the same snapshot."""
        sandbox = self._sandbox(message, metadata)
        key = f"snapshot {message.snapshot_id}"
        if key not in self._world.answered:
            image = Image(id=identifier("im"), files=await self._world.in_thread(sandbox.box.copy))
            self._world.images[image.id] = image
            self._world.answered[key] = image.id
        return pb.TaskSnapshotFilesystemResponse(image_id=self._world.answered[key])

    def _sandbox(self, message: Any, metadata: Metadata) -> ModalSandbox:
        try:
            payload = metadata["authorization"].removeprefix("Bearer ").split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        except (KeyError, IndexError, ValueError):
            claims = {}
        if claims.get("task") != message.task_id or claims.get("exp", 0) < time.time():
            raise GRPCError(Status.UNAUTHENTICATED, "invalid token")
        return self._world.by_task(message.task_id)

    def _exec(self, message: Any, metadata: Metadata) -> Program:
        program = self._sandbox(message, metadata).execs.get(message.exec_id)
        if program is None:
            raise GRPCError(Status.NOT_FOUND, f"Exec {message.exec_id} not found")
        return program


def _ready(sandbox: ModalSandbox, probe: Any) -> bool:
    if probe.WhichOneof("probe_oneof") == "tcp_port":
        with socket.socket() as attempt:
            attempt.settimeout(1)
            return attempt.connect_ex(("127.0.0.1", probe.tcp_port)) == 0
    try:
        return sandbox.box.run(list(probe.exec_command.argv), timeout=10)[0] == 0
    except (RuntimeError, TimeoutError):
        return False
