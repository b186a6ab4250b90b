"""Idle expiry, and the event that tells of a hard end."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Streams
from sandboxer.manager import SandboxManager
from sandboxer.manager.sweeps.expiring import warn_all, warning_due
from sandboxer.manager.sweeps.idle import idle_end
from sandboxer.models import LastSeen, Sandbox
from sandboxer.state import State
from sandboxer.timing import now, uptime
from tests.installations import FAKE_PROFILE, create, installed, lay_out, left_over
from tests.testbed.waiting import eventually

IDLE = 600


def _nowhere() -> Streams:
    return Streams(stdout=lambda _chunk: None, stderr=lambda _chunk: None)


class Idling:
    """An installation whose profile ends what is idle for ten minutes, with a clock that is moved ahead by hand."""

    def __init__(self, root: Path) -> None:
        lay_out(root)
        profile = FAKE_PROFILE.replace("failed: 30m", "failed: 30m, idle: 10m")
        (root / "config" / "profiles" / "profile.fake.yaml").write_text(profile)
        self.here = installed(root)
        self.ahead = 0.0
        services = dataclasses.replace(
            self.here.manager.services, clock=lambda: now() + self.ahead, uptime=lambda: uptime() + self.ahead
        )
        self.manager = SandboxManager(services)

    def create(self) -> Sandbox:
        return create(self.here)

    def swept(self) -> list[tuple[str, str]]:
        return [(action.action, action.outcome) for action in self.manager.expire(apply=True).actions]

    def told(self) -> list[str]:
        return [event.event_type for event in self.manager.events()]


@pytest.fixture
def idling(tmp_path: Path) -> Idling:
    return Idling(tmp_path)


def test_what_is_idle_for_as_long_as_its_profile_says_ends_before_its_ttl(idling: Idling, tmp_path: Path) -> None:
    record = idling.create()
    idling.ahead = IDLE - 5
    assert idling.swept() == []
    idling.ahead = IDLE + 5
    planned = idling.manager.expire(apply=False).actions
    assert [(action.outcome, action.why[:17]) for action in planned] == [("planned", "it was idle since")]
    assert idling.swept() == [("expire", "done")]
    assert idling.manager.get(record.id).state == State.DESTROYED
    assert left_over(tmp_path) == []


def test_idle_expiry_never_ends_what_is_in_use(idling: Idling) -> None:
    """Promise 16: an exec that runs for long, and a lease that somebody holds."""
    record = idling.create()
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        streams = Streams(stdout=lambda _chunk: begun.set(), stderr=lambda _chunk: None)
        idling.manager.exec(
            record.id, Exec(argv=("sh", "-c", "echo; while [ ! -e stop ]; do sleep 0.02; done")), streams
        )
        go_on.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(30)
    idling.ahead = IDLE * 3
    assert idling.swept() == []
    idling.manager.exec(record.id, Exec(argv=("touch", "stop")), _nowhere())
    assert go_on.wait(30)
    thread.join()
    # its end was in real time, which is long ago by the clock that was moved
    assert idling.swept() == [("expire", "done")]


def test_use_and_renewals_begin_the_idle_time_anew(idling: Idling) -> None:
    record = idling.create()
    idling.ahead = IDLE - 10
    idling.manager.extend_ttl(record.id, 600)
    idling.ahead = IDLE + 10
    assert idling.swept() == []
    idling.ahead = 2 * IDLE + 10
    assert idling.swept() == [("expire", "done")]


def test_a_holder_that_was_killed_does_not_block_the_idle_end_for_good(idling: Idling) -> None:
    record = idling.create()
    lease = idling.here.manager.grant_lease(record.id, holder="agent", seconds=1)
    assert idling.manager.leases(record.id) == [lease]
    eventually(lambda: not idling.manager.leases(record.id), within=30, what="the lease has run out")
    idling.ahead = IDLE + 60
    assert idling.swept() == [("expire", "done")]


def test_the_idle_end_of_a_record() -> None:
    record = msgspec.convert(
        {
            "id": "a" * 12, "request": {"profile": "p"}, "profile": "p", "profile_version": "1", "extension": "e",
            "state": "ready", "consumer": {"actor": "adm", "name": "n"}, "host": None, "created_at": 0.0,
            "ready_at": 10.0, "idle_ttl": 100,
        },
        Sandbox,
    )  # fmt: skip
    changed = msgspec.structs.replace
    assert idle_end(record, None) == 110
    assert idle_end(record, 50.0) == 150
    assert idle_end(changed(record, renewed_at=70.0), 50.0) == 170
    assert idle_end(changed(record, idle_ttl=None), 50.0) is None
    assert idle_end(changed(record, state="stopped"), None) is None
    restarted = LastSeen(presence="running", detail="running", since=200.0, at=300.0)
    assert idle_end(changed(record, last_seen=restarted), None) == 300
    due = changed(record, expires_at=1000.0)
    ends = [warning_due(due, now=at, within=300) for at in (699, 700, 999, 1000)]
    assert ends == [False, True, True, False]
    assert not warning_due(changed(due, warned_until=1000.0), now=800, within=300)
    assert warning_due(changed(due, warned_until=900.0), now=800, within=300)
    assert not warning_due(changed(due, state="destroying"), now=800, within=300)


def test_a_hard_end_is_told_of_once_and_again_when_it_was_moved(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here, ttl=200)
    assert [(action.action, action.outcome) for action in here.manager.expire(apply=False).actions] == [
        ("warn", "planned")
    ]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: here.manager.expire(apply=True), range(4)))
    assert warn_all(here.manager.services) == 0
    told = [event for event in here.manager.events() if event.event_type == "sandbox.expiring"]
    assert len(told) == 1
    assert told[0].detail["sandbox_id"] == record.id
    assert here.manager.expire(apply=True).actions == []
    here.manager.set_ttl(record.id, 100)
    assert warn_all(here.manager.services) == 1


def test_a_server_tells_of_a_near_end_too(tmp_path: Path) -> None:
    from sandboxer.api.expiry_watch import ExpiryWatch

    here = installed(tmp_path)
    create(here, ttl=200)
    complaints: list[str] = []
    watch = ExpiryWatch(here.manager.services, alarm=complaints.append, pause=0.01)
    watch.start()
    try:
        eventually(
            lambda: "sandbox.expiring" in [event.event_type for event in here.manager.events()],
            within=30,
            what="it is told",
        )
    finally:
        watch.stop()
    assert complaints == []
