"""The outbox of the JSON store: which events wait, and which are parked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandboxer.store.json_store import JsonStore
from tests.store.records import ID, event, put, sandbox, tell


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_events_that_wait_in_vain_are_parked_and_kept_in_the_archive(data: Path) -> None:
    """Promise 21: never lost silently, and a dead hub does not make the document grow without end."""
    store = JsonStore(data)
    store.update(ID, put(sandbox(), *(event(str(n)) for n in range(10_000))))
    assert {told.status for told in store.events()} == {"pending"}
    store.update(ID, tell(event("10000")))
    told = store.events()
    assert [one.event_id for one in told if one.status == "pending"] == [str(n) for n in range(1001, 10_001)]
    parked = [one for one in told if one.status == "parked"]
    assert [one.event_id for one in parked] == [str(n) for n in range(501, 1001)]
    assert {one.note for one in parked} == {"not sent: more than 10,000 events were waiting; see archive/events.jsonl"}
    kept = [json.loads(line)["event_id"] for line in (data / "archive" / "events.jsonl").read_text().splitlines()]
    assert kept == [str(n) for n in range(1001)]


def test_who_changes_without_end_parks_their_own_events_and_nobody_elses(data: Path) -> None:
    """A consumer moves the end of its sandbox back and forth while the hub is away: others' facts still wait for it."""
    store = JsonStore(data)
    store.update(ID, tell(*(event(f"other {n}", actor=f"agt:{n % 4}") for n in range(20))))
    for first in range(0, 10_500, 1500):
        store.update(ID, tell(*(event(str(n), actor="agt:flood") for n in range(first, first + 1500))))
    told = store.events()
    waiting = [one.event_id for one in told if one.status == "pending"]
    assert waiting[:20] == [f"other {n}" for n in range(20)]
    assert waiting[-1] == "10499"
    assert len(waiting) <= 10_000
    assert {one.actor for one in told if one.status == "parked"} == {"agt:flood"}
