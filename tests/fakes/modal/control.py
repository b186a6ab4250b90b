"""The control plane: those methods of `modal.client.ModalClient` that sandboxes need."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.fakes.modal.state import Image, ModalSandbox, ModalState, Result, identifier

_TOKEN_SECONDS: Final = 1200
_BUILDER: Final = "2025.06"
_LONG_POLL: Final = 55.0
Metadata = Mapping[str, str]


def token(**claims: Any) -> str:
    """A JWT that nobody signed."""

    def part(value: Mapping[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return ".".join([part({"alg": "none"}), part({"exp": time.time() + _TOKEN_SECONDS, **claims}), "x"])


class Control:
    """One workspace, with one valid token. Images whose name starts with `no-such` cannot be built."""

    def __init__(self, world: ModalState, *, token_id: str, token_secret: str) -> None:
        self._world = world
        self._credentials = (token_id, token_secret)
        self._auth_token = token(kind="auth")
        self.url = ""

    # -- the workspace --------------------------------------------------------------------------------------------

    def client_hello(self, _message: Empty, metadata: Metadata) -> Any:
        self._known(metadata)
        return api_pb2.ClientHelloResponse()

    def auth_token_get(self, _message: Any, metadata: Metadata) -> Any:
        self._known(metadata)
        return api_pb2.AuthTokenGetResponse(token=self._auth_token)

    def environment_get_or_create(self, message: Any, metadata: Metadata) -> Any:
        self._known(metadata)
        settings = api_pb2.EnvironmentSettings(image_builder_version=_BUILDER, webhook_suffix="")
        name = message.deployment_name or "main"
        return api_pb2.EnvironmentGetOrCreateResponse(
            environment_id="en-" + hashlib.sha256(name.encode()).hexdigest()[:22],
            metadata=api_pb2.EnvironmentMetadata(name=name, settings=settings),
        )

    def app_get_or_create(self, message: Any, metadata: Metadata) -> Any:
        self._known(metadata)
        key = (message.environment_name or "main", message.app_name)
        if key not in self._world.apps:
            if message.object_creation_type != api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING:
                raise GRPCError(Status.NOT_FOUND, f"App '{message.app_name}' not found")
            self._world.apps[key] = identifier("ap")
        return api_pb2.AppGetOrCreateResponse(app_id=self._world.apps[key])

    def secret_get_or_create(self, message: Any, metadata: Metadata) -> Any:
        self._known(metadata)
        secret_id = identifier("st")
        self._world.secrets[secret_id] = dict(message.env_dict)
        return api_pb2.SecretGetOrCreateResponse(secret_id=secret_id)

    # -- images ---------------------------------------------------------------------------------------------------

    def image_get_or_create(self, message: Any, metadata: Metadata) -> Any:
        self._known(metadata)
        commands = "\n".join(message.image.dockerfile_commands)
        image_id = "im-" + hashlib.sha256(commands.encode()).hexdigest()[:22]
        if commands.startswith("FROM no-such"):
            failed = Result(status=Result.GENERIC_STATUS_FAILURE, exception="manifest unknown: no such image")
            return api_pb2.ImageGetOrCreateResponse(image_id=image_id, result=failed)
        self._world.images.setdefault(image_id, Image(id=image_id))
        done = Result(status=Result.GENERIC_STATUS_SUCCESS)
        return api_pb2.ImageGetOrCreateResponse(image_id=image_id, result=done, metadata=api_pb2.ImageMetadata())

    def image_from_id(self, message: Any, metadata: Metadata) -> Any:
        self._known(metadata)
        if message.image_id not in self._world.images:
            raise GRPCError(Status.NOT_FOUND, f"Image {message.image_id} not found")
        return api_pb2.ImageFromIdResponse(image_id=message.image_id, metadata=api_pb2.ImageMetadata())

    async def image_delete(self, message: Any, metadata: Metadata) -> Any:
        self._known(metadata)
        image = self._world.images.pop(message.image_id, None)
        if image is None:
            raise GRPCError(Status.NOT_FOUND, f"Image {message.image_id} not found")
        if image.files is not None:
            await self._world.in_thread(image.files.close)
        return Empty()

    # -- create ---------------------------------------------------------------------------------------------------

    async def sandbox_create(self, message: Any, metadata: Metadata) -> Any:
        """V1: answered at once; whether there is a machine is asked by `SandboxGetTaskId`."""
        self._known(metadata)
        env: dict[str, str] = {}
        for secret_id in message.definition.secret_ids:
            env |= self._world.secrets.get(secret_id, {})
        return await self._once(metadata, self._create(message, env, v1=True))

    async def sandbox_create_v2(self, message: Any, metadata: Metadata) -> Any:
        self._authorised(metadata)
        if message.definition.resources.gpu_config.gpu_type:
            raise GRPCError(Status.INVALID_ARGUMENT, "GPUs are not supported")
        env: dict[str, str] = {}
        for source in message.secret_sources:
            env |= dict(source.env.contents) if source.WhichOneof("source") == "env" else {}
            env |= self._world.secrets.get(source.secret_id, {})
        return await self._once(metadata, self._create(message, env, v1=False))

    async def _create(self, message: Any, env: Mapping[str, str], *, v1: bool) -> Any:
        tags = {tag.tag_name: tag.tag_value for tag in message.tags}
        sandbox = await self._world.create(message.app_id, message.definition, tags, env, v1=v1)
        handle = api_pb2.SandboxHandleMetadata(app_id=sandbox.app_id)
        if v1:
            return api_pb2.SandboxCreateResponse(sandbox_id=sandbox.id, metadata=handle)
        return api_pb2.SandboxCreateV2Response(
            sandbox_id=sandbox.id,
            task_id=sandbox.task_id if sandbox.placed else "",
            metadata=handle,
            tunnels=_tunnels(sandbox),
            command_router_access=self._access(sandbox),
        )

    async def _once(self, metadata: Metadata, work: Any) -> Any:
        """The answer to a request that is sent again with the same key is the first one's, if the world is so kind."""
        key = metadata.get("x-idempotency-key", "")
        if not key or not self._world.deduplicates:
            return await work
        if key in self._world.answered:
            work.close()
            return await asyncio.shield(self._world.answered[key])
        task = self._world.answered[key] = asyncio.ensure_future(work)
        return await asyncio.shield(task)

    # -- looking --------------------------------------------------------------------------------------------------

    async def sandbox_wait(self, message: Any, metadata: Metadata) -> Any:
        self._known(metadata)
        return await self._wait(self._world.get(message.sandbox_id, v1=True), message.timeout)

    async def sandbox_wait_v2(self, message: Any, metadata: Metadata) -> Any:
        self._authorised(metadata)
        return await self._wait(self._world.get(message.sandbox_id, v1=False), message.timeout)

    async def _wait(self, sandbox: ModalSandbox, seconds: float) -> Any:
        end = time.monotonic() + min(seconds, _LONG_POLL)
        while sandbox.running and time.monotonic() < end:
            await asyncio.sleep(0.01)
        handle = api_pb2.SandboxHandleMetadata(app_id=sandbox.app_id)
        return api_pb2.SandboxWaitResponse(result=sandbox.result, metadata=handle)

    def sandbox_get_task_id(self, message: Any, metadata: Metadata) -> Any:
        self._known(metadata)
        return self._task_id(self._world.get(message.sandbox_id, v1=True))

    def sandbox_get_task_id_v2(self, message: Any, metadata: Metadata) -> Any:
        self._authorised(metadata)
        return self._task_id(self._world.get(message.sandbox_id, v1=False))

    def _task_id(self, sandbox: ModalSandbox) -> Any:
        if self._world.schedule(sandbox) and sandbox.running:
            return api_pb2.SandboxGetTaskIdResponse(task_id=sandbox.task_id)
        return api_pb2.SandboxGetTaskIdResponse(task_result=sandbox.result)

    def sandbox_get_from_name(self, message: Any, metadata: Metadata) -> Any:
        self._known(metadata)
        return self._named(message, v1=True)

    def sandbox_get_from_name_v2(self, message: Any, metadata: Metadata) -> Any:
        self._authorised(metadata)
        return self._named(message, v1=False)

    def _named(self, message: Any, *, v1: bool) -> Any:
        app_id = self._world.apps.get((message.environment_name or "main", message.app_name))
        for sandbox in self._world.living():
            if sandbox.v1 == v1 and (sandbox.app_id, sandbox.name) == (app_id, message.sandbox_name):
                handle = api_pb2.SandboxHandleMetadata(app_id=sandbox.app_id)
                return api_pb2.SandboxGetFromNameResponse(sandbox_id=sandbox.id, metadata=handle)
        raise GRPCError(Status.NOT_FOUND, f"Sandbox with name '{message.sandbox_name}' not found")

    def sandbox_list(self, message: Any, metadata: Metadata) -> Any:
        self._known(metadata)
        return self._page(message, [sandbox for sandbox in self._world.living() if sandbox.v1])

    def sandbox_list_v2(self, message: Any, metadata: Metadata, *, stale: bool = False) -> Any:
        """Both kinds, newest first, `page` at a time."""
        self._authorised(metadata)
        if stale:
            return self._page(message, [self._world.sandboxes[sandbox_id] for sandbox_id in self._world.before])
        return self._page(message, self._world.living())

    def _page(self, message: Any, sandboxes: list[ModalSandbox]) -> Any:
        wanted = {tag.tag_name: tag.tag_value for tag in message.tags}
        found = [
            sandbox
            for sandbox in sorted(sandboxes, key=lambda one: -one.created_at)
            if message.app_id in ("", sandbox.app_id)
            and (not message.before_timestamp or sandbox.created_at < message.before_timestamp)
            and wanted.items() <= sandbox.tags.items()
        ]
        return api_pb2.SandboxListResponse(
            sandboxes=[
                api_pb2.SandboxInfo(
                    id=sandbox.id,
                    created_at=sandbox.created_at,
                    app_id=sandbox.app_id,
                    name=sandbox.name,
                    timeout_secs=sandbox.definition.timeout_secs,
                    task_info=api_pb2.TaskInfo(id=sandbox.task_id, sandbox_id=sandbox.id),
                    metadata=api_pb2.SandboxHandleMetadata(app_id=sandbox.app_id),
                )
                for sandbox in found[: self._world.page]
            ]
        )

    # -- the rest of a life ---------------------------------------------------------------------------------------

    async def sandbox_terminate(self, message: Any, metadata: Metadata) -> Any:
        self._known(metadata)
        return await self._terminate(self._world.get(message.sandbox_id, v1=True))

    async def sandbox_terminate_v2(self, message: Any, metadata: Metadata) -> Any:
        self._authorised(metadata)
        return await self._terminate(self._world.get(message.sandbox_id, v1=False))

    async def _terminate(self, sandbox: ModalSandbox) -> Any:
        before = sandbox.result
        await self._world.end(sandbox, Result.GENERIC_STATUS_TERMINATED)
        return api_pb2.SandboxTerminateResponse(existing_result=before)

    def sandbox_tags_get(self, message: Any, metadata: Metadata) -> Any:
        self._known(metadata)
        return _tags(self._world.get(message.sandbox_id, v1=True))

    def sandbox_tags_get_v2(self, message: Any, metadata: Metadata) -> Any:
        self._authorised(metadata)
        return _tags(self._world.get(message.sandbox_id, v1=False))

    def sandbox_tags_set(self, message: Any, metadata: Metadata) -> Any:
        self._known(metadata)
        return _set_tags(self._world.get(message.sandbox_id, v1=True), message)

    def sandbox_tags_set_v2(self, message: Any, metadata: Metadata) -> Any:
        self._authorised(metadata)
        return _set_tags(self._world.get(message.sandbox_id, v1=False), message)

    def sandbox_get_tunnels(self, message: Any, metadata: Metadata) -> Any:
        self._known(metadata)
        return self._tunnels(self._world.get(message.sandbox_id, v1=True))

    def sandbox_get_tunnels_v2(self, message: Any, metadata: Metadata) -> Any:
        self._authorised(metadata)
        return self._tunnels(self._world.get(message.sandbox_id, v1=False))

    def _tunnels(self, sandbox: ModalSandbox) -> Any:
        done = Result(status=Result.GENERIC_STATUS_SUCCESS)
        return api_pb2.SandboxGetTunnelsResponse(result=done, tunnels=_tunnels(sandbox))

    def task_get_command_router_access(self, message: Any, metadata: Metadata) -> Any:
        self._known(metadata)
        access = self._access(self._world.by_task(message.task_id))
        return api_pb2.TaskGetCommandRouterAccessResponse(jwt=access.jwt, url=access.url)

    def sandbox_get_command_router_access(self, message: Any, metadata: Metadata) -> Any:
        self._authorised(metadata)
        if message.WhichOneof("target") == "task_id":
            sandbox = self._world.by_task(message.task_id)
        else:
            sandbox = self._world.get(message.sandbox_id, v1=False)
        if not sandbox.running:
            raise GRPCError(Status.FAILED_PRECONDITION, f"Sandbox {sandbox.id} has already completed")
        access = self._access(sandbox)
        return api_pb2.SandboxGetCommandRouterAccessResponse(jwt=access.jwt, url=access.url)

    def _access(self, sandbox: ModalSandbox) -> Any:
        return api_pb2.CommandRouterAccess(url=self.url, jwt=token(task=sandbox.task_id))

    # -- logs -----------------------------------------------------------------------------------------------------

    async def sandbox_get_logs(self, message: Any, metadata: Metadata) -> AsyncIterator[Any]:
        self._known(metadata)
        sandbox = self._world.get(message.sandbox_id, v1=True)
        await sandbox.started.wait()
        offset = int(message.last_entry_id or 0)
        if sandbox.main is not None:
            stderr = message.file_descriptor == api_pb2.FILE_DESCRIPTOR_STDERR
            stream = sandbox.main.stderr if stderr else sandbox.main.stdout
            async for at, chunk in stream.read(offset):
                offset = at + len(chunk)
                item = api_pb2.TaskLogs(data=chunk.decode(), file_descriptor=message.file_descriptor)
                yield api_pb2.TaskLogsBatch(task_id=sandbox.task_id, items=[item], entry_id=str(offset))
        yield api_pb2.TaskLogsBatch(task_id=sandbox.task_id, eof=True, entry_id=str(offset))

    def app_fetch_logs(self, message: Any, metadata: Metadata) -> Any:
        """The last entries (lines), oldest first, stdout before stderr: when each was written is not known here."""
        self._known(metadata)
        items: list[Any] = []
        for sandbox in self._world.sandboxes.values():
            if sandbox.main is None or message.task_id not in ("", sandbox.task_id):
                continue
            for descriptor, output in (
                (api_pb2.FILE_DESCRIPTOR_STDOUT, sandbox.main.stdout),
                (api_pb2.FILE_DESCRIPTOR_STDERR, sandbox.main.stderr),
            ):
                if message.source in (api_pb2.FILE_DESCRIPTOR_UNSPECIFIED, descriptor):
                    items += [
                        api_pb2.TaskLogs(data=line.decode(), file_descriptor=descriptor, timestamp=time.time())
                        for line in output.whole().splitlines(keepends=True)
                    ]
        latest = items[-message.limit :] if message.limit else items
        return api_pb2.AppFetchLogsResponse(batches=[api_pb2.TaskLogsBatch(items=latest)] if latest else [])

    # -- who is there ---------------------------------------------------------------------------------------------

    def _known(self, metadata: Metadata) -> None:
        if (metadata.get("x-modal-token-id"), metadata.get("x-modal-token-secret")) != self._credentials:
            raise GRPCError(Status.UNAUTHENTICATED, "Token ID is malformed or unknown")

    def _authorised(self, metadata: Metadata) -> None:
        """V2 methods want the short-lived token besides."""
        self._known(metadata)
        if metadata.get("x-modal-auth-token") != self._auth_token:
            raise GRPCError(Status.UNAUTHENTICATED, "Missing auth token")


def _tags(sandbox: ModalSandbox) -> Any:
    found = [api_pb2.SandboxTag(tag_name=name, tag_value=value) for name, value in sandbox.tags.items()]
    return api_pb2.SandboxTagsGetResponse(tags=found)


def _set_tags(sandbox: ModalSandbox, message: Any) -> Empty:
    sandbox.tags = {tag.tag_name: tag.tag_value for tag in message.tags}
    return Empty()


def _tunnels(sandbox: ModalSandbox) -> list[Any]:
    """On loopback, and without TLS: the network of a box is the host's."""
    ports = sandbox.definition.open_ports.ports
    return [api_pb2.TunnelData(host="127.0.0.1", port=spec.port, container_port=spec.port) for spec in ports]
