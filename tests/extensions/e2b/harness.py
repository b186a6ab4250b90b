"""What the tests of ext.e2b work with: the fake, and calls on the extension as the core makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandboxer.extensions.base import Context, Spec
from sandboxer.extensions.e2b import E2BExtension
from sandboxer.extensions.e2b.options import E2BOptions
from sandboxer.models import Handle
from sandboxer.secrets import Secret
from tests.extensions.calls import asking, resolved
from tests.fakes.e2b import FakeE2B

INSTALL = "e2bteststhatinstall"


def endpoints(fake: FakeE2B) -> dict[str, str]:
    """As the core resolves them."""
    return {"api": fake.url, "sandbox": fake.url}


def secrets(fake: FakeE2B, *, key: str | None = None) -> dict[str, Secret]:
    """As the core resolves them."""
    return {"E2B_API_KEY": Secret(key or fake.environment()["E2B_API_KEY"])}


def context(
    fake: FakeE2B,
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
        "ext.e2b", "profile.e2b-burst", E2BOptions, options or {}, install=INSTALL, sandbox_id=sandbox_id, ttl=ttl
    )


def made(fake: FakeE2B, *, extension: E2BExtension | None = None, **more: Any) -> Handle:
    """A ready sandbox's handle."""
    use = extension or E2BExtension()
    handle = use.provision(spec(**more), context(fake))
    use.wait_ready(handle, context(fake))
    return handle
