"""Create exactly one sandbox, whatever becomes of the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from sandboxer import document_bounds
from sandboxer.errors import BackendError, SandboxerError, Timeout, Unavailable
from sandboxer.extensions.base import Context, Spec
from sandboxer.extensions.e2b.client import E2BClient
from sandboxer.extensions.e2b.handle import seconds_until
from sandboxer.extensions.e2b.options import E2BOptions
from sandboxer.extensions.e2b.sandbox import E2BSandbox, EnvdAccess
from sandboxer.extensions.provider.lost_create import Look, Trouble, needs_look, settle, trouble_of, with_outcome
from sandboxer.extensions.provider.wait import fits, part_of, pause, told_to_wait
from sandboxer.names import LABEL_ID, LABEL_INSTALL
from sandboxer.timing import Deadline

ATTEMPT_SECONDS: Final = 60.0
"""How long one request may take: E2B's own SDK gives up then."""
MAX_TIMEOUT: Final = 24 * 3600
"""Seconds: the longest that E2B grants, for a sandbox without a TTL."""
_TRIES: Final = 4
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
    """Build the request body. Pure; the same for the same `now`, because E2B compares the bodies of one idempotency
    key."""
    expires = spec.expires_at
    asked: dict[str, Any] = {
        "templateID": template or options.template,
        "timeout": MAX_TIMEOUT if expires is None else seconds_until(expires, now),
        "metadata": {**spec.labels, **use_label(options)},
        "autoPause": False,
        "allow_internet_access": options.allow_internet_access,
    }
    if options.env:
        asked["envVars"] = dict(options.env)
    return asked


class UseLabel(msgspec.Struct, frozen=True, kw_only=True):
    """The label that keeps what must be known of a sandbox to use it."""

    user: str | None = None
    ports: list[int] = []
    declared: dict[str, float] = {}


def parse_use_label(metadata: Mapping[str, str]) -> UseLabel:
    """Parse what `use_label` wrote; anything else is that of a plain sandbox. Pure."""
    try:
        return document_bounds.decode_as(UseLabel, metadata.get(LABEL_USE, "{}"))
    except msgspec.DecodeError:
        return UseLabel()


def use_label(options: E2BOptions) -> dict[str, str]:
    """Build the label that keeps what must be known of a sandbox, so that one that was found again is used like one
    that was never lost; nothing for a plain one. Pure."""
    use = UseLabel(user=options.user, ports=options.ports, declared=declared(options))
    return {} if use == UseLabel() else {LABEL_USE: msgspec.json.encode(use).decode()}


def declared(options: E2BOptions) -> dict[str, float]:
    """List the resources that the options declare of a template. Pure."""
    named = {name: getattr(options, name) for name in ("vcpu", "memory_gib", "disk_gib")}
    return {name: float(value) for name, value in named.items() if value is not None}


def make(control: E2BClient, spec: Spec, asked: Mapping[str, Any], ctx: Context) -> CreatedSandbox:
    """Create it; a lost answer is settled by `provider.lost_create`: it is looked for, and asked for again with the
    same idempotency key. What was made twice is removed. Raises with outcome "unknown" when that could not be done in
    time: lists may lag, so that one which shows nothing proves nothing."""
    doubt: SandboxerError | None = None
    for number in range(1, _TRIES + 1):
        if doubt is not None and ctx.deadline.passed:
            raise with_outcome(doubt, "unknown")
        ctx.deadline.check("asking E2B for a sandbox")
        try:
            sandbox, access, _ = control.create(
                asked, key=spec.sandbox_id, deadline=part_of(ctx.deadline, most=ATTEMPT_SECONDS)
            )
        except SandboxerError as error:
            trouble = _trouble(error, ctx.deadline)
            doubt = error if needs_look(trouble, doubt=False) else doubt
            wait = None if number == _TRIES else _wait(error, number)
            if wait is not None and fits(wait, ctx.deadline):
                with suppress(Timeout):
                    pause(wait, ctx.deadline, "waiting for E2B")
            else:
                wait = None
            again = wait is not None and not ctx.deadline.passed and (doubt is None or control.knows_keys)
            found = _found(control, spec, ctx) if doubt is not None else None
            look: Look = "ours" if found is not None else "nothing" if doubt is None else "unseen"
            verdict = settle(trouble, look, again=again)
            if found is not None and verdict == "adopt":
                return found
            if verdict != "retry":
                raise with_outcome(doubt or error, "failed" if verdict == "failed" else "unknown") from None
            ctx.progress("start", f"asking E2B again: {error.message}")
            continue
        if doubt is not None:
            _remove_others(control, find_labelled(control, spec.sandbox_id, ctx.install), keep=sandbox)
        return CreatedSandbox(id=sandbox, access=access, lost=doubt is not None)
    raise AssertionError("the last try returns or raises")


def _trouble(error: SandboxerError, deadline: Deadline) -> Trouble:
    """Classify how a try ended. Names are not unique at E2B, so none is ever taken; and who is late has no time to
    look."""
    trouble = trouble_of(error, over=deadline.passed)
    return "refused" if trouble == "taken" else "slow" if trouble == "late" else trouble


def _found(control: E2BClient, spec: Spec, ctx: Context) -> CreatedSandbox | None:
    """Find what a lost request has made, if it can be seen now."""
    try:
        found = find_labelled(control, spec.sandbox_id, ctx.install)
        if not found:
            return None
        _remove_others(control, found, keep=found[0].id)
    except SandboxerError:
        return None  # not seen: what is raised in the end is the answer that was lost
    return CreatedSandbox(id=found[0].id, access=None, lost=True)


def find_labelled(control: E2BClient, sandbox_id: str, install: str) -> list[E2BSandbox]:
    """List what E2B shows of one sandbox of ours, the oldest first."""
    found = control.all({LABEL_ID: sandbox_id, LABEL_INSTALL: install})
    return sorted(found, key=lambda shown: (shown.started_at or 0.0, shown.id))


def find_surely(control: E2BClient, sandbox_id: str, ctx: Context) -> list[E2BSandbox]:
    """The same; a list that shows nothing is asked a second time, because it may lag behind a create."""
    if found := find_labelled(control, sandbox_id, ctx.install):
        return found
    pause(SECOND_LOOK, ctx.deadline, "waiting for E2B")
    return find_labelled(control, sandbox_id, ctx.install)


def remove_labelled(control: E2BClient, sandbox_id: str, ctx: Context) -> None:
    """Kill all that carries the label of one sandbox of ours, and look. Raises when E2B still shows any of it."""
    for shown in find_surely(control, sandbox_id, ctx):
        kill(control, shown.id)


def kill(control: E2BClient, sandbox: str) -> None:
    """Kill a sandbox, and look. Raises BackendError when E2B still shows it."""
    control.kill(sandbox)
    if control.look(sandbox) is not None:
        raise BackendError(
            f"E2B still shows {sandbox} after it was killed", hint="run `sandboxer reconcile`", outcome="unknown"
        )


def _remove_others(control: E2BClient, found: Sequence[E2BSandbox], *, keep: str) -> None:
    for shown in found:
        if shown.id != keep:
            control.kill(shown.id)


def _wait(error: SandboxerError, number: int) -> float | None:
    """Choose the seconds before the next try; None when that is no use. A rate limit is waited for, a lost answer
    looked for, and every other refusal is final: what has no room now leaves the route its time."""
    details = error.details or {}
    if details.get("should_retry") == "false":
        return None
    if error.outcome == "unknown":
        return float(0.1 * 4 ** (number - 1))
    if details.get("status") != 429 or not isinstance(error, Unavailable):
        return None
    told = told_to_wait(error)
    if told is None:
        return float(0.2 * 2 ** (number - 1))
    return told if told <= _PATIENCE else None
