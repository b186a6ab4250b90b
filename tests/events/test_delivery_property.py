"""Whatever the hub does, each event arrives at least once, and first arrivals keep the order of each sandbox."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandboxer.models import Event
from sandboxer.store.base import Store
from sandboxer.store.json_store import JsonStore
from sandboxer.testing.hub import FINE, FakeHub, HubFault, answer, cut, hung_up, lost
from sandboxer.timing import Deadline
from tests.events.setting import A, B, C, record_fact, relay_to


class Killed(BaseException):
    """The process is gone before it could note the answers."""


class Forgetful(JsonStore):
    """A store whose process dies at the next settling, if so told."""

    dies = False

    def settle_events(self, settled: Iterable[Event]) -> None:
        if self.dies:
            raise Killed
        super().settle_events(settled)


FAULTS = [
    FINE,
    answer(500),
    answer(503),
    answer(503, retry_after="3600"),
    answer(429),
    answer(429, retry_after="0"),
    answer(408),
    lost(),
    cut(),
    hung_up(),
    HubFault(answer="body"),
    HubFault(status=500),  # takes it, and says that it did not
    answer(302, location="http://127.0.0.1:9/"),
]
rounds = st.lists(
    st.tuples(
        st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=4),  # what is recorded
        st.lists(st.sampled_from(FAULTS), min_size=1, max_size=6),  # how the next requests are treated
        st.sampled_from(["flush", "flush and die", "down"]),
    ),
    min_size=1,
    max_size=5,
)
Round = tuple[list[str], list[HubFault], str]


def check(recorded: Sequence[Event], first_arrivals: Sequence[Mapping[str, object]]) -> None:
    """Each recorded event is among the arrivals, and each sandbox's are in order."""
    assert Counter(event.event_id for event in recorded) == Counter(str(event["event_id"]) for event in first_arrivals)
    for sandbox_id in (A, B, C):
        want = [event.event_id for event in recorded if event.detail["sandbox_id"] == sandbox_id]
        ids = set(want)
        assert [event["event_id"] for event in first_arrivals if event["event_id"] in ids] == want


def play(one: Round, hub: FakeHub, store: Forgetful, directory: Path) -> list[Event]:
    sandboxes, faults, how = one
    recorded = [record_fact(store, sandbox_id) for sandbox_id in sandboxes]
    hub.faults.extend(faults)
    store.dies = how == "flush and die"
    if how == "down":
        hub.stop()
    try:
        relay_to(hub, store, directory).flush(Deadline(5))
    except Killed:
        assert store.dies
    finally:
        store.dies = False
        hub.faults.clear()
    if how == "down":
        hub.start()
    return recorded


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rounds)
def test_every_event_arrives_at_least_once_and_in_order(rounds: list[Round]) -> None:
    with tempfile.TemporaryDirectory() as name, FakeHub() as hub:
        store = Forgetful(Path(name))
        recorded = [event for one in rounds for event in play(one, hub, store, Path(name))]
        play(([], [], "flush"), hub, store, Path(name))
        check(recorded, hub.events)
        assert_settled(store)


def assert_settled(store: Store) -> None:
    assert {event.status for event in store.events()} <= {"sent"}


def test_the_check_sees_a_lost_event_and_a_wrong_order(tmp_path: Path) -> None:
    """The property above can fail."""
    store = JsonStore(tmp_path)
    recorded = [record_fact(store, A), record_fact(store, A), record_fact(store, B)]
    one, two, other = ({"event_id": event.event_id} for event in recorded)
    check(recorded, [other, one, two])
    for wrong in ([one, two], [two, one, other], [one, two, other, {"event_id": "foreign"}]):
        with pytest.raises(AssertionError):
            check(recorded, wrong)
