"""Promise 23: one bad host does not stop the others."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from sandboxer.bootstrap import install
from sandboxer.errors import Unavailable
from sandboxer.hosts.base import Host
from sandboxer.hosts.local import LocalHost
from sandboxer.manager import SandboxManager
from sandboxer.manager.report import each
from sandboxer.models import HostSettings, Request
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
        here.manager.core.extensions.add("ext.fake", FakeExtension)
        return here.manager


def _over(instant: float | None) -> bool:
    return instant is not None and instant <= time.time()


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


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
    assert each(items, do, lane=lambda item: item[0]) == [item[0] for item in items]
    assert len(finished) == 20
    assert release.is_set()
