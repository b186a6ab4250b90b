"""Decide what follows from a failed attempt to create a sandbox: one table, by its cause and by what is left of it.

docs/routing.md shows the table. Pure: the attempt acts on it (`attempt`), and so does whoever gives up (`create`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from sandboxer.errors import Denied, NotConfigured, SandboxerError, Timeout, Unavailable

Phase = Literal["reach", "prepare", "provision", "wait"]
"""How far an attempt has come. Up to `prepare` the backend has made nothing."""
Cause = Literal[
    "caller", "interrupted", "host-silent", "lost-at-provider", "lost-on-host", "locked-out", "failed", "unsent"
]
"""Why an attempt failed."""
Cleanup = Literal["none", "look", "rollback", "quick-rollback"]
"""What is done first, to know what is left."""
Left = Literal["nothing", "found", "no-answer", "unclear"]
"""What is known afterwards: nothing is there; a whole sandbox was found; the backend lets nobody in or does not answer;
or the look, or the removal, failed in another way."""
Step = Literal["adopt", "next", "give-up", "unknown"]
"""What happens: wait for the sandbox that was found; try the next candidate; fail, with nothing left; or fail with
`outcome: unknown`, for `reconcile` to settle."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from one cause. `when` is what docs/routing.md says of it."""

    when: str
    cleanup: Cleanup
    then: Mapping[Left, Step]


_NEVER_TWO: Final[Mapping[Left, Step]] = {"no-answer": "unknown", "unclear": "unknown"}
"""Where it cannot be said what is there nothing else is begun: two sandboxes for one create are worse than none."""

POLICIES: Final[Mapping[Cause, Policy]] = {
    "caller": Policy(
        when="the caller is at fault (a wrong template, a conflict)",
        cleanup="rollback",
        then={"nothing": "give-up", **_NEVER_TWO},
    ),
    "unsent": Policy(
        when="the caller is at fault, and the extension knows that nothing was asked for (an address that is none)",
        cleanup="none",
        then={"nothing": "give-up"},
    ),
    "interrupted": Policy(
        when="Ctrl-C, SIGTERM or SIGHUP",
        cleanup="quick-rollback",
        then={"nothing": "give-up", **_NEVER_TWO},
    ),
    "host-silent": Policy(
        when="a host does not answer",
        cleanup="none",
        then={"nothing": "next"},
    ),
    "lost-at-provider": Policy(
        when="the answer to a create was lost, at a provider",
        cleanup="look",
        then={"nothing": "next", "found": "adopt", **_NEVER_TWO},
    ),
    "lost-on-host": Policy(
        when="the answer was lost, on a host of yours, where a create is many steps",
        cleanup="rollback",
        then={"nothing": "next", **_NEVER_TWO},
    ),
    "locked-out": Policy(
        when="credentials are refused, or the request cannot have arrived, and nothing was saved, or the extension "
        "knows that nothing was made",
        cleanup="rollback",
        then={"nothing": "next", "no-answer": "next", "unclear": "unknown"},
    ),
    "failed": Policy(
        when="the backend failed, definitely",
        cleanup="rollback",
        then={"nothing": "next", **_NEVER_TWO},
    ),
}

_NO_ANSWER: Final = (Denied, NotConfigured, Unavailable, Timeout)


def is_ambiguous(error: SandboxerError) -> bool:
    """Whether a create may have been carried out although it raised. A silence says nothing, unless whoever raised it
    states that the request cannot have arrived, or that nothing was made."""
    if error.outcome == "unknown":
        return True
    return isinstance(error, Unavailable | Timeout) and not error.outcome_stated and not error.made_nothing


def cause_of(error: BaseException, *, phase: Phase, provider: bool, saved: bool) -> Cause:
    """Why an attempt failed. `provider`: a create there is one call of somebody else's API, so that what is found of it
    is whole; `saved`: a handle was saved, so something was about to be made."""
    if not isinstance(error, Exception):
        return "interrupted"
    if isinstance(error, SandboxerError) and error.fault == "caller" and error.made_nothing and not saved:
        return "unsent"
    if not isinstance(error, SandboxerError) or error.fault == "caller":
        return "caller"  # a bug of ours fails the same way everywhere too
    if phase == "reach" and isinstance(error, Unavailable):
        return "host-silent"
    if is_ambiguous(error):
        return "failed" if phase == "wait" else "lost-at-provider" if provider else "lost-on-host"
    if isinstance(error, _NO_ANSWER) and (error.made_nothing or not saved):
        return "locked-out"
    return "failed"


def left_after(rest: BaseException | None) -> Left:
    """What is left after a look or a rollback that ended with `rest` (None: nothing is there any more)."""
    if rest is None:
        return "nothing"
    return "no-answer" if isinstance(rest, _NO_ANSWER) else "unclear"


def cleanup_for(cause: Cause, phase: Phase) -> Cleanup:
    """What is to be done to know what is left of an attempt that came this far."""
    return "none" if phase in ("reach", "prepare") else POLICIES[cause].cleanup


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """What, besides the cause, keeps a create from its next candidate: there is none (`last`), its time is over, what
    was made shall be kept (`--keep-failed`), or its profile names one extension (not `routed`)."""

    last: bool
    expired: bool
    kept: bool
    routed: bool


def may_continue(cause: Cause, circumstances: Circumstances) -> bool:
    """Whether the next candidate may be tried once it is certain that nothing is left of this one."""
    if circumstances.last or circumstances.expired or circumstances.kept:
        return False
    if not circumstances.routed:
        return cause == "host-silent"  # another host of the extension that was asked for
    return "next" in POLICIES[cause].then.values()


def step_after(cause: Cause, left: Left) -> Step:
    """What happens now. What the table does not foresee is unknown."""
    return POLICIES[cause].then.get(left, "unknown")
