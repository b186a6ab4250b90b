"""The relay against a hub that is down, slow, erring and restarting (promise 21)."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from sandboxer.errors import Invalid, NotConfigured, Unavailable
from sandboxer.events.relay import Relay
from sandboxer.events.relay_lock import RELAY_LOCK, acquire_relay_lock
from sandboxer.models import Event, HubSettings
from sandboxer.store.json_store import JsonStore
from sandboxer.testing.hub import FakeHub, HubFault, answer, cut, hung_up, lost, slow
from sandboxer.timing import Deadline
from tests.events.setting import (
    A,
    B,
    C,
    eventually,
    record_fact,
    relay_to,
    seqs,
    statuses,
    store_with,
)
from tests.http.peers import peer, saying


def test_waiting_events_arrive_in_order_with_their_id_time_and_token(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A, A, B, A])
    with FakeHub(token="canary-token") as hub:
        report = relay_to(hub, store, tmp_path, token="canary-token").flush(Deadline(5))
        assert (report.sent, report.parked, report.pending, report.error) == (4, 0, 0, None)
        assert [arrival.event["event_id"] for arrival in hub.arrivals] == [one.event_id for one in store.events()]
        assert [arrival.event["occurred_at"] for arrival in hub.arrivals] == [one.occurred_at for one in store.events()]
        headers = hub.arrivals[0].headers
        assert headers["Content-Type"] == "application/json"
        assert headers["Authorization"] == "Bearer canary-token"
    assert statuses(store) == ["sent"] * 4
    assert "canary-token" not in (tmp_path / "sandboxes.json").read_text()


def test_nothing_is_sent_twice_when_all_is_well(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A, A])
    with FakeHub() as hub:
        relay = relay_to(hub, store, tmp_path)
        relay.flush(Deadline(5))
        assert relay.flush(Deadline(5)).sent == 0
        assert hub.requests == 2


def test_a_hub_that_is_down_costs_one_attempt_and_everything_waits(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A, B, C])
    hub = FakeHub().start()
    hub.stop()
    report = relay_to(hub, store, tmp_path).flush(Deadline(5))
    assert (report.sent, report.pending) == (0, 3)
    assert report.error == f"the State Hub at {hub.url}: Connection refused"
    with hub:
        assert relay_to(hub, store, tmp_path).flush(Deadline(5)).sent == 3


@pytest.mark.parametrize("fault", [answer(500), answer(502), answer(408), answer(425), answer(429), hung_up()], ids=str)
def test_an_event_that_is_not_taken_now_keeps_back_its_own_sandbox_only(tmp_path: Path, fault: HubFault) -> None:
    store = store_with(tmp_path, [A, B, A, C, B])
    with FakeHub() as hub:
        hub.rule = lambda event: fault if event["detail"]["sandbox_id"] == A else None
        report = relay_to(hub, store, tmp_path).flush(Deadline(5))
        assert statuses(store) == ["pending", "sent", "pending", "sent", "sent"]
        assert (report.sent, report.pending) == (3, 2)
        assert report.error is not None
        hub.rule = None
        assert relay_to(hub, store, tmp_path).flush(Deadline(5)).pending == 0
        assert (seqs(hub, A), seqs(hub, B), seqs(hub, C)) == ([1, 2], [1, 2], [1])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 422])
def test_an_event_that_is_refused_for_good_is_parked_with_an_alarm_and_blocks_nobody(
    tmp_path: Path, status: int
) -> None:
    store = store_with(tmp_path, [A, A, B])
    with FakeHub() as hub:
        hub.faults.append(answer(status))
        report = relay_to(hub, store, tmp_path).flush(Deadline(5))
        assert (report.sent, report.parked, report.pending, report.error) == (2, 1, 0, None)
        assert statuses(store) == ["parked", "sent", "sent"]
        first = store.events()[0]
        assert first.note == f"refused: HTTP {status}"
        (alarm,) = report.warnings
        assert first.event_id in alarm
        assert f"HTTP {status}" in alarm


def test_what_was_parked_is_sent_again_when_asked_for(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A, A])
    with FakeHub(token="right") as hub:
        assert relay_to(hub, store, tmp_path, token="wrong").flush(Deadline(5)).parked == 2
        assert relay_to(hub, store, tmp_path, token="right").flush(Deadline(5)).sent == 0
        assert relay_to(hub, store, tmp_path, token="right").flush(Deadline(5), parked=True).sent == 2
        assert seqs(hub, A) == [1, 2]
    assert [(event.status, event.note) for event in store.events()] == [("sent", None)] * 2


@pytest.mark.parametrize("fault", [lost(), cut()], ids=["no answer", "half an answer"])
def test_an_event_whose_answer_is_lost_is_sent_again_with_the_same_id(tmp_path: Path, fault: HubFault) -> None:
    store = store_with(tmp_path, [A, A])
    with FakeHub() as hub:
        hub.faults.append(fault)
        relay = relay_to(hub, store, tmp_path)
        assert relay.flush(Deadline(5)).pending == 2
        assert relay.flush(Deadline(5)).pending == 0
        assert [arrival.event["detail"]["seq"] for arrival in hub.arrivals] == [1, 1, 2]
        assert hub.arrivals[0].event == hub.arrivals[1].event


def test_an_answer_whose_body_is_cut_is_an_answer(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A, A])
    with FakeHub() as hub:
        hub.faults.append(HubFault(answer="body"))
        assert relay_to(hub, store, tmp_path).flush(Deadline(5)).sent == 2
        assert len(hub.arrivals) == 2


def test_a_slow_hub_is_given_up_by_the_read_timeout_and_after_three_events(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A, A, B, C, "dddddddddddd", "eeeeeeeeeeee"])
    with FakeHub() as hub:
        hub.rule = lambda _: slow(30)
        start = time.monotonic()
        report = relay_to(hub, store, tmp_path, seconds=0.05).flush(Deadline(60))
        assert time.monotonic() - start < 20
        assert report.pending == 6
        assert report.error == f"the State Hub at {hub.url}: no answer in time"
        assert hub.requests == 3


def test_a_trickling_answer_ends_with_the_deadline(tmp_path: Path) -> None:
    """Each byte comes well within the read time-out; only an end of the whole request helps."""
    store = store_with(tmp_path, [A])
    with FakeHub() as hub:
        hub.rule = lambda _: HubFault(answer="trickle", headers={"X-Long": "x" * 2000})
        start = time.monotonic()
        report = relay_to(hub, store, tmp_path, seconds=5).flush(Deadline(0.3))
        assert 0.25 < time.monotonic() - start < 20
        assert report.pending == 1
        assert report.error is not None
        assert "no answer in time" in report.error


def test_a_pause_that_the_hub_asks_for_is_made_when_there_is_time(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A, A])
    with FakeHub() as hub:
        hub.faults.extend([answer(429, retry_after="0"), answer(503, retry_after="1")])
        start = time.monotonic()
        report = relay_to(hub, store, tmp_path).flush(Deadline(10))
        assert time.monotonic() - start >= 1
        assert (report.sent, report.pending) == (2, 0)


@pytest.mark.parametrize("asked", ["0", "1"])
def test_an_event_that_is_always_put_off_does_not_use_up_the_time_of_the_others(tmp_path: Path, asked: str) -> None:
    """Promise 21: whatever the hub does. It would use up the next flush in the same way, and each after that."""
    store = store_with(tmp_path, [A, B, A, C])
    with FakeHub() as hub:
        hub.rule = lambda event: answer(429, retry_after=asked) if event["detail"]["sandbox_id"] == A else None
        start = time.monotonic()
        report = relay_to(hub, store, tmp_path).flush(Deadline(60))
        assert time.monotonic() - start < 40
        assert statuses(store) == ["pending", "sent", "pending", "sent"]
        assert (report.sent, report.pending) == (2, 2)
        assert report.error is not None
        assert "HTTP 429" in report.error


def test_a_pause_beyond_the_deadline_is_left_to_the_next_flush(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A])
    with FakeHub() as hub:
        hub.faults.append(answer(503, retry_after="3600"))
        start = time.monotonic()
        assert relay_to(hub, store, tmp_path).flush(Deadline(60)).pending == 1
        assert time.monotonic() - start < 20


def test_a_redirect_is_not_followed_and_the_token_goes_nowhere_else(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A])
    with FakeHub() as elsewhere, FakeHub() as hub:
        hub.rule = lambda _: answer(307, location=elsewhere.url + "/progress")
        report = Relay(store, HubSettings(url=hub.url, token="canary-token"), tmp_path).flush(Deadline(5))
        assert elsewhere.requests == 0
        assert report.pending == 1
        assert report.error is not None
        assert "redirects" in report.error


def test_a_hub_that_restarts_gets_everything(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A, B])
    pauses: list[float] = []
    hub = FakeHub().start()
    hub.stop()

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            record_fact(store, A)
            hub.start()

    try:
        report = relay_to(hub, store, tmp_path).run(Deadline(60), pause=pause)
        assert (report.pending, pauses) == (0, [1.0, 2.0, 4.0])
        assert seqs(hub, A) == [1, 2]
    finally:
        hub.stop()


def test_a_waiting_relay_ends_with_its_deadline(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A])
    hub = FakeHub().start()
    hub.stop()
    pauses: list[float] = []
    assert relay_to(hub, store, tmp_path).run(Deadline(0.5), pause=pauses.append).pending == 1
    assert pauses == []


def test_one_relay_waits_for_a_dead_hub_and_others_try_once(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A])
    hub = FakeHub().start()
    hub.stop()
    others: list[int] = []

    def pause(_: float) -> None:
        others.append(
            relay_to(hub, store, tmp_path).run(Deadline(60), pause=lambda _: pytest.fail("waits too")).pending
        )
        hub.start()

    try:
        assert relay_to(hub, store, tmp_path).run(Deadline(60), pause=pause).pending == 0
        assert others == [1]
    finally:
        hub.stop()


def test_two_relays_never_send_at_once(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A] * 10)
    with FakeHub() as hub:
        hub.rule = lambda _: slow(0.02)
        reports: list[int] = []
        threads = [
            threading.Thread(target=lambda: reports.append(relay_to(hub, store, tmp_path).flush(Deadline(20)).sent))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(reports) == [0, 0, 10]
        assert len(hub.arrivals) == 10


def test_a_relay_that_need_not_wait_leaves_its_events_to_the_one_at_work(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A])
    with FakeHub() as hub:
        with acquire_relay_lock(tmp_path / RELAY_LOCK, Deadline(1)) as got:
            assert got
            report = relay_to(hub, store, tmp_path).flush(Deadline(5), wait=False)
            assert (report.pending, report.error) == (1, "another relay is sending just now")
        assert relay_to(hub, store, tmp_path).flush(Deadline(5), wait=False).sent == 1


def test_events_that_come_while_sending_are_sent_too(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A])
    came = threading.Event()

    with FakeHub() as hub:

        def rule(event: dict[str, object]) -> None:
            if not came.is_set():
                came.set()
                record_fact(store, A)
                record_fact(store, B)

        hub.rule = rule
        assert relay_to(hub, store, tmp_path).flush(Deadline(5)).sent == 3
        assert (seqs(hub, A), seqs(hub, B)) == ([1, 2], [1])


KILLED = """
import sys
from pathlib import Path
from sandboxer.events.relay import Relay
from sandboxer.models import HubSettings
from sandboxer.store.json_store import JsonStore
from sandboxer.timing import Deadline
data = Path(sys.argv[1])
Relay(JsonStore(data), HubSettings(url=sys.argv[2]), data).flush(Deadline(30))
"""


def test_a_killed_relay_loses_nothing_and_repeats_at_most_a_batch(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A, B] * 15)
    with FakeHub() as hub:
        hub.rule = lambda event: (
            slow(30) if event["detail"] == {**event["detail"], "sandbox_id": B, "seq": 14} else None
        )
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), hub.url])
        assert eventually(lambda: len(hub.arrivals) == 28, seconds=20)
        child.kill()
        child.wait()
        assert statuses(store).count("sent") == 20
        hub.rule = None
        assert relay_to(hub, store, tmp_path).flush(Deadline(10)).pending == 0
        assert seqs(hub, A) == seqs(hub, B) == list(range(1, 16))
        assert len(hub.arrivals) == 30 + 8


class FullDisk(JsonStore):
    """A store that can be read, and cannot be written."""

    def settle_events(self, settled: Iterable[Event]) -> None:
        raise Unavailable("no space left")


def test_a_store_that_cannot_note_the_answer_sends_again_later(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A, A])
    with FakeHub() as hub:
        with pytest.raises(Unavailable):
            relay_to(hub, FullDisk(tmp_path), tmp_path).flush(Deadline(5))
        assert statuses(store) == ["pending"] * 2
        assert relay_to(hub, store, tmp_path).flush(Deadline(5)).sent == 2
        assert seqs(hub, A) == [1, 2]


def test_kept_events_are_not_sent_when_a_hub_is_configured_later(tmp_path: Path) -> None:
    store = JsonStore(tmp_path)
    record_fact(store, A, endpoint=HubSettings())
    record_fact(store, A)
    with FakeHub() as hub:
        assert relay_to(hub, store, tmp_path).flush(Deadline(5)).sent == 1
    assert statuses(store) == ["kept", "sent"]


def test_a_store_that_was_never_used_has_nothing_to_send(tmp_path: Path) -> None:
    with FakeHub() as hub:
        report = relay_to(hub, JsonStore(tmp_path / "data"), tmp_path / "data").flush(Deadline(5))
    assert report.pending == report.sent == 0


def test_without_a_usable_address_there_is_no_relay(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured):
        Relay(JsonStore(tmp_path), HubSettings(), tmp_path)
    with pytest.raises(Invalid):
        Relay(JsonStore(tmp_path), HubSettings(url="ftp://hub"), tmp_path)


def test_a_name_that_does_not_exist_is_a_hub_that_is_down(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A])
    report = Relay(store, HubSettings(url="http://hub.invalid"), tmp_path, request_seconds=5).flush(Deadline(10))
    assert report.pending == 1
    assert report.error is not None
    assert report.error.startswith("the State Hub at http://hub.invalid: ")


def test_a_hub_on_this_machine_is_reached_past_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_with(tmp_path, [A])
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with FakeHub() as hub:
        assert Relay(store, HubSettings(url=hub.url), tmp_path).flush(Deadline(5)).sent == 1


def test_a_proxy_that_cannot_be_used_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", "gopher://proxy")
    with pytest.raises(NotConfigured, match="proxy"):
        Relay(store_with(tmp_path, [A]), HubSettings(url="http://hub.invalid"), tmp_path).flush(Deadline(5))


def test_a_trickling_answer_ends_with_the_time_of_one_request(tmp_path: Path) -> None:
    """The deadline of the whole flush is for all of them."""
    store = store_with(tmp_path, [A])
    with FakeHub() as hub:
        hub.rule = lambda _: HubFault(answer="trickle", headers={"X-Long": "x" * 2000})
        start = time.monotonic()
        report = relay_to(hub, store, tmp_path, seconds=0.3).flush(Deadline(60))
        assert time.monotonic() - start < 20
        assert report.error == f"the State Hub at {hub.url}: no answer in time"


@pytest.mark.parametrize("greeting", [b"220 mail\r\n", b"HTTP/1.1 banana\r\n\r\n"])
def test_a_hub_that_does_not_speak_http_is_said(tmp_path: Path, greeting: bytes) -> None:
    store = store_with(tmp_path, [A])
    with peer(saying(greeting)) as url:
        report = Relay(store, HubSettings(url=url, token="canary-token"), tmp_path).flush(Deadline(20))
    assert report.error == f"the State Hub at {url}: it does not answer in HTTP"


def test_an_address_with_a_query_and_marks_is_asked_as_it_is(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A])
    heads: list[bytes] = []

    def answer_once(connection: socket.socket, head: bytes) -> None:
        heads.append(head)
        connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    with peer(answer_once) as url:
        assert Relay(store, HubSettings(url=f"{url}/é/x?team=a%20b"), tmp_path).flush(Deadline(20)).sent == 1
    assert heads[0].startswith(b"POST /%C3%A9/x/progress?team=a%20b HTTP/1.1\r\n")


def test_a_token_is_in_no_report_and_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    store = store_with(tmp_path, [A, B, C])
    with FakeHub(token="other") as hub:
        reports = [relay_to(hub, store, tmp_path, token="canary-token").flush(Deadline(5))]
        hub.token = None
        hub.rule = lambda _: hung_up()
        reports += [relay_to(hub, store, tmp_path, token="canary-token").flush(Deadline(5), parked=True)]

    with peer(saying(b"HTTP/1.1 200 OK\r\nX: canary-token \x00\r\n\r\n")) as url:
        relay = Relay(store, HubSettings(url=url, token="canary-token"), tmp_path)
        reports += [relay.flush(Deadline(5), parked=True)]
    assert "canary-token" not in repr(reports)
    assert "canary-token" not in caplog.text
    assert "canary-token" not in json.dumps([event.note for event in store.events()])
