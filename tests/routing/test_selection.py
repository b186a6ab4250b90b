"""Which candidate is tried first, which are skipped, and why."""

from __future__ import annotations

import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxer.errors import InsufficientCredits, Invalid, NotConfigured, SandboxerError, Unavailable, Unsupported
from sandboxer.models import Decision, IsolationClass, Requirements
from sandboxer.routing import place
from sandboxer.routing.requirements import ISOLATION_STRENGTH, check_requirements
from sandboxer.routing.selection import CandidateFacts, Selection, Strategy, select
from tests.sizes import scaled

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


def facts(name: str, **more: Any) -> CandidateFacts:
    """A usable candidate, but for `more`."""
    return CandidateFacts(
        **{"extension": f"ext.{name}", "usd_per_hour": Decimal(0), "estimated_usd": Decimal(0), **more}
    )


def decided(
    *candidates: CandidateFacts,
    strategy: Strategy = "explicit",
    require: Requirements | None = None,
    ttl: int | None = 3600,
) -> Selection:
    return select(candidates, strategy=strategy, require=require or Requirements(), ttl=ttl, subject="profile.test")


def tried(found: Selection) -> list[str]:
    return [decision.extension.removeprefix("ext.") for decision in found.usable]


def test_explicit_takes_them_in_the_order_of_the_profile() -> None:
    found = decided(facts("b"), facts("a"), facts("c"))
    assert tried(found) == ["b", "a", "c"]
    assert [decision.outcome for decision in found.usable] == ["chosen", "standby", "standby"]
    assert found.usable[0].reason == "first in the order of the profile"


def test_prefer_self_hosted_puts_own_hosts_first_and_keeps_the_order_among_them() -> None:
    cloud = {"self_hosted": False}
    found = decided(
        facts("x", **cloud), facts("own1"), facts("y", **cloud), facts("own2"), strategy="prefer-self-hosted"
    )
    assert tried(found) == ["own1", "own2", "x", "y"]
    only_clouds = decided(facts("x", **cloud), facts("y", **cloud), strategy="prefer-self-hosted")
    assert "no self-hosted candidate" in only_clouds.usable[0].reason


def test_lowest_cost_compares_what_the_whole_lifetime_costs_and_says_it() -> None:
    found = decided(
        facts("dear", estimated_usd=Decimal("1.5")),
        facts("cheap", estimated_usd=Decimal("0.0504")),
        facts("same", estimated_usd=Decimal("0.0504")),
        facts("unknown", estimated_usd=None),
        strategy="lowest-cost",
    )
    assert tried(found) == ["cheap", "same", "dear", "unknown"]
    assert found.usable[0].reason == "cheapest: 0.0504 USD"
    assert found.usable[0].estimate_usd == "0.0504"
    assert found.usable[3].estimate_usd is None


def test_lowest_latency_takes_what_was_measured_and_leaves_the_unmeasured_for_last() -> None:
    found = decided(
        facts("new"),
        facts("slow", create_seconds=9.0),
        facts("fast", create_seconds=0.8),
        facts("new2"),
        strategy="lowest-latency",
    )
    assert tried(found) == ["fast", "slow", "new", "new2"]
    assert found.usable[0].reason == "fastest: 0.8 s measured"
    for seconds, said in {0.0327: "0.033 s", 0.0: "0.001 s", 12.34: "12.3 s"}.items():
        quick = decided(facts("a", create_seconds=seconds), facts("b"), strategy="lowest-latency")
        assert quick.usable[0].reason == f"fastest: {said} measured"
    nothing_known = decided(facts("a"), facts("b"), strategy="lowest-latency")
    assert tried(nothing_known) == ["a", "b"]
    assert "none is measured" in nothing_known.usable[0].reason


@pytest.mark.parametrize(
    ("more", "reason", "error"),
    [
        ({"misplaced": "it has no placement hosts"}, "no placement hosts", Invalid),
        ({"absent": "no extension 'ext.x'"}, "no extension", NotConfigured),
        ({"enabled": False}, "switched off", NotConfigured),
        ({"unfit": "it cannot promise gpu: T4"}, "gpu", Unsupported),
        ({"max_ttl": 600}, "live 10m at most", Invalid),
        ({"unpriced": "there is no price for the GPU"}, "no price", NotConfigured),
        ({"missing": "its credential KEY is missing"}, "credential KEY", NotConfigured),
        ({"uncovered": "0.5 USD are asked for"}, "over budget: 0.5", InsufficientCredits),
        ({"live": 3, "max_live": 3}, "at its cap of 3", Unavailable),
        ({"circuit": "open"}, "failed again and again", Unavailable),
    ],
)
def test_a_candidate_that_cannot_serve_is_skipped_with_the_reason_and_alone_it_is_the_error(
    more: dict[str, Any], reason: str, error: type[SandboxerError]
) -> None:
    found = decided(facts("x", **more), facts("y"))
    assert tried(found) == ["y"]
    (skipped,) = found.skipped
    assert (skipped.extension, skipped.outcome) == ("ext.x", "skipped")
    assert reason in skipped.reason
    assert found.usable[0].reason == "only usable candidate"
    alone = decided(facts("x", **more))
    assert type(alone.error) is error
    assert reason in alone.error.message
    assert alone.error.hint


def test_what_is_not_quite_reached_is_not_skipped() -> None:
    assert tried(decided(facts("x", live=2, max_live=3))) == ["x"]
    assert tried(decided(facts("x", max_ttl=3600))) == ["x"]
    assert tried(decided(facts("x", circuit="half-open"))) == ["x"]
    assert tried(decided(facts("x", max_ttl=3600), ttl=None)) == []


def test_the_error_is_the_one_that_something_can_be_done_about() -> None:
    broke, keyless = facts("a", uncovered="no money"), facts("b", missing="no key")
    weak, down = facts("c", unfit="no gpu"), facts("d", circuit="open")
    assert type(decided(broke, broke).error) is InsufficientCredits
    assert type(decided(keyless, keyless).error) is NotConfigured
    assert type(decided(weak, weak).error) is Unsupported
    assert type(decided(keyless, weak).error) is NotConfigured, "a key can be had; a GPU cannot"
    assert type(decided(broke, keyless, weak).error) is InsufficientCredits, "it lacks nothing but money"
    mixed = decided(broke, keyless, weak, down).error
    assert type(mixed) is Unavailable, "that may be over by itself"
    assert mixed.retryable
    for reason in ("ext.a: over budget", "ext.b: no key", "ext.d: it failed"):
        assert reason in mixed.message
    assert type(decided(weak, facts("e", max_ttl=60)).error) is Unavailable
    assert type(decided().error) is Invalid


def test_requirements_are_met_or_refused() -> None:
    require = Requirements(capabilities=["exec", "snapshot"], isolation="vm", max_usd_per_hour="0.50", max_usd="1")
    good = facts(
        "good",
        capabilities=frozenset({"exec", "snapshot", "copy"}),
        isolation="microvm",
        usd_per_hour=Decimal("0.50"),
        estimated_usd=Decimal("1"),
    )
    worse: dict[str, dict[str, Any]] = {
        "cannot snapshot": {"capabilities": frozenset({"exec"})},
        "isolation": {"isolation": "container"},
        "an hour": {"usd_per_hour": Decimal("0.500001")},
        "whole lifetime": {"estimated_usd": Decimal("1.000001")},
        "price is not known": {"usd_per_hour": None},
    }
    import msgspec

    assert tried(decided(good, require=require)) == ["good"]
    for reason, change in worse.items():
        found = decided(msgspec.structs.replace(good, **change), require=require)
        assert tried(found) == []
        assert reason in found.skipped[0].reason
        assert type(found.error) is Unsupported


def test_remote_isolation_meets_no_floor() -> None:
    for floor in get_args(IsolationClass):
        found = decided(facts("x", isolation="remote"), require=Requirements(isolation=floor))
        assert bool(tried(found)) == (floor in ("none", "remote")), floor


def test_what_nothing_could_ever_have_is_a_wrong_profile() -> None:
    for require in (
        Requirements(capabilities=["fly"]), Requirements(isolation="remote"),
        Requirements(vcpu=-1), Requirements(memory_gib=float("nan")), Requirements(disk_gib=float("inf")),
        Requirements(gpu=""), Requirements(gpu="T4:0"), Requirements(gpu="T4:two"), Requirements(gpu=":2"),
    ):  # fmt: skip
        with pytest.raises(Invalid, match=r"profile\.test: require"):
            check_requirements(require, ["exec"], "profile.test")
    check_requirements(Requirements(capabilities=["exec"], isolation="vm"), ["exec"], "profile.test")
    for gpu in ("T4", "H100:2", "A100-80GB", "RTX-PRO-6000:1"):
        check_requirements(Requirements(vcpu=0.5, memory_gib=2, gpu=gpu), ["exec"], "profile.test")


AMOUNTS = st.one_of(st.none(), st.integers(0, 4).map(lambda n: Decimal(n) / 4))
CANDIDATES = st.lists(
    st.builds(
        CandidateFacts,
        extension=st.sampled_from([f"ext.{c}" for c in "abcdefgh"]),
        host=st.sampled_from([None, "local", "h1"]),
        self_hosted=st.booleans(),
        isolation=st.sampled_from(get_args(IsolationClass)),
        capabilities=st.frozensets(st.sampled_from(["exec", "copy", "snapshot"])),
        enabled=st.sampled_from([True, True, True, False]),
        unfit=st.sampled_from([None, None, None, "no gpu"]),
        missing=st.sampled_from([None, None, None, "no key"]),
        uncovered=st.sampled_from([None, None, None, "no money"]),
        usd_per_hour=AMOUNTS,
        estimated_usd=AMOUNTS,
        max_ttl=st.sampled_from([None, None, 600, 7200]),
        live=st.integers(0, 3),
        max_live=st.sampled_from([None, None, 2]),
        circuit=st.sampled_from(["closed", "closed", "half-open", "open"]),
        create_seconds=st.sampled_from([None, 0.5, 1.0, 2.0]),
    ),
    max_size=12,
)
REQUIREMENTS = st.builds(
    Requirements,
    capabilities=st.lists(st.sampled_from(["exec", "copy", "snapshot"]), unique=True, max_size=2),
    isolation=st.sampled_from([None, None, "none", "namespace", "container", "vm", "microvm"]),
    max_usd_per_hour=st.sampled_from([None, None, "0.5"]),
    max_usd=st.sampled_from([None, None, "0.25"]),
)
ASKED = st.tuples(st.sampled_from(STRATEGIES), REQUIREMENTS, st.sampled_from([None, 60, 3600]))
SIZE = settings(max_examples=scaled(300, soak=20_000), deadline=None)


def _meets(one: CandidateFacts, require: Requirements, ttl: int | None) -> bool:
    """The rules once more, written the other way round."""
    return (
        one.enabled
        and one.unfit is None
        and one.missing is None
        and one.uncovered is None
        and set(require.capabilities) <= one.capabilities
        and (
            require.isolation in (None, "none")
            or ISOLATION_STRENGTH[one.isolation] >= ISOLATION_STRENGTH[require.isolation]
        )
        and (require.max_usd_per_hour is None or _at_most(one.usd_per_hour, require.max_usd_per_hour))
        and (require.max_usd is None or _at_most(one.estimated_usd, require.max_usd))
        and (one.max_ttl is None or (ttl is not None and ttl <= one.max_ttl))
        and (one.max_live is None or one.live < one.max_live)
        and one.circuit != "open"
    )


def _at_most(usd: Decimal | None, limit: str) -> bool:
    return usd is not None and usd <= Decimal(limit)


@SIZE
@given(CANDIDATES, ASKED)
def test_requirements_are_met_exactly_or_refused_whatever_the_candidates(
    candidates: list[CandidateFacts], asked: tuple[Strategy, Requirements, int | None]
) -> None:
    strategy, require, ttl = asked
    found = decided(*candidates, strategy=strategy, require=require, ttl=ttl)
    right = [n for n, one in enumerate(candidates) if _meets(one, require, ttl)]
    assert sorted(found.order) == right
    assert len(found.usable) + len(found.skipped) == len(candidates)
    assert all(decision.reason for decision in (*found.usable, *found.skipped))
    assert (found.error is None) == bool(right)


@SIZE
@given(CANDIDATES, ASKED)
def test_the_same_facts_give_the_same_decision(
    candidates: list[CandidateFacts], asked: tuple[Strategy, Requirements, int | None]
) -> None:
    strategy, require, ttl = asked
    once = decided(*candidates, strategy=strategy, require=require, ttl=ttl)
    again = decided(*candidates, strategy=strategy, require=require, ttl=ttl)
    assert (once.order, once.usable, once.skipped) == (again.order, again.usable, again.skipped)


def _key(one: CandidateFacts, strategy: Strategy) -> Any:
    """What a strategy looks at."""
    return {
        "explicit": None,
        "prefer-self-hosted": one.self_hosted,
        "lowest-cost": one.estimated_usd,
        "lowest-latency": one.create_seconds,
    }[strategy]


@SIZE
@given(CANDIDATES, ASKED, st.randoms(use_true_random=False))
def test_order_in_the_profile_decides_ties_and_nothing_else(
    candidates: list[CandidateFacts], asked: tuple[Strategy, Requirements, int | None], shuffle: Any
) -> None:
    strategy, require, ttl = asked
    mixed = list(candidates)
    shuffle.shuffle(mixed)

    def keys(these: Sequence[CandidateFacts]) -> list[Any]:
        found = decided(*these, strategy=strategy, require=require, ttl=ttl)
        for left, right in zip(found.order, found.order[1:], strict=False):
            tied = _key(these[left], strategy) == _key(these[right], strategy)
            assert not tied or left < right, "a tie goes to the one that is listed first"
        return [_key(these[n], strategy) for n in found.order]

    assert keys(candidates) == keys(mixed)


def test_a_decision_over_fifty_candidates_costs_little_more_than_fifty_looks() -> None:
    """The bare decision; tests/manager/test_candidates.py has the figure from the request to the answer."""
    require = Requirements(capabilities=["exec"], isolation="container", max_usd="5")

    def one(n: int) -> CandidateFacts:
        return facts(
            f"e{n}",
            capabilities=frozenset({"exec"}),
            isolation="vm",
            estimated_usd=Decimal(n % 7),
            self_hosted=n % 2 == 0,
        )

    def seconds(count: int) -> float:
        these = [one(n) for n in range(count)]
        best = 1.0
        for _ in range(5):
            start = time.thread_time()  # a busy machine takes its turns within 50 of many, and not of one
            for _ in range(50):
                decided(*these, strategy="lowest-cost", require=require)
            best = min(best, (time.thread_time() - start) / 50)
        return best

    alone, many = seconds(1), seconds(50)
    assert many / alone <= 30, f"{many * 1e6:.0f} us / {alone * 1e6:.0f} us"
    assert many < 0.005


def test_a_decision_says_the_host() -> None:
    found = decided(facts("x", host="h1", placed="preferred by the profile"))
    assert found.usable == (
        Decision(extension="ext.x", outcome="chosen", reason="preferred by the profile", estimate_usd="0", host="h1"),
    )


def test_a_listed_host_that_is_not_configured_is_passed_over_and_has_no_price() -> None:
    found = place(
        extension="ext.a", flag=None, environment=None, listed=["away", "here"], configured=["here"], default=None
    )
    assert found.hosts == ("here",)
    assert [(one.host, one.outcome, one.estimate_usd) for one in found.decisions] == [("away", "skipped", None)]
