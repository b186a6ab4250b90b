"""What the tests of ext.daytona work with: the fake, and calls on the extension as the core makes them."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sandboxer.extensions.base import Context, Exec, Spec
from sandboxer.extensions.daytona import DaytonaExtension
from sandboxer.extensions.daytona.options import DaytonaOptions
from sandboxer.hosts.base import Streams
from sandboxer.hosts.local import LocalHost
from sandboxer.models import Handle, HostSettings
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
from sandboxer.testing.clouds.daytona import FakeDaytona
from sandboxer.timing import Deadline

INSTALL = "daytonatestinstall"
SECONDS = 30.0


def endpoints(fake: FakeDaytona) -> dict[str, str]:
    """As the core resolves them."""
    return {"api": fake.environment()["DAYTONA_API_URL"]}


def secrets(fake: FakeDaytona, *, key: str | None = None) -> dict[str, Secret]:
    """As the core resolves them."""
    return {"DAYTONA_API_KEY": Secret(key or fake.environment()["DAYTONA_API_KEY"])}


def context(
    fake: FakeDaytona,
    *,
    seconds: float | None = SECONDS,
    key: str | None = None,
    install: str = INSTALL,
    save: Callable[[Handle], None] = lambda _handle: None,
    **more: Any,
) -> Context:
    """A context that leads to the fake."""
    fields: dict[str, Any] = {"endpoints": endpoints(fake), "secrets": secrets(fake, key=key), **more}
    return Context(
        host=LocalHost("local", HostSettings()), install=install, deadline=Deadline(seconds), save=save, **fields
    )


def spec(
    sandbox_id: str | None = None, *, ttl: float | None = 3600.0, options: Mapping[str, Any] | None = None
) -> Spec:
    """A resolved spec."""
    name = sandbox_id or new_id()
    expires = None if ttl is None else time.time() + ttl
    return Spec(
        sandbox_id=name,
        resource=resource_name(name),
        profile="profile.daytona-dev",
        labels={
            LABEL_ID: name,
            LABEL_INSTALL: INSTALL,
            LABEL_EXPIRES: "never" if expires is None else str(int(expires)),
            LABEL_PROFILE: "profile.daytona-dev",
            LABEL_EXTENSION: "ext.daytona",
        },
        inputs={},
        options=msgspec.convert(dict(options or {}), DaytonaOptions),
        expires_at=expires,
    )


def made(fake: FakeDaytona, **more: Any) -> Handle:
    """A ready sandbox's handle."""
    use = DaytonaExtension()
    handle = use.provision(spec(**more), context(fake))
    use.wait_ready(handle, context(fake))
    return handle


def run(
    fake: FakeDaytona,
    handle: Handle,
    *argv: str,
    stdin: Any = None,
    seconds: float = SECONDS,
    **more: Any,
) -> tuple[int, bytes, bytes]:
    """Run a command inside: exit code, stdout, stderr."""
    out, err = bytearray(), bytearray()
    source = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
    streams = Streams(stdin=source, stdout=out.extend, stderr=err.extend)
    code = DaytonaExtension().exec(handle, Exec(argv=argv, **more), streams, context(fake, seconds=seconds))
    return code, bytes(out), bytes(err)
