"""The relay of a process that lives long."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from sandboxer.errors import StoreCorrupt
from sandboxer.events.relay_loop import RelayLoop
from sandboxer.models import Event
from sandboxer.store.json_store import JsonStore
from sandboxer.testing.hub import FakeHub, answer, slow
from tests.events.setting import A, eventually, record_fact, relay_to, seqs, statuses, store_with


def test_it_sends_what_waits_at_the_start_and_what_it_is_woken_for(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A])
    with FakeHub() as hub:
        loop = RelayLoop(relay_to(hub, store, tmp_path))
        loop.start()
        try:
            assert eventually(lambda: seqs(hub, A) == [1])
            record_fact(store, A)
            loop.wake()
            assert eventually(lambda: seqs(hub, A) == [1, 2])
        finally:
            loop.stop()
    assert statuses(store) == ["sent"] * 2


def test_it_tries_again_by_itself_until_a_dead_hub_is_back(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A])
    hub = FakeHub().start()
    hub.stop()
    loop = RelayLoop(relay_to(hub, store, tmp_path), first_pause=0.01, longest_pause=0.05)
    loop.start()
    try:
        assert not eventually(lambda: bool(hub.arrivals), seconds=0.1)
        hub.start()
        assert eventually(lambda: seqs(hub, A) == [1])
    finally:
        loop.stop()
        hub.stop()


def test_it_stops_soon_also_in_the_middle_of_a_request_or_a_pause(tmp_path: Path) -> None:
    for number, fault in enumerate([slow(30), answer(503, retry_after="20")]):
        data = tmp_path / str(number)
        store = store_with(data, [A])
        with FakeHub() as hub:
            hub.rule = lambda _, fault=fault: fault
            loop = RelayLoop(relay_to(hub, store, data, seconds=20))
            loop.start()
            assert eventually(lambda hub=hub: hub.requests == 1)  # type: ignore[misc]
            start = time.monotonic()
            loop.stop()
            assert time.monotonic() - start < 15


def test_it_says_what_was_refused(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A])
    alarms: list[str] = []
    with FakeHub() as hub:
        hub.faults.append(answer(422))
        loop = RelayLoop(relay_to(hub, store, tmp_path), alarm=alarms.append)
        loop.start()
        try:
            assert eventually(lambda: len(alarms) == 1)
        finally:
            loop.stop()
    assert "HTTP 422" in alarms[0]


class Unreadable(JsonStore):
    broken = True

    def events(self, *, limit: int | None = None) -> Sequence[Event]:
        if self.broken:
            raise StoreCorrupt("sandboxes.json cannot be read")
        return super().events(limit=limit)


def test_a_store_that_cannot_be_read_does_not_end_it(tmp_path: Path) -> None:
    record_fact(JsonStore(tmp_path), A)
    store = Unreadable(tmp_path)
    alarms: list[str] = []
    with FakeHub() as hub:
        loop = RelayLoop(relay_to(hub, store, tmp_path), alarm=alarms.append, first_pause=0.01)
        loop.start()
        try:
            assert eventually(lambda: bool(alarms))
            store.broken = False
            assert eventually(lambda: seqs(hub, A) == [1])
        finally:
            loop.stop()
