"""Fake backends whose every effect is a step that a process can be killed at."""

from __future__ import annotations

from pathlib import Path

from sandboxer.errors import BackendError, Unavailable
from sandboxer.extensions.base import Context, Spec
from sandboxer.models import Handle, Ready
from sandboxer.testing.fake import FakeExtension


class _Stepping(FakeExtension):
    """Its effects are calls of the host, before and after which death may come."""

    name: str

    def root(self, ctx: Context) -> Path:
        root = Path(ctx.host.work_dir(ctx.deadline)) / self.name
        root.mkdir(parents=True, exist_ok=True)
        return root

    def provision(self, spec: Spec, ctx: Context) -> Handle:
        ctx.host.run(["true", "provision"], ctx.deadline)
        handle = super().provision(spec, ctx)
        ctx.host.run(["true", "provisioned"], ctx.deadline)
        return handle

    def teardown(self, handle: Handle, ctx: Context) -> None:
        ctx.host.run(["true", "teardown"], ctx.deadline)
        super().teardown(handle, ctx)
        ctx.host.run(["true", "torn down"], ctx.deadline)


class Broken(_Stepping):
    """Makes a sandbox, and then finds that it does not come up."""

    name = "broken"

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        ctx.host.run(["true", "waiting"], ctx.deadline)
        raise BackendError("it does not come up")


class Mute(_Stepping):
    """Makes a sandbox, and loses the answer."""

    name = "mute"

    def provision(self, spec: Spec, ctx: Context) -> Handle:
        super().provision(spec, ctx)
        raise Unavailable("the answer was lost", outcome="unknown")

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        raise BackendError("it does not come up")


class Willing(_Stepping):
    """Works."""

    name = "willing"
