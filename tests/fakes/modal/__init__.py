"""A fake Modal on loopback: gRPC, as the SDK speaks it, for apps, images, sandboxes of both kinds, commands, snapshots.

    with FakeModal() as cloud:
        os.environ |= cloud.environment()

What it does is proved by the SDK driving it (tests/extensions/modal/test_sdk.py). It needs the extra `modal`, whose
generated messages it speaks. A fault's `match` is `POST` and the path of a method, such as
`POST /modal.client.ModalClient/SandboxCreate.*`; its `status` is a gRPC status number (8 with a `retry-after` header:
slow down). It does not enforce networks, sizes or idle time-outs, and its tunnels are not encrypted.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tests.fakes.faults import Script

if TYPE_CHECKING:
    from tests.fakes.modal.grpc import Call
    from tests.fakes.modal.state import ModalState

TOKEN_ID = "ak-fakefakefakefakefakefa"
TOKEN_SECRET = "as-fakefakefakefakefakefa"


class FakeModal:
    """One workspace at one address. See `tests.fakes.Cloud`."""

    def __init__(
        self, port: int = 0, latency: float = 0.0, *, token_id: str = TOKEN_ID, token_secret: str = TOKEN_SECRET
    ) -> None:
        self.latency = latency
        self.script = Script()
        self.url = ""
        self._port = port
        self._credentials = (token_id, token_secret)
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._going: asyncio.Event | None = None
        self._failed: BaseException | None = None
        self._world: ModalState | None = None
        self._calls: Sequence[Call] = ()
        self._switch: object = None

    def start(self) -> Self:
        """Listen."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="fake-modal", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failed is not None:
            raise self._failed
        return self

    def stop(self) -> None:
        """Go down, and end and remove every sandbox."""
        if self._thread is None or self._loop is None or self._going is None:
            return
        self._loop.call_soon_threadsafe(self._going.set)
        self._thread.join()
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def world(self) -> ModalState:
        """Its state: quotas and sizes of pages may be set, the rest is to be looked at."""
        assert self._world is not None, "it is not started"
        return self._world

    @property
    def calls(self) -> list[Call]:
        """Every call so far, in order."""
        from tests.fakes.modal.grpc import Switchboard

        assert isinstance(self._switch, Switchboard)
        return self._switch.calls

    def environment(self) -> Mapping[str, str]:
        """The variables that point sandboxer, and the SDK, here. No file of a user is read."""
        token_id, token_secret = self._credentials
        return {
            "MODAL_SERVER_URL": self.url,
            "MODAL_TOKEN_ID": token_id,
            "MODAL_TOKEN_SECRET": token_secret,
            "MODAL_CONFIG_PATH": "/dev/null/none",
        }

    def census(self) -> Sequence[str]:
        """Sandboxes that have not ended, and snapshots."""
        snapshots = [image.id for image in list(self.world.images.values()) if image.files is not None]
        return [*(sandbox.id for sandbox in self.world.living()), *snapshots]

    @property
    def creates(self) -> int:
        """How many sandboxes were ever made."""
        return len(self.world.sandboxes)

    def billed_seconds(self, provider_id: str) -> float:
        """From when it had a machine until its end, or now."""
        sandbox = self.world.sandboxes[provider_id]
        if sandbox.started_at is None:
            return 0.0
        return (sandbox.ended_at or time.time()) - sandbox.started_at

    async def _serve(self) -> None:
        from grpclib.server import Server
        from modal_proto import api_pb2, task_command_router_pb2

        from tests.fakes.modal.control import Control
        from tests.fakes.modal.grpc import Details, Switchboard
        from tests.fakes.modal.router import Router
        from tests.fakes.modal.state import ModalState

        self._loop, self._going = asyncio.get_running_loop(), asyncio.Event()
        self._world = ModalState()
        switch = self._switch = Switchboard(self.script, latency=lambda: self.latency)
        control = Control(self._world, token_id=self._credentials[0], token_secret=self._credentials[1])
        services = [
            switch.service(api_pb2.DESCRIPTOR.services_by_name["ModalClient"], control),
            switch.service(
                task_command_router_pb2.DESCRIPTOR.services_by_name["TaskCommandRouter"], Router(self._world)
            ),
        ]
        server = Server(services, status_details_codec=Details())
        try:
            await server.start("127.0.0.1", self._port)
            self._port = server._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        except BaseException as error:  # noqa: BLE001 - it belongs to the thread that starts us
            self._failed = error
            return
        finally:
            self.url = control.url = f"http://127.0.0.1:{self._port}"
            self._ready.set()
        await self._going.wait()
        server.close()
        await self._world.close()
