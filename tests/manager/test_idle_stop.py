"""`ttl.idle_action: stop`: what nobody uses is kept without running, and decided as an idle end is."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest

from sandboxer.errors import Conflict, Invalid, Unavailable, Unsupported
from sandboxer.extensions.base import Context, Exec
from sandboxer.hosts.base import Streams
from sandboxer.manager import SandboxManager
from sandboxer.models import Handle, Sandbox
from sandboxer.state import State
from sandboxer.testing.fake import Faults
from sandboxer.timing import now, uptime
from tests.installations import FAKE_PROFILE, create, installed, lay_out
from tests.manager.test_state_machine import StoppableFake

IDLE = 600


def _nowhere() -> Streams:
    return Streams(stdout=lambda _chunk: None, stderr=lambda _chunk: None)


class Resting:
    """An installation whose profile stops what is idle for ten minutes, with a clock that is moved ahead by hand."""

    def __init__(self, root: Path, extension: StoppableFake | None = None) -> None:
        lay_out(root)
        profile = FAKE_PROFILE.replace("failed: 30m", "failed: 30m, idle: 10m, idle_action: stop")
        (root / "config" / "profiles" / "profile.fake.yaml").write_text(profile)
        self.here = installed(root)
        backend = extension or StoppableFake()
        self.here.manager.services.extensions.add("ext.fake", lambda: backend)
        self.ahead = 0.0
        services = dataclasses.replace(
            self.here.manager.services, clock=lambda: now() + self.ahead, uptime=lambda: uptime() + self.ahead
        )
        self.manager = SandboxManager(services)

    def create(self) -> Sandbox:
        return create(self.here, ttl=7200)

    def swept(self) -> list[tuple[str, str]]:
        return [(action.action, action.outcome) for action in self.manager.expire(apply=True).actions]


def test_what_is_idle_is_stopped_and_ends_at_its_ttl(tmp_path: Path) -> None:
    resting = Resting(tmp_path)
    record = resting.create()
    resting.ahead = IDLE + 5
    planned = resting.manager.expire(apply=False).actions
    assert [(action.action, action.outcome) for action in planned] == [("stop", "planned")]
    assert resting.swept() == [("stop", "done")]
    stopped = resting.manager.get(record.id)
    assert (stopped.state, stopped.intent, stopped.expires_at) == (State.STOPPED, None, record.expires_at)
    assert resting.manager.events()[-1].event_type == "sandbox.stopped"
    assert resting.swept() == [], "what is stopped is not idle"
    resting.manager.start(record.id)
    resting.ahead += IDLE - 60
    assert resting.swept() == [], "it has been idle since it was started"
    resting.ahead += 120
    assert resting.swept() == [("stop", "done")]
    resting.ahead = 7200 + 5
    assert resting.swept() == [("expire", "done")]
    assert resting.manager.get(record.id).state == State.DESTROYED


def test_a_use_that_begins_once_it_is_to_be_stopped_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    """It would be ended with all the rest."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(StoppableFake):
        def stop(self, handle: Handle, ctx: Context) -> None:
            begun.set()
            assert go_on.wait(60)
            super().stop(handle, ctx)

    resting = Resting(tmp_path, Slow())
    record = resting.create()
    resting.ahead = IDLE + 5
    sweep = threading.Thread(target=resting.swept)
    sweep.start()
    try:
        assert begun.wait(60)
        with pytest.raises(Conflict) as caught:
            resting.manager.exec(record.id, Exec(argv=("true",)), _nowhere())
        assert caught.value.hint == f"run `sandboxer start {record.id}`"
    finally:
        go_on.set()
        sweep.join(60)
    assert resting.manager.get(record.id).state == State.STOPPED


def test_a_use_that_began_between_the_look_and_the_lock_wins(tmp_path: Path) -> None:
    resting = Resting(tmp_path)
    record = resting.create()
    resting.ahead = IDLE + 5
    locks = resting.manager.services.locks
    find = locks.try_acquire

    def used_first(sandbox_id: str) -> object:
        resting.here.manager.grant_lease(sandbox_id, holder="agent", seconds=60)
        return find(sandbox_id)

    object.__setattr__(locks, "try_acquire", used_first)
    assert resting.swept() == [("stop", "skipped")]
    assert resting.manager.get(record.id).state == State.READY


def test_a_stop_that_failed_remains_and_is_tried_again(tmp_path: Path) -> None:
    resting = Resting(tmp_path, StoppableFake(Faults({"stop": Unavailable("no answer")})))
    record = resting.create()
    resting.ahead = IDLE + 5
    report = resting.manager.expire(apply=True)
    assert [(action.action, action.outcome) for action in report.actions] == [("stop", "failed")]
    assert [one.sandbox_id for one in report.remaining] == [record.id]
    assert resting.swept() == [("stop", "done")]
    assert resting.manager.get(record.id).state == State.STOPPED


def test_a_backend_that_cannot_stop_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    resting = Resting(tmp_path)
    resting.here = installed(tmp_path)  # a plain fake
    with pytest.raises(Unsupported, match="stop"):
        resting.create()
    assert resting.here.manager.list() == []


def test_a_profile_that_never_is_idle_cannot_say_what_follows(tmp_path: Path) -> None:
    lay_out(tmp_path)
    profile = FAKE_PROFILE.replace("failed: 30m", "failed: 30m, idle_action: stop")
    (tmp_path / "config" / "profiles" / "profile.fake.yaml").write_text(profile)
    with pytest.raises(Invalid, match=r"ttl\.idle is null"):
        create(installed(tmp_path))
