"""Who is told of a metered usage: the State Hub and fin-hub, each in its own form, neither in the way of the other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec

from sandboxer.events.relay import Relay, Relays
from sandboxer.events.sink import fin_hub
from sandboxer.manager import SandboxManager
from sandboxer.models import HubSettings, Sandbox, Settings
from sandboxer.store.json_store import JsonStore
from sandboxer.testing.hub import FakeHub, answer, lost
from sandboxer.timing import Deadline
from tests.manager.metered import Bank

KEYS = [
    "usage_id", "sandbox_id", "extension_id", "profile", "consumer", "started_at", "ended_at", "duration_s",
    "actual_usd", "currency",
]  # fmt: skip
"""Contract §7, to the letter."""


def told(bank: Bank, *, state_hub: str | None, fin: str | None) -> Sandbox:
    """A metered sandbox that lived for 100 s, with these neighbours."""
    core = bank.manager.services
    settings = msgspec.structs.replace(
        core.settings, state_hub=HubSettings(url=state_hub), fin_hub=HubSettings(url=fin)
    )
    bank.manager = SandboxManager(dataclasses.replace(core, settings=settings))
    record = bank.create()
    bank.now += 100
    return bank.manager.destroy(record.id)


def relays(root: Path, settings: Settings) -> Relays:
    store, data = JsonStore(root / "data"), root / "data"
    return Relays(
        [
            Relay(store, settings.state_hub, data),
            Relay(store, settings.fin_hub, data, sink=fin_hub),
        ]
    )


def test_fin_hub_gets_exactly_the_record_of_the_contract(tmp_path: Path) -> None:
    with FakeHub(path="/records/in?team=a") as hub:
        bank = Bank(tmp_path)
        record = told(bank, state_hub=None, fin=hub.url + hub.path)
        report = Relay(
            JsonStore(tmp_path / "data"), bank.manager.services.settings.fin_hub, tmp_path / "data", sink=fin_hub,
        ).flush(Deadline(5))  # fmt: skip
        assert (report.sent, report.pending) == (1, 0)
        (arrival,) = hub.arrivals
    assert list(arrival.event) == KEYS
    assert arrival.event == {
        "usage_id": f"use-{record.id}", "sandbox_id": record.id, "extension_id": "ext.fake", "profile": "profile.fake",
        "consumer": "adm:tester", "started_at": "2027-01-15T08:00:00.000Z", "ended_at": "2027-01-15T08:01:40.000Z",
        "duration_s": 100.0, "actual_usd": "0.1", "currency": "USD",
    }  # fmt: skip
    assert arrival.headers["Idempotency-Key"] == f"use-{record.id}"


def test_the_state_hub_is_told_in_order_with_a_number_of_its_own(tmp_path: Path) -> None:
    """Promise 21."""
    bank = Bank(tmp_path)
    told(bank, state_hub="http://127.0.0.1:9", fin="http://127.0.0.1:9")
    mine = [event for event in bank.manager.events() if event.sink == "state-hub"]
    assert [event.event_type for event in mine][-3:] == ["sandbox.destroying", "usage.metered", "sandbox.destroyed"]
    assert [event.detail["seq"] for event in mine] == list(range(1, len(mine) + 1))
    metered = mine[-2]
    assert (metered.detail["actual_usd"], metered.detail["overrun_usd"]) == ("0.1", "0")
    assert metered.summary.endswith("was metered on local (profile.fake)")
    (item,) = [event for event in bank.manager.events() if event.sink == "fin-hub"]
    assert item.occurred_at == metered.occurred_at


def test_without_a_fin_hub_nothing_is_kept_for_one(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    told(bank, state_hub=None, fin=None)
    assert {event.sink for event in bank.manager.events()} == {"state-hub"}
    assert {event.status for event in bank.manager.events()} == {"kept"}


def test_a_repeated_end_tells_nobody_twice(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    record = told(bank, state_hub=None, fin="http://127.0.0.1:9")
    bank.manager.destroy(record.id)
    bank.manager.expire(apply=True)
    assert [event.event_type for event in bank.manager.events()].count("usage.metered") == 2


def test_one_neighbour_that_is_dead_does_not_hold_up_the_other(tmp_path: Path) -> None:
    """Promise 21, for both: each has its own order, its own lock and its own report."""
    for dead in ("state-hub", "fin-hub"):
        root = tmp_path / dead
        with FakeHub() as hub, FakeHub(path="/") as fin:
            bank = Bank(root)
            told(bank, state_hub=hub.url, fin=fin.url + "/")
            (hub if dead == "state-hub" else fin).stop()
            report = relays(root, bank.manager.services.settings).flush(Deadline(10))
            waiting = {one.sink: one.pending for one in report.sinks}
            statuses: dict[str, set[str]] = {"state-hub": set(), "fin-hub": set()}
            for event in bank.manager.events():
                statuses[event.sink].add(event.status)
        alive = "fin-hub" if dead == "state-hub" else "state-hub"
        assert (waiting[alive], waiting[dead] > 0) == (0, True)
        assert (statuses[alive], statuses[dead]) == ({"sent"}, {"pending"})
        assert report.error is not None
        assert "Connection refused" in report.error


def test_what_fin_hub_did_not_acknowledge_is_sent_again_under_the_same_key(tmp_path: Path) -> None:
    with FakeHub(path="/") as fin:
        bank = Bank(tmp_path)
        told(bank, state_hub=None, fin=fin.url + "/")
        fin.faults.extend([lost(), answer(503), answer(422)])
        relay = relays_to_fin(tmp_path, fin)
        for waiting in (1, 1, 0):
            assert relay.flush(Deadline(5)).pending == waiting
        assert relay.flush(Deadline(5), parked=True).sent == 1
        assert len({arrival.headers["Idempotency-Key"] for arrival in fin.arrivals}) == 1
        assert len(fin.arrivals) == 2


def relays_to_fin(root: Path, fin: FakeHub) -> Relay:
    data = root / "data"
    return Relay(JsonStore(data), HubSettings(url=fin.url + "/"), data, sink=fin_hub)


def test_a_relay_to_one_is_started_although_the_other_is_busy(tmp_path: Path) -> None:
    from sandboxer.events import start_relay_process
    from sandboxer.events.relay_lock import acquire_relay_lock, lock_name

    bank = Bank(tmp_path)
    told(bank, state_hub=None, fin="http://127.0.0.1:9")
    data, store = tmp_path / "data", JsonStore(tmp_path / "data")
    nobody, somebody = HubSettings(), HubSettings(url="http://127.0.0.1:9")
    assert start_relay_process(store, somebody, data, ["true"]) is None, "nothing waits for the State Hub"
    with acquire_relay_lock(data / lock_name("state-hub"), Deadline(1)):
        assert start_relay_process(store, nobody, data, ["true"], fin_hub=somebody) is not None
    with acquire_relay_lock(data / lock_name("fin-hub"), Deadline(1)):
        assert start_relay_process(store, somebody, data, ["true"], fin_hub=somebody) is None
