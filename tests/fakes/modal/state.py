"""What the fake cloud has: apps, images, and sandboxes with a life of their own."""

from __future__ import annotations

import asyncio
import random
import string
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.fakes.modal.programs import Program
from tests.fakes.sandbox_fs import SandboxFS

T = TypeVar("T")

_LETTERS: Final = string.ascii_letters + string.digits
_ULID: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_THREADS: Final = 64
Result = api_pb2.GenericResult


def identifier(prefix: str) -> str:
    """An id like those of Modal's older kinds of objects."""
    return f"{prefix}-" + "".join(random.choices(_LETTERS, k=22))  # noqa: S311 - not a secret


@dataclass
class Image:
    """An image; one that was made of a sandbox has its files."""

    id: str
    built: bool = True
    complaint: str = ""
    files: SandboxFS | None = None


@dataclass(eq=False)
class ModalSandbox:
    """One sandbox. `main` is None until it runs on the machine where it is `placed`; it has ended with `result`."""

    id: str
    app_id: str
    v1: bool
    definition: Any
    tags: dict[str, str]
    env: dict[str, str]
    created_at: float
    task_id: str
    box: SandboxFS
    main: Program | None = None
    result: Any = None
    started_at: float | None = None
    ended_at: float | None = None
    ready_at: float | None = None
    placed: bool = False
    execs: dict[str, Program] = field(default_factory=dict)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    timer: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        """Its name, or nothing."""
        return str(self.definition.name)

    @property
    def gpu(self) -> bool:
        """Whether it needs a GPU."""
        return bool(self.definition.resources.gpu_config.gpu_type)

    @property
    def running(self) -> bool:
        """Whether it has not ended; one that waits for a machine counts."""
        return self.result is None


class ModalState:
    """The state of the cloud. Everything but `in_thread`'s work happens on one event loop.

    `quota`: how many sandboxes may run; `gpus`: how many of them with a GPU have a machine, the others wait.
    `deduplicates`: whether a create that is sent again with the same idempotency key is answered with the same one.
    """

    def __init__(self) -> None:
        self.apps: dict[tuple[str, str], str] = {}
        self.images: dict[str, Image] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.sandboxes: dict[str, ModalSandbox] = {}
        self.before: list[str] = []
        self.answered: dict[str, Any] = {}
        self.quota: int | None = None
        self.gpus: int | None = None
        self.deduplicates = True
        self.page = 100
        self._last = 0.0
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="fake-modal")
        self._tasks: set[asyncio.Task[None]] = set()

    async def in_thread(self, work: Callable[..., T], *args: Any) -> T:
        """Something that may block."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args))

    def living(self) -> list[ModalSandbox]:
        """What has not ended."""
        return [sandbox for sandbox in list(self.sandboxes.values()) if sandbox.running]

    def get(self, sandbox_id: str, *, v1: bool | None = None) -> ModalSandbox:
        """A sandbox by its id; raises NOT_FOUND."""
        found = self.sandboxes.get(sandbox_id)
        if found is None or (v1 is not None and found.v1 != v1):
            raise GRPCError(Status.NOT_FOUND, f"Sandbox {sandbox_id} not found")
        return found

    def by_task(self, task_id: str) -> ModalSandbox:
        """A running sandbox by its task; raises NOT_FOUND."""
        for sandbox in self.sandboxes.values():
            if sandbox.task_id == task_id and sandbox.running:
                return sandbox
        raise GRPCError(Status.NOT_FOUND, f"Task {task_id} not found")

    async def create(
        self, app_id: str, definition: Any, tags: Mapping[str, str], env: Mapping[str, str], *, v1: bool
    ) -> ModalSandbox:
        """A new sandbox, before it runs. Raises what Modal refuses with."""
        if app_id not in self.apps.values():
            raise GRPCError(Status.NOT_FOUND, f"App {app_id} not found")
        image = self.images.get(definition.image_id)
        if image is None or not image.built:
            raise GRPCError(Status.NOT_FOUND, f"Image {definition.image_id} not found")
        if not 0 < definition.timeout_secs <= 24 * 3600:
            raise GRPCError(Status.INVALID_ARGUMENT, "timeout must be between 1 second and 24 hours")
        living = self.living()
        if definition.name and any(s.name == definition.name and s.app_id == app_id for s in living):
            raise GRPCError(Status.ALREADY_EXISTS, f"Sandbox with name '{definition.name}' already exists")
        if self.quota is not None and len(living) >= self.quota:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"Reached limit of {self.quota} running sandboxes")
        self._remember()
        self._last = max(time.time(), self._last + 1e-6)
        sandbox = ModalSandbox(
            id=identifier("sb") if v1 else "sb-" + "".join(random.choices(_ULID, k=26)),  # noqa: S311
            app_id=app_id,
            v1=v1,
            definition=definition,
            tags=dict(tags),
            env=dict(env),
            created_at=self._last,
            task_id=identifier("ta") if v1 else "ta-" + "".join(random.choices(_ULID, k=25)) + "V",  # noqa: S311
            box=SandboxFS(uid=0, user="root") if image.files is None else await self.in_thread(image.files.copy),
        )
        self.sandboxes[sandbox.id] = sandbox
        self.schedule(sandbox)
        return sandbox

    def schedule(self, sandbox: ModalSandbox) -> bool:
        """Give it a machine if there is one; whether it has one. It starts there in its own time."""
        if sandbox.placed or not sandbox.running:
            return sandbox.placed
        if sandbox.gpu and self.gpus is not None:
            busy = sum(other.gpu and other.placed for other in self.living())
            if busy >= self.gpus:
                return False
        sandbox.placed = True
        self._later(self._start(sandbox))
        return True

    async def _start(self, sandbox: ModalSandbox) -> None:
        definition = sandbox.definition
        workdir = definition.workdir or "/"

        def start() -> Any:
            sandbox.box.path(workdir).mkdir(parents=True, exist_ok=True)
            argv = list(definition.entrypoint_args) or ["sleep", str(48 * 3600)]
            return sandbox.box.start(argv, env=sandbox.env, cwd=workdir)

        async with sandbox.changing:
            if not sandbox.running:
                return
            sandbox.main = Program(await self.in_thread(start))
            sandbox.started_at = time.time()
            sandbox.timer = asyncio.get_running_loop().call_later(definition.timeout_secs, self._expire, sandbox)
            sandbox.main.code.add_done_callback(lambda code: self._main_ended(sandbox, code.result()))
            sandbox.started.set()

    async def end(self, sandbox: ModalSandbox, status: Any, *, exitcode: int = 0) -> None:
        """Let it end; nothing happens to one that has."""
        async with sandbox.changing:
            if not sandbox.running:
                return
            self._remember()
            sandbox.result = Result(status=status, exitcode=exitcode)
            sandbox.ended_at = time.time()
            sandbox.started.set()
            if sandbox.timer is not None:
                sandbox.timer.cancel()
            await self.in_thread(sandbox.box.stop)
            for program in (*sandbox.execs.values(), *([sandbox.main] if sandbox.main else [])):
                await program.code
            for program in sandbox.execs.values():
                program.forget()
            await self.in_thread(sandbox.box.close)

    async def close(self) -> None:
        """End and remove everything."""
        for sandbox in self.living():
            await self.end(sandbox, Result.GENERIC_STATUS_TERMINATED)
        for image in self.images.values():
            if image.files is not None:
                await self.in_thread(image.files.close)
        self._threads.shutdown(wait=False)

    def _remember(self) -> None:
        self.before = [sandbox.id for sandbox in self.living()]

    def _expire(self, sandbox: ModalSandbox) -> None:
        self._later(self.end(sandbox, Result.GENERIC_STATUS_TIMEOUT))

    def _main_ended(self, sandbox: ModalSandbox, code: int) -> None:
        status = Result.GENERIC_STATUS_SUCCESS if code == 0 else Result.GENERIC_STATUS_FAILURE
        self._later(self.end(sandbox, status, exitcode=code))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
