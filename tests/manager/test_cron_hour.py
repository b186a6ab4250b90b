"""An hour of cron, in simulated time, with hosts that go away and come back: promises 15 and 16."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest

from sandboxer.bootstrap import install
from sandboxer.errors import Unavailable
from sandboxer.hosts.base import Host
from sandboxer.hosts.local import LocalHost
from sandboxer.manager import SandboxManager
from sandboxer.manager.sweeps.report import Report
from sandboxer.models import HostSettings, Request, Sandbox
from sandboxer.state import State
from sandboxer.testing.fake import FakeExtension
from sandboxer.timing import Deadline, now, uptime
from tests.installations import FAKE_PROFILE, create, environment, installed, lay_out
from tests.manager.test_sweeps import age

MINUTE = 60
EVERY = 5 * MINUTE
HOSTS = ("h0", "h1", "h2", "h3")
IDLE = 20 * MINUTE


class Hour:
    """Four hosts, one of which is away at each run of cron but the last; sandboxes of many lifetimes."""

    def __init__(self, root: Path, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - to be repeated
        self.ahead = 0.0
        self.away: set[str] = set()
        self.used: dict[str, float] = {}
        hosts = "".join(f"  {name}: {{address: local, work_dir: {root}/work/{name}}}\n" for name in HOSTS)
        lay_out(root, config=f"hosts:\n{hosts}")
        profile = root / "config" / "profiles" / "profile.fake.yaml"
        profile.write_text(FAKE_PROFILE.replace("failed: 30m", "failed: 30m, idle: 20m"))
        self.root = root
        self.manager = self._manager()

    def _manager(self) -> SandboxManager:
        """Of a new process, whose clocks are moved ahead."""
        away = self.away

        class Roaming(LocalHost):
            def connect(self, deadline: Deadline) -> None:
                if self.name in away:
                    raise Unavailable(f"host {self.name} did not answer")

        def opener(name: str, settings: HostSettings | None) -> Host:
            return Roaming(name, settings or HostSettings())

        here = install(environment(self.root), relay_in_background=False, opener=opener)
        here.manager.services.extensions.add("ext.fake", FakeExtension)
        return SandboxManager(
            dataclasses.replace(
                here.manager.services, clock=lambda: now() + self.ahead, uptime=lambda: uptime() + self.ahead
            )
        )

    @property
    def time(self) -> float:
        return now() + self.ahead

    def create(self) -> None:
        there = [name for name in HOSTS if name not in self.away]
        asked = Request(
            profile="profile.fake", host=self.random.choice(there), ttl=self.random.randrange(2, 45) * MINUTE
        )
        self.manager.create(self.manager.plan(asked))

    def use(self) -> None:
        """Somebody renews one or two, on hosts that are there; that counts as use."""
        alive = [record for record in self.manager.list() if record.state == State.READY and self._there(record)]
        alive = [record for record in alive if record.expires_at is not None and record.expires_at > self.time]
        for record in self.random.sample(alive, min(2, len(alive))):
            self.manager.extend_ttl(record.id, 10 * MINUTE)
            self.used[record.id] = self.time

    def _there(self, record: Sandbox) -> bool:
        return record.host not in self.away

    def cron(self) -> Report:
        """One run, in a process of its own, and what must be true after it."""
        began = self.time
        before = {record.id: record for record in self.manager.list()}
        self.manager = self._manager()
        report = self.manager.expire(apply=True)
        living = {record.id: record for record in self.manager.list()}
        for sandbox_id, record in before.items():
            due = self._due(record)
            if due > self.time and record.state == State.READY:
                assert living[sandbox_id].state == State.READY, "it ended early"
            elif due <= began and self._there(record):
                assert sandbox_id not in living, "it is over, its host is there, and it was left"
        remaining = {item.sandbox_id for item in report.remaining}
        assert remaining == {i for i, r in before.items() if self._due(r) <= began and not self._there(r)}
        return report

    def _due(self, record: Sandbox) -> float:
        assert record.expires_at is not None
        assert record.ready_at is not None
        return min(record.expires_at, max(record.ready_at, self.used.get(record.id, 0.0)) + IDLE)

    def run(self) -> None:
        for turn in range(13):
            self.away.clear()
            if turn < 12:
                self.away.add(self.random.choice(HOSTS))
            for _ in range(2):
                self.create()
            self.use()
            self.cron()
            self.ahead += EVERY
        self.away.clear()
        self.ahead += 2 * 3600  # nothing is asked for any more
        assert self.cron().remaining == []
        assert self.manager.list() == []
        assert not list((self.root / "work").glob("*/fake/sbx-*"))


@pytest.mark.parametrize("seed", [1, 2])
def test_an_hour_of_cron_with_hosts_that_go_and_come_ends_what_is_over_and_only_that(tmp_path: Path, seed: int) -> None:
    Hour(tmp_path, seed).run()


def test_a_renewal_between_the_look_and_the_lock_wins(tmp_path: Path) -> None:
    """Promise 16: it was answered, and so it holds."""
    here = installed(tmp_path)
    record = create(here, ttl=600)
    age(here, record, 601)
    locks = here.manager.services.locks
    take = locks.try_acquire

    def renewed_first(sandbox_id: str) -> object:
        here.manager.extend_ttl(sandbox_id, 600)
        return take(sandbox_id)

    object.__setattr__(locks, "try_acquire", renewed_first)
    assert [action.outcome for action in here.manager.expire(apply=True).actions] == ["skipped"]
    assert here.manager.get(record.id).state == State.READY
