"""docs/routing.md: what it says of strategies, requirements, outcomes, errors and health."""

from __future__ import annotations

import re
from typing import get_args, get_type_hints

import msgspec

from sandboxer.manager.establish import failure_policy
from sandboxer.manager.limits import DEFAULT
from sandboxer.models import Decision, Requirements, RouteSpec
from sandboxer.routing import circuit_breaker
from sandboxer.routing.requirements import ISOLATION_STRENGTH
from sandboxer.routing.selection import _ERRORS, CandidateFacts, ExclusionKind, select
from tests.docs.pages import ROOT, bare, spans, table

PAGE = ROOT / "docs" / "routing.md"
TEXT = PAGE.read_text()


def _first_cells(*heading: str) -> list[str]:
    return [bare(row[0]) for row in table(PAGE, *heading).rows]


def test_the_strategies_are_those_of_the_model() -> None:
    assert set(_first_cells("strategy")) == set(get_args(get_type_hints(RouteSpec)["strategy"]))


def test_the_requirements_are_those_of_the_model() -> None:
    assert _first_cells("`require` key") == [field.encode_name for field in msgspec.structs.fields(Requirements)]


def test_the_outcomes_are_those_of_a_decision() -> None:
    assert set(_first_cells("outcome")) == set(get_args(get_type_hints(Decision)["outcome"]))


def test_the_order_of_isolation_is_the_one_that_is_applied() -> None:
    (row,) = [row for row in table(PAGE, "`require` key").rows if bare(row[0]) == "isolation"]
    told = [name for name in spans(row[1]) if name in ISOLATION_STRENGTH]
    floors = told[: told.index("remote")]
    assert floors == sorted(floors, key=lambda name: ISOLATION_STRENGTH[name])
    assert set(floors) | {"remote"} == set(ISOLATION_STRENGTH)


def test_the_reasons_and_their_errors_are_those_of_the_decision() -> None:
    """One row for each kind of reason, in the order in which they are looked at."""
    told = [bare(row[1]) for row in table(PAGE, "reason").rows]
    kinds: tuple[ExclusionKind, ...] = get_args(ExclusionKind)
    looked_at = [
        "host",
        "installation",
        "off",
        *(kind for kind in kinds if kind not in ("host", "installation", "off")),
    ]
    assert told == [_ERRORS[kind].code for kind in looked_at]


def test_the_first_reason_of_several_is_the_one_that_stands_first() -> None:
    everything = CandidateFacts(
        extension="ext.x", misplaced="host", absent="absent", enabled=False, unfit="unfit", max_ttl=1, unpriced="price",
        missing="missing", uncovered="uncovered", max_live=0, circuit="open",
    )  # fmt: skip
    order = ("misplaced", "absent", "enabled", "unfit", "max_ttl", "unpriced", "missing", "uncovered", "max_live")
    mended = {"enabled": True, "max_ttl": None, "max_live": None}
    seen: list[str] = []
    for name in (*order, "circuit"):
        found = select([everything], strategy="explicit", require=Requirements(), ttl=60, subject="profile.x")
        seen.append(found.skipped[0].reason)
        everything = msgspec.structs.replace(everything, **{name: mended.get(name)})
    words = [
        "host",
        "absent",
        "switched off",
        "unfit",
        "live 1s at most",
        "price",
        "missing",
        "uncovered",
        "cap",
        "again",
    ]
    assert len(seen) == len(words) == len(table(PAGE, "reason").rows)
    assert [word for word, reason in zip(words, seen, strict=True) if word not in reason] == []


FIRST = {
    "none": "",
    "look": "look for it",
    "rollback": "take it back",
    "quick-rollback": f"take it back, in {DEFAULT.quick_rollback:g} s",
}
STEPS = {"adopt": "adopt", "next": "next", "give-up": "give up", "unknown": "unknown", None: ""}


def test_what_follows_from_a_failure_is_what_the_table_of_the_code_says() -> None:
    """Row by row and column by column."""
    order: tuple[failure_policy.Left, ...] = ("nothing", "found", "no-answer", "unclear")
    assert set(order) == set(get_args(failure_policy.Left))
    assert set(failure_policy.POLICIES) == set(get_args(failure_policy.Cause))
    assert table(PAGE, "what happened").rows == [
        (policy.when, FIRST[policy.cleanup], *(STEPS[policy.then.get(left)] for left in order))
        for policy in failure_policy.POLICIES.values()
    ]


def test_the_figures_of_health_are_those_of_the_code() -> None:
    part = TEXT[TEXT.index("## Health") :]
    said = {
        r"counts half after (\d+) h": circuit_breaker.HALF_LIFE_SECONDS / 3600,
        r"opens after (\d+) failures": circuit_breaker.FAILURES_TO_OPEN,
        r"leave the place alone for (\d+) s": circuit_breaker.OPEN_SECONDS,
        r"had less than (\d+) s": DEFAULT.fair_create,
        r"at most every (\d+) s": DEFAULT.health_write,
    }
    for pattern, value in said.items():
        match = re.search(pattern, part)
        assert match is not None, pattern
        assert float(match[1]) == value, pattern
    hours = re.search(r"forgotten after (\d+) h", part)
    assert hours is not None
    once = circuit_breaker.after_success(circuit_breaker.NO_STATS, 0.0, 1.0)
    assert circuit_breaker.mean_create_seconds(once, float(hours[1]) * 3600) is None
    assert circuit_breaker.mean_create_seconds(once, float(hours[1]) * 3600 - 3600) is not None
