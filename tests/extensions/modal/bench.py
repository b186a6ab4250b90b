"""What the tests of ext.modal work with."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sandboxer.extensions.base import Context, Exec, Spec
from sandboxer.extensions.modal import ModalExtension
from sandboxer.extensions.modal.options import ModalOptions
from sandboxer.hosts.base import Host, Streams
from sandboxer.hosts.local import LocalHost
from sandboxer.models import Handle, HostSettings, Requirements
from sandboxer.names import (
    LABEL_EXPIRES,
    LABEL_EXTENSION,
    LABEL_ID,
    LABEL_INSTALL,
    LABEL_PROFILE,
    new_id,
    resource_name,
)
from sandboxer.secrets import Secret
from sandboxer.testing.clouds.modal import FakeModal
from sandboxer.testing.conformance import INSTALL, Bench
from sandboxer.timing import Deadline

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


def context(
    cloud: FakeModal,
    *,
    seconds: float = 30.0,
    save: Callable[[Handle], None] = lambda _: None,
    install: str = INSTALL,
    **changed: Any,
) -> Context:
    """A context that leads to a fake."""
    made = Context(host=local(), install=install, deadline=Deadline(seconds), save=save, **reach(cloud.environment()))
    return msgspec.structs.replace(made, **changed)


def spec(sandbox_id: str | None = None, *, ttl: float = 3600.0, install: str = INSTALL, **options: Any) -> Spec:
    """A resolved spec."""
    name = sandbox_id or new_id()
    expires = time.time() + ttl
    return Spec(
        sandbox_id=name,
        resource=resource_name(name),
        profile="profile.modal-gpu",
        labels={
            LABEL_ID: name,
            LABEL_INSTALL: install,
            LABEL_EXPIRES: str(int(expires)),
            LABEL_PROFILE: "profile.modal-gpu",
            LABEL_EXTENSION: "ext.modal",
        },
        inputs={},
        options=msgspec.convert(options, ModalOptions),
        expires_at=expires,
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
    out, err = bytearray(), bytearray()
    streams = Streams(stdin=io.BytesIO(stdin), stdout=out.extend, stderr=err.extend)
    code = ModalExtension().exec(handle, Exec(argv=argv, **more), streams, context(cloud, seconds=seconds))
    return code, bytes(out), bytes(err)
