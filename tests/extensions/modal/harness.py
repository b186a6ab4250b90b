"""What the tests of ext.modal work with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandboxer.extensions.base import Context, Spec
from sandboxer.extensions.modal import ModalExtension
from sandboxer.extensions.modal.options import ModalOptions
from sandboxer.hosts.base import Host
from sandboxer.hosts.local import LocalHost
from sandboxer.models import Handle, HostSettings, Requirements
from sandboxer.secrets import Secret
from sandboxer.testing.conformance import INSTALL, Bench
from tests.extensions.calls import asking, ran, resolved
from tests.fakes.modal import FakeModal

KEYS = ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET")


def reach(environment: Mapping[str, str]) -> dict[str, Any]:
    """Secrets and endpoints for a context."""
    return {
        "secrets": {name: Secret(environment[name]) for name in KEYS},
        "endpoints": {"server": environment["MODAL_SERVER_URL"]},
    }


def local() -> Host:
    """This machine: what the context of an extension without hosts carries."""
    return LocalHost("local", HostSettings())


def bench(cloud: FakeModal, **options: Any) -> Bench:
    """A bench on a fake. Lives may be prolonged up to four hours."""
    return Bench(
        extension=ModalExtension,
        extension_id="ext.modal",
        hosts=local,
        census=cloud.census,
        options={"max_life": "4h", **options},
        broken={"options": {"image": "no-such-image:1"}},
        seconds=30.0,
        met=[
            (Requirements(vcpu=3, memory_gib=4.5), ()),
            (Requirements(gpu="T4"), ()),
            (Requirements(network="none"), ()),
        ],
        unmet=[Requirements(disk_gib=1), Requirements(gpu="T4:9"), Requirements(gpu="H100X")],
        **reach(cloud.environment()),
    )


def context(cloud: FakeModal, **more: Any) -> Context:
    """A context that leads to a fake; `more` as for `asking`."""
    return asking(**{"install": INSTALL, **reach(cloud.environment()), **more})


def spec(sandbox_id: str | None = None, *, ttl: float = 3600.0, install: str = INSTALL, **options: Any) -> Spec:
    """A resolved spec."""
    return resolved(
        "ext.modal", "profile.modal-gpu", ModalOptions, options, install=install, sandbox_id=sandbox_id, ttl=ttl
    )


def made(fake: FakeModal, **more: Any) -> Handle:
    """A ready sandbox's handle."""
    extension = ModalExtension()
    handle = extension.provision(spec(**more), context(fake))
    extension.wait_ready(handle, context(fake))
    return handle


def run(
    cloud: FakeModal, handle: Handle, *argv: str, stdin: bytes = b"", seconds: float = 30.0, **more: Any
) -> tuple[int, bytes, bytes]:
    """Run a command inside: exit code, stdout, stderr."""
    return ran(ModalExtension(), handle, context(cloud, seconds=seconds), argv, stdin=stdin, **more)
