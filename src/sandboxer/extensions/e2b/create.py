"""Making exactly one sandbox, whatever becomes of the answers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from sandboxer import bounded
from sandboxer.errors import SandboxerError, Unavailable
from sandboxer.extensions.base import Context, Spec
from sandboxer.extensions.e2b import connect
from sandboxer.extensions.e2b.client import E2BClient, E2BSandbox, EnvdAccess, is_lost
from sandboxer.extensions.e2b.options import E2BOptions
from sandboxer.names import LABEL_ID, LABEL_INSTALL
from sandboxer.timing import Deadline

ATTEMPT_SECONDS: Final = 60.0
"""How long one request may take: E2B's own SDK gives up then."""
MAX_TIMEOUT: Final = 24 * 3600
"""Seconds: the longest that E2B grants, for a sandbox without a TTL."""
_SETTLES: Final = 4
_PATIENCE: Final = 30.0
"""The longest pause, in seconds, that a rate limit may ask for."""
LABEL_USE: Final = "sandboxer.e2b"
"""Beside the core's labels: user, ports and declared resources, as JSON."""
SECOND_LOOK: Final = 0.4
"""Seconds between two looks for something that a first did not show: lists may lag behind."""


class CreatedSandbox(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox that was made. `lost`: an answer was lost on the way. `access` is None where only a list showed it."""

    id: str
    access: EnvdAccess | None
    lost: bool


def body(spec: Spec, options: E2BOptions, *, now: float, template: str | None = None) -> dict[str, Any]:
    """What is asked for. Pure; the same for the same `now`, because E2B compares the bodies of one idempotency key."""
    expires = spec.expires_at
    asked: dict[str, Any] = {
        "templateID": template or options.template,
        "timeout": MAX_TIMEOUT if expires is None else connect.seconds_until(expires, now),
        "metadata": {**spec.labels, **remembered(options)},
        "autoPause": False,
        "allow_internet_access": options.allow_internet_access,
    }
    if options.env:
        asked["envVars"] = dict(options.env)
    return asked


class UseLabel(msgspec.Struct, frozen=True, kw_only=True):
    """What must be known of a sandbox to use it."""

    user: str | None = None
    ports: list[int] = []
    declared: dict[str, float] = {}


def parse_use_label(metadata: Mapping[str, str]) -> UseLabel:
    """What `remembered` wrote; that of a plain sandbox for anything else. Pure."""
    try:
        return bounded.decode_as(UseLabel, metadata.get(LABEL_USE, "{}"))
    except msgspec.DecodeError:
        return UseLabel()


def remembered(options: E2BOptions) -> dict[str, str]:
    """What must be known of a sandbox to use it, as one more label, so that one that was found again is used like one
    that was never lost; nothing for a plain one. Pure."""
    use = UseLabel(user=options.user, ports=options.ports, declared=declared(options))
    return {} if use == UseLabel() else {LABEL_USE: msgspec.json.encode(use).decode()}


def declared(options: E2BOptions) -> dict[str, float]:
    """The resources that a template is said to have. Pure."""
    named = {name: getattr(options, name) for name in ("vcpu", "memory_gib", "disk_gib")}
    return {name: float(value) for name, value in named.items() if value is not None}


def make(control: E2BClient, spec: Spec, asked: Mapping[str, Any], ctx: Context) -> CreatedSandbox:
    """Make it. A lost answer is settled by looking for it, and by asking again with the same idempotency key; what was
    made twice is removed. Raises with outcome "unknown" when that could not be done in time."""
    lost: SandboxerError | None = None
    for round_ in range(_SETTLES):
        if lost is not None and (made := _found(control, spec, ctx)) is not None:
            return made
        if lost is not None and not control.knows_keys:
            raise lost  # asking again could make a second one
        try:
            sandbox, access, _ = control.create(asked, key=spec.sandbox_id, deadline=_attempt(ctx.deadline))
        except SandboxerError as error:
            # once an answer was lost, no refusal of a later request says that the first one made nothing
            lost = error if is_lost(error) else lost
            wait = _wait(error, round_)
            if wait is not None and _pause(wait, ctx.deadline):
                ctx.progress("start", f"asking E2B again: {error.message}")
                continue
            made = None if lost is None else _found(control, spec, ctx)
            if made is not None:
                return made
            raise (lost or error) from None
        if lost is not None:
            _remove_others(control, find_labelled(control, spec.sandbox_id, ctx.install), keep=sandbox)
        return CreatedSandbox(id=sandbox, access=access, lost=lost is not None)
    raise AssertionError("the last round returns or raises")


def _attempt(deadline: Deadline) -> Deadline:
    """A part of what is left, so that a lost answer can still be settled."""
    deadline.check("asking E2B for a sandbox")
    left = deadline.left()
    return deadline.shorter(ATTEMPT_SECONDS if left is None else min(ATTEMPT_SECONDS, left * 0.6))


def _found(control: E2BClient, spec: Spec, ctx: Context) -> CreatedSandbox | None:
    """What a lost request has made, if it can be seen now."""
    try:
        found = find_labelled(control, spec.sandbox_id, ctx.install)
        if not found:
            return None
        _remove_others(control, found, keep=found[0].id)
    except SandboxerError:
        return None  # not seen: what is raised in the end is the answer that was lost
    return CreatedSandbox(id=found[0].id, access=None, lost=True)


def find_labelled(control: E2BClient, sandbox_id: str, install: str) -> list[E2BSandbox]:
    """What E2B shows of one sandbox of ours, the eldest first."""
    found = control.all({LABEL_ID: sandbox_id, LABEL_INSTALL: install})
    return sorted(found, key=lambda shown: (shown.started_at or 0.0, shown.id))


def _remove_others(control: E2BClient, found: Sequence[E2BSandbox], *, keep: str) -> None:
    for shown in found:
        if shown.id != keep:
            control.kill(shown.id)


def _wait(error: SandboxerError, round_: int) -> float | None:
    """Seconds after which to ask again; None when that is no use. A rate limit is waited for, a lost answer looked for,
    and every other refusal is final: what has no room now leaves the route its time."""
    details = error.details or {}
    if round_ == _SETTLES - 1 or details.get("should_retry") == "false":
        return None
    if is_lost(error):
        return float(0.1 * 4**round_)
    if details.get("status") != 429 or not isinstance(error, Unavailable):
        return None
    told = details.get("retry_after")
    if told is None:
        return float(0.2 * 2**round_)
    return float(told) if told <= _PATIENCE else None


def _pause(seconds: float, deadline: Deadline) -> bool:
    """Wait; False at once when there is no time for it."""
    left = deadline.left()
    if left is not None and left <= seconds:
        return False
    until = time.monotonic() + seconds
    while (rest := until - time.monotonic()) > 0 and not deadline.passed:
        time.sleep(min(rest, 0.25))
    return not deadline.passed
