"""Promise 23: one bad host does not stop the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sandboxer.bootstrap import install
from sandboxer.errors import Unavailable
from sandboxer.extensions.base import Context
from sandboxer.hosts.base import Host, Result
from sandboxer.hosts.local import LocalHost
from sandboxer.manager import SandboxManager, limits
from sandboxer.manager.sweeps.report import LANES, run_in_lanes
from sandboxer.models import Handle, HostSettings, Ready, Request
from sandboxer.state import State
from sandboxer.testing.fake import FakeExtension
from sandboxer.timing import Deadline
from tests.installations import environment, lay_out
from tests.testbed.waiting import eventually

HANGS_SECONDS = 3.0


class HangingHost(LocalHost):
    """A host that swallows every packet."""

    def connect(self, deadline: Deadline) -> None:
        threading.Event().wait(deadline.seconds(HANGS_SECONDS))
        raise Unavailable(f"host {self.name} did not answer")


class SilentHost(LocalHost):
    """A host that took the connection, and then no word came any more."""

    def run(self, argv: Sequence[str], deadline: Deadline, **_: object) -> Result:
        threading.Event().wait(deadline.seconds(60))
        raise Unavailable(f"host {self.name} did not answer")


class WorksThere(FakeExtension):
    """A backend that needs its host for everything."""

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        ctx.host.run(["true"], ctx.deadline)
        return super().wait_ready(handle, ctx)

    def teardown(self, handle: Handle, ctx: Context) -> None:
        ctx.host.run(["true"], ctx.deadline)
        super().teardown(handle, ctx)


class Fleet:
    """50 hosts with a sandbox on each; some can be made to hang."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dead: set[str] = set()
        hosts = "".join(f"  h{n}: {{address: local, work_dir: {root}/work/h{n}}}\n" for n in range(50))
        lay_out(root, config=f"hosts:\n{hosts}")
        for n in range(50):
            self.manager().create(self.manager().plan(Request(profile="profile.fake", host=f"h{n}", ttl=1)))

    def manager(self) -> SandboxManager:
        """A new process's manager."""

        def opener(name: str, settings: HostSettings | None) -> Host:
            kind = HangingHost if name in self.dead else LocalHost
            return kind(name, settings or HostSettings())

        here = install(environment(self.root), relay_in_background=False, opener=opener)
        here.manager.services.extensions.add("ext.fake", FakeExtension)
        return here.manager


def _over(instant: float | None) -> bool:
    return instant is not None and instant <= time.time()


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_a_create_whose_host_falls_silent_is_back_in_its_time_and_the_rest_is_settled_later(tmp_path: Path) -> None:
    """Promise 22: within the deadline + 5 s, with what was begun still recorded (promise 5)."""
    lay_out(tmp_path, config=f"hosts:\n  alpha: {{address: local, work_dir: {tmp_path}/work}}\n")

    def manager(kind: type[LocalHost]) -> SandboxManager:
        def opener(name: str, settings: HostSettings | None) -> Host:
            return kind(name, settings or HostSettings())

        here = install(environment(tmp_path), relay_in_background=False, opener=opener)
        here.manager.services.extensions.add("ext.fake", WorksThere)
        return here.manager

    cut_off = manager(SilentHost)
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        cut_off.create(cut_off.plan(Request(profile="profile.fake", host="alpha", timeout=1)))
    assert limits.DEFAULT.rollback_grace < 5
    assert time.monotonic() - started < 20  # and not the minute of the host's silence
    assert caught.value.outcome == "unknown"
    assert [record.clean for record in cut_off.list()] == [False]
    healed = manager(LocalHost)
    assert [action.outcome for action in healed.reconcile(apply=True).actions] == ["done"]
    assert [record.clean for record in healed.list()] == [True]


def test_ten_hanging_hosts_of_fifty_do_not_slow_the_others(fleet: Fleet) -> None:
    fleet.dead = {f"h{n}" for n in range(0, 50, 5)}
    eventually(lambda: all(_over(r.expires_at) for r in fleet.manager().list()), within=5, what="every TTL is over")
    ended: dict[str, float] = {}
    manager = fleet.manager()
    started = time.monotonic()
    worker = threading.Thread(target=lambda: manager.expire(apply=True))
    worker.start()
    while worker.is_alive() and len(ended) < 40:
        living = {record.host for record in fleet.manager().list()}
        for n in range(50):
            if f"h{n}" not in living:
                ended.setdefault(f"h{n}", time.monotonic() - started)
        worker.join(0.02)
    assert len(ended) == 40
    assert max(ended.values()) < HANGS_SECONDS, "the others did not wait for the hanging ones"
    worker.join(30)
    assert {record.host for record in manager.list()} == fleet.dead
    fleet.dead = set()
    assert fleet.manager().expire(apply=True).remaining == []


def test_a_host_that_was_silent_once_is_not_tried_again_for_each_sandbox_on_it(tmp_path: Path) -> None:
    """Twelve at a dead host took three times as long as one, and a hundred took twenty-five times."""
    lay_out(tmp_path, config=f"hosts:\n  alpha: {{address: local, work_dir: {tmp_path}/work}}\n")
    tried: list[str] = []

    class Dead(LocalHost):
        def connect(self, deadline: Deadline) -> None:
            tried.append(self.name)
            if len(tried) < LANES:  # the first ones, together
                together.wait(20)
            together.set()
            raise Unavailable(f"host {self.name} did not answer")

    def manager(kind: type[LocalHost]) -> SandboxManager:
        def opener(name: str, settings: HostSettings | None) -> Host:
            return kind(name, settings or HostSettings())

        here = install(environment(tmp_path), relay_in_background=False, opener=opener)
        here.manager.services.extensions.add("ext.fake", FakeExtension)
        return here.manager

    together = threading.Event()
    up = manager(LocalHost)
    for _ in range(3 * LANES):
        up.create(up.plan(Request(profile="profile.fake", host="alpha", ttl=1)))
    eventually(lambda: all(_over(r.expires_at) for r in up.list()), within=5, what="every TTL is over")
    report = manager(Dead).expire(apply=True)
    assert [action.outcome for action in report.actions] == ["failed"] * 3 * LANES
    assert len(report.remaining) == 3 * LANES, "each is told"
    assert len(tried) == LANES
    assert {record.state for record in up.list()} == {State.DESTROYING}, "and each has begun to end"
    assert all("alpha did not answer" in (record.error or {}).get("message", "") for record in up.list())
    assert up.expire(apply=True).remaining == []
    assert up.list() == []


def test_a_host_that_hangs_holds_up_only_what_is_on_it() -> None:
    """The lanes themselves: 200 things on a hanging host, one on each of 20 others."""
    release = threading.Event()
    finished: list[str] = []

    def do(item: tuple[str, int]) -> str:
        if item[0] == "hangs":
            release.wait(20)
        else:
            finished.append(item[0])
            if len(finished) == 20:
                release.set()
        return item[0]

    items = [("hangs", n) for n in range(200)] + [(f"h{n}", n) for n in range(20)]
    assert run_in_lanes(items, do, lane=lambda item: item[0]) == [item[0] for item in items]
    assert len(finished) == 20
    assert release.is_set()
