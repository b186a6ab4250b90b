"""One way to work with the adapters of all clouds, each against its fake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandboxer.extensions.base import Context, SandboxExtension, Spec
from sandboxer.extensions.daytona import DaytonaExtension
from sandboxer.extensions.e2b import E2BExtension
from sandboxer.models import Handle
from tests.extensions.calls import ran
from tests.fakes import Fault
from tests.fakes.daytona import FakeDaytona
from tests.fakes.e2b import FakeE2B

if TYPE_CHECKING:
    from tests.fakes.modal import FakeModal


@dataclass(frozen=True, kw_only=True)
class Trial:
    """An adapter and its cloud. `create` matches the requests that make a sandbox, `looks` those that look for one;
    `stop` is what somebody else does at the provider."""

    name: str
    fake: Any
    extension: SandboxExtension
    context: Callable[..., Context]
    spec: Callable[..., Spec]
    create: str
    looks: str
    stop: Callable[[Handle], None] | None = None

    def made(self, **more: Any) -> Handle:
        """A ready sandbox's handle."""
        handle = self.extension.provision(self.spec(**more), self.context())
        self.extension.wait_ready(handle, self.context())
        return handle

    def run(self, handle: Handle, *argv: str, seconds: float = 30.0, **more: Any) -> tuple[int, bytes, bytes]:
        """Run a command inside: exit code, stdout, stderr."""
        return ran(self.extension, handle, self.context(seconds=seconds), argv, **more)  # type: ignore[arg-type]

    def plan(self, *faults: Fault) -> None:
        """Let something go wrong."""
        self.fake.script.add(*faults)


def e2b(fake: FakeE2B) -> Trial:
    """E2B."""
    from tests.extensions.e2b import harness as setting

    return Trial(
        name="e2b",
        fake=fake,
        extension=E2BExtension(),
        context=lambda **more: setting.context(fake, **more),
        spec=setting.spec,
        create="POST (/v2)?/sandboxes",
        looks="GET /v2/sandboxes",
        stop=lambda handle: fake.estate.pause(fake.estate.sandboxes[handle.data["id"]]),
    )


def daytona(fake: FakeDaytona) -> Trial:
    """Daytona."""
    from tests.extensions.daytona import harness as setting

    def stop(handle: Handle) -> None:
        with fake.estate.held():
            machine = fake.estate.machines[handle.data["id"]]
            fake.estate.go(machine, "stopping", "stopped")

    return Trial(
        name="daytona",
        fake=fake,
        extension=DaytonaExtension(),
        context=lambda **more: setting.context(fake, **more),
        spec=setting.spec,
        create="POST /api/sandbox",
        looks=r"GET /api/sandbox/[^/]+",
        stop=stop,
    )


def modal(fake: FakeModal) -> Trial:
    """Modal."""
    from sandboxer.extensions.modal import ModalExtension
    from tests.extensions.modal import harness as bench

    control = "POST /modal.client.ModalClient"
    return Trial(
        name="modal",
        fake=fake,
        extension=ModalExtension(),
        context=lambda **more: bench.context(fake, **more),
        spec=bench.spec,
        create=f"{control}/SandboxCreate(V2)?",
        looks=f"{control}/SandboxGetFromName(V2)?",
    )
