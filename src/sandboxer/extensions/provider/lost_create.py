"""Decide what becomes of a create that was not answered with success: one table for all providers. Pure.

A lost answer does not say that nothing was made, and neither does a refusal of a later try. What does is a look at what
the provider shows, if that look proves anything."""

from __future__ import annotations

from typing import Final, Literal

from sandboxer.errors import Outcome, SandboxerError, Unavailable

Trouble = Literal["lost", "slow", "late", "taken", "busy", "refused"]
"""How one try ended. `lost`: it may have been carried out. `slow`: nobody answered in time, and the provider may still
be at work on it. `late`: the same, and whoever asked does not wait any more. `taken`: the name that it asked for is in
use. `busy`: not now, ask again. `refused`: a definite no."""

Look = Literal["ours", "others", "nothing", "unseen"]
"""What was seen afterwards: the sandbox that was asked for; one of somebody else in its place; certainly none; or
nothing certain, because the look failed, or because what this provider shows proves no absence."""

Verdict = Literal["adopt", "remove", "retry", "failed", "unknown", "conflict"]
"""What follows. `adopt`: use what was made. `remove`: take it back, then the create has failed. `retry`: ask again.
`failed`: raise, nothing was made. `unknown`: raise, something may exist. `conflict`: raise, the name is another's."""

TABLE: Final[dict[tuple[Trouble, Look], tuple[Verdict, Verdict]]] = {
    # (how it ended, what was seen): (while it can be asked again, in the end)
    ("lost", "ours"): ("adopt", "adopt"),
    ("lost", "others"): ("conflict", "conflict"),
    ("lost", "nothing"): ("retry", "failed"),
    ("lost", "unseen"): ("retry", "unknown"),
    ("slow", "ours"): ("adopt", "adopt"),
    ("slow", "others"): ("conflict", "conflict"),
    ("slow", "nothing"): ("retry", "unknown"),  # it may appear yet
    ("slow", "unseen"): ("retry", "unknown"),
    ("late", "ours"): ("remove", "remove"),  # nobody would ever hear of it
    ("late", "others"): ("conflict", "conflict"),
    ("late", "nothing"): ("unknown", "unknown"),  # it may appear yet
    ("late", "unseen"): ("unknown", "unknown"),
    ("taken", "ours"): ("adopt", "adopt"),
    ("taken", "others"): ("conflict", "conflict"),
    ("taken", "nothing"): ("unknown", "unknown"),  # known by its name, and not shown yet
    ("taken", "unseen"): ("unknown", "unknown"),
    ("busy", "ours"): ("adopt", "adopt"),  # made by an earlier try, as in the rows below
    ("busy", "others"): ("conflict", "conflict"),
    ("busy", "nothing"): ("retry", "failed"),
    ("busy", "unseen"): ("retry", "unknown"),
    ("refused", "ours"): ("adopt", "adopt"),
    ("refused", "others"): ("conflict", "conflict"),
    ("refused", "nothing"): ("failed", "failed"),
    ("refused", "unseen"): ("unknown", "unknown"),
}


def settle(trouble: Trouble, look: Look, *, again: bool) -> Verdict:
    """What follows from how a create ended and what was seen; `again`: whether it can be asked once more, which takes
    time that is left and a request that cannot make a second sandbox."""
    return TABLE[trouble, look][0 if again else 1]


def trouble_of(error: SandboxerError, *, over: bool = False) -> Trouble:
    """How a try ended that raised `error`; `over`: whoever asked does not wait any more."""
    status = (error.details or {}).get("status")
    if error.outcome == "unknown":
        if error.code != "timeout" and status != 504:
            return "lost"
        return "late" if over else "slow"
    if status == 409 or error.code == "conflict":
        return "taken"
    return "busy" if status == 429 and isinstance(error, Unavailable) else "refused"


def needs_look(trouble: Trouble, *, doubt: bool) -> bool:
    """Whether something may exist, by this try or by one before it (`doubt`). Where it need not be looked for, the look
    counts as `nothing`."""
    return doubt or trouble not in ("busy", "refused")


def with_outcome(error: SandboxerError, outcome: Outcome) -> SandboxerError:
    """The error, saying for certain what became of what was asked for."""
    error.outcome, error.outcome_stated = outcome, True
    error.made_nothing = outcome == "failed"
    return error
