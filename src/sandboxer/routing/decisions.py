"""Note what became of the candidates, in the order in which they are tried: the decisions of a route.

The first decisions of a route are those on the usable candidates, in turn, and the one that is `chosen` is the one that
is tried now. So the route alone tells another process where a create has got to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from sandboxer.models import Decision, Route

AttemptOutcome = Literal["failed", "skipped", "unknown"]


def chosen_position(route: Route) -> int | None:
    """The position of the candidate that is tried now; None when none is."""
    return next((n for n, decision in enumerate(route.decisions) if decision.outcome == "chosen"), None)


def mark_ended(route: Route, turn: int, *, outcome: AttemptOutcome, reason: str) -> Route:
    """The candidate at `turn` has had its turn."""
    return _with(route, turn, msgspec.structs.replace(route.decisions[turn], outcome=outcome, reason=reason))


def mark_chosen(route: Route, turn: int, reason: str) -> Route:
    """The candidate at `turn` is tried now."""
    return _with(route, turn, msgspec.structs.replace(route.decisions[turn], outcome="chosen", reason=reason))


def reason_for_next(route: Route, turn: int) -> str:
    """Why the candidate at `turn` has its turn: what became of those before it."""
    before = route.decisions[:turn]
    hosts = {decision.extension for decision in before} == {route.decisions[turn].extension}
    tried = any(decision.outcome == "failed" for decision in before)
    if hosts and tried:
        return "the hosts before it failed" if len(before) > 1 else "the host before it failed"
    return "those before it failed or were passed over" if len(before) > 1 else _one(before)


def _one(before: Sequence[Decision]) -> str:
    return "the one before it failed" if before[0].outcome == "failed" else "the one before it was passed over"


def _with(route: Route, turn: int, decision: Decision) -> Route:
    decisions = [*route.decisions[:turn], decision, *route.decisions[turn + 1 :]]
    return msgspec.structs.replace(route, decisions=decisions)
