"""What becomes of the candidates of a route, as they are tried."""

from __future__ import annotations

from sandboxer.models import Decision, Route
from sandboxer.routing.decisions import chosen_position, mark_chosen, mark_ended, reason_for_next


def _route(*names: str) -> Route:
    decisions = [Decision(extension=name, outcome="standby", reason="not needed so far") for name in names]
    return Route(strategy="explicit", decisions=decisions)


def test_the_route_tells_whose_turn_it_is() -> None:
    route = _route("ext.a", "ext.b")
    assert chosen_position(route) is None
    first = mark_chosen(route, 0, "first")
    assert chosen_position(first) == 0
    after = mark_chosen(mark_ended(first, 0, outcome="failed", reason="no capacity"), 1, "next")
    assert chosen_position(after) == 1
    assert [(one.outcome, one.reason) for one in after.decisions] == [("failed", "no capacity"), ("chosen", "next")]
    assert chosen_position(mark_ended(after, 1, outcome="unknown", reason="who knows")) is None
    assert route == _route("ext.a", "ext.b"), "nothing is changed in place"


def test_the_next_one_says_what_became_of_those_before_it() -> None:
    failed = mark_ended(_route("ext.a", "ext.b", "ext.c"), 0, outcome="failed", reason="no")
    assert reason_for_next(failed, 1) == "the one before it failed"
    skipped = mark_ended(failed, 1, outcome="skipped", reason="over budget")
    assert reason_for_next(skipped, 2) == "those before it failed or were passed over"
    assert reason_for_next(mark_ended(_route("ext.a", "ext.b"), 0, outcome="skipped", reason="full"), 1) == (
        "the one before it was passed over"
    )
    hosts = mark_ended(_route("ext.a", "ext.a"), 0, outcome="failed", reason="silent")
    assert reason_for_next(hosts, 1) == "the host before it failed"
