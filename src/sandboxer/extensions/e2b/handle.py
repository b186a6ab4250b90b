"""Keep what is needed of a sandbox in its handle, and tell what "not found" proves."""

from __future__ import annotations

import math
import re
import time
from typing import Final

import msgspec

from sandboxer.errors import BackendError, Invalid, NotConfigured
from sandboxer.extensions.base import Context, from_handle
from sandboxer.extensions.e2b.errors import KEY
from sandboxer.extensions.provider import account
from sandboxer.extensions.provider.lost_create import with_outcome
from sandboxer.models import Handle
from sandboxer.secrets import Secret

DEFAULT_API: Final = "https://api.e2b.app"
LONGEST: Final = 24 * 3600 + 300
"""Seconds after which nothing that was made then still runs: E2B ends every sandbox after 24 hours of running (the
account's `MaxLengthHours`), however often its time-out is renewed. Five minutes for clocks that differ."""
VERSION: Final = 1
_DOMAIN: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?")


class E2BHandleData(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a sandbox's handle.

    sandbox_id: ours. id: E2B's; empty as long as E2B has not told it. api: the base address it was made at. key: which
    key, by a fingerprint. born: when it was made; ends: E2B's own end of it, as of then; both in unix seconds.
    declared: what its template was said to have. ports: those whose addresses are told. user: who commands belong to.
    lost: an answer was lost while it was made, so that there may be more than one of it. paused: it was stopped, and so
    has no end of its own.
    """

    sandbox_id: str
    id: str
    api: str
    key: str
    born: float
    ends: float | None = None
    declared: dict[str, float] = {}
    ports: list[int] = []
    user: str | None = None
    lost: bool = False
    paused: bool = False

    def handle(self) -> Handle:
        """As the core keeps it."""
        return Handle(version=VERSION, data=msgspec.to_builtins(self))


class E2BSnapshotData(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a snapshot's handle: a template of its own, by E2B's id."""

    snapshot: str
    name: str
    api: str
    key: str

    def handle(self) -> Handle:
        """As the core keeps it."""
        return Handle(version=VERSION, data=msgspec.to_builtins(self))


def sandbox_data(handle: Handle) -> E2BHandleData:
    """Read the data of a sandbox's handle. Raises Conflict for a handle of another version."""
    return from_handle(handle, E2BHandleData, version=VERSION)


def snapshot_data(handle: Handle) -> E2BSnapshotData:
    """Read the data of a snapshot's handle. Raises Conflict for a handle of another version."""
    return from_handle(handle, E2BSnapshotData, version=VERSION)


def api_address(ctx: Context) -> str:
    """Choose the address of the API, in one spelling, as E2B's own clients do: E2B_API_URL, else below
    E2B_DOMAIN. Raises Invalid, and NotConfigured where E2B_DEBUG asks for a server that is not one."""
    named, domain = ctx.endpoints.get("api"), ctx.endpoints.get("domain")
    if ctx.endpoints.get("debug", "").lower() == "true" and not (named and ctx.endpoints.get("sandbox")):
        raise NotConfigured(
            "E2B_DEBUG is true: E2B's own clients then talk to http://localhost:3000, and make no sandbox",
            hint="unset E2B_DEBUG, or name the server by E2B_API_URL and E2B_SANDBOX_URL",
        )
    if named or not domain:
        return account.usable_address(named or DEFAULT_API, variable="E2B_API_URL").url
    if not _DOMAIN.fullmatch(domain):
        raise with_outcome(
            Invalid("E2B_DOMAIN is not the name of a domain", hint="write it like e2b.example.org"), "failed"
        )
    return account.usable_address(f"https://api.{domain}", variable="E2B_DOMAIN").url


def api_key(ctx: Context) -> Secret:
    """Get the account's key. Raises NotConfigured."""
    key = ctx.secrets.get(KEY)
    if key is None:
        raise NotConfigured(f"{KEY} is not set", hint=f"set {KEY}, or name another reference in config.yaml")
    account.check_sendable(key, variable=KEY)
    return key


def check_address(made_at: str, ctx: Context) -> None:
    """Raise NotConfigured when a sandbox was made at another address than the present one."""
    account.check_address("it", made_at, api_address(ctx), variable="E2B_API_URL")


def proves_absence(data: E2BHandleData, ctx: Context) -> bool:
    """Tell whether "not found" proves that a sandbox is gone: it does if the key is the one that it was made with, or
    if it has no longer any time to live. Another account's key sees nothing of it, and so says nothing of it."""
    over_at = None if data.paused else data.born + LONGEST
    return account.proves_absence(data.key, api_key(ctx).fingerprint, over_at=over_at, now=time.time())


def other_key_error(data: E2BHandleData) -> BackendError:
    """Make the error for a sandbox that the present key cannot see."""
    return account.other_key(data.id or f"sandbox {data.sandbox_id}", provider="E2B", variables=KEY)


def seconds_until(expires_at: float, now: float) -> int:
    """Compute the `timeout` for an end at `expires_at`: whole seconds from the request, rounded up: never early."""
    return max(1, math.ceil(expires_at - now))
