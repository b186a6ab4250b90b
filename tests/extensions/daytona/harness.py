"""What the tests of ext.daytona work with: the fake, and calls on the extension as the core makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandboxer.extensions.base import Context, Spec
from sandboxer.extensions.daytona import DaytonaExtension
from sandboxer.extensions.daytona.options import DaytonaOptions
from sandboxer.models import Handle
from sandboxer.secrets import Secret
from tests.extensions.calls import SECONDS, asking, ran, resolved
from tests.fakes.daytona import FakeDaytona

INSTALL = "daytonatestinstall"


def endpoints(fake: FakeDaytona) -> dict[str, str]:
    """As the core resolves them."""
    return {"api": fake.environment()["DAYTONA_API_URL"]}


def secrets(fake: FakeDaytona, *, key: str | None = None) -> dict[str, Secret]:
    """As the core resolves them."""
    return {"DAYTONA_API_KEY": Secret(key or fake.environment()["DAYTONA_API_KEY"])}


def context(
    fake: FakeDaytona,
    *,
    key: str | None = None,
    **more: Any,
) -> Context:
    """A context that leads to the fake; `more` as for `asking`."""
    fields: dict[str, Any] = {"install": INSTALL, "endpoints": endpoints(fake), "secrets": secrets(fake, key=key)}
    return asking(**{**fields, **more})


def spec(
    sandbox_id: str | None = None, *, ttl: float | None = 3600.0, options: Mapping[str, Any] | None = None
) -> Spec:
    """A resolved spec."""
    return resolved(
        "ext.daytona",
        "profile.daytona-dev",
        DaytonaOptions,
        options or {},
        install=INSTALL,
        sandbox_id=sandbox_id,
        ttl=ttl,
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
    return ran(DaytonaExtension(), handle, context(fake, seconds=seconds), argv, stdin=stdin, **more)
