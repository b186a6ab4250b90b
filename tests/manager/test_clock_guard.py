"""Promise 17: a jump of the clock ends nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from sandboxer.manager import SandboxManager
from sandboxer.manager.sweeps.log import ClockReading, SweepLog, clock_jump
from sandboxer.state import State
from sandboxer.timing import now
from tests.installations import create, installed

DAY = 86400.0


class Clocks:
    """An installation whose two clocks are moved by hand."""

    def __init__(self, root: Path) -> None:
        self.here = installed(root)
        self.wall, self.up = now(), 1000.0
        services = dataclasses.replace(self.here.manager.services, clock=lambda: self.wall, uptime=lambda: self.up)
        self.manager = SandboxManager(services)

    def passes(self, seconds: float) -> None:
        self.wall, self.up = self.wall + seconds, self.up + seconds


def test_after_a_jump_one_run_ends_nothing_and_says_so_and_the_next_goes_on(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path)
    record = create(clocks.here, ttl=3600)
    assert clocks.manager.expire(apply=True).remaining == []
    clocks.passes(300)
    clocks.wall += DAY
    planned = clocks.manager.expire(apply=False)
    assert "the clock jumped forward by 1d" in planned.remaining[0].why
    held = clocks.manager.expire(apply=True)
    assert [item.sandbox_id for item in held.remaining] == [None, record.id]
    assert [action.outcome for action in held.actions] == ["skipped"]
    assert clocks.manager.get(record.id).state == State.READY
    clocks.passes(300)
    assert [action.outcome for action in clocks.manager.expire(apply=True).actions] == ["done"]


def test_a_long_sleep_and_a_run_that_was_missed_are_no_jump(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path)
    create(clocks.here, ttl=3600)
    clocks.manager.expire(apply=True)
    clocks.passes(DAY)
    assert [action.outcome for action in clocks.manager.expire(apply=True).actions] == ["done"]


def test_a_clock_that_was_put_back_is_told_too(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path)
    clocks.manager.expire(apply=True)
    clocks.wall -= DAY
    assert "back by 1d" in clocks.manager.expire(apply=True).remaining[0].why
    assert clocks.manager.expire(apply=True).remaining == []


def test_a_run_that_began_before_another_saw_the_jump_is_held_too(tmp_path: Path) -> None:
    log = SweepLog(tmp_path)
    assert log.begin(wall=0.0, up=10.0, tolerance=300) is None
    assert log.begin(wall=DAY, up=20.0, tolerance=300) == DAY - 10
    assert log.begin(wall=DAY, up=19.0, tolerance=300) == 0.0
    assert log.begin(wall=DAY, up=21.0, tolerance=300) is None


@pytest.mark.parametrize(("wall", "jump"), [(400.0, None), (100.0, None), (401.0, 301.0), (-201.0, -301.0)])
def test_the_tolerance_is_five_minutes(wall: float, jump: float | None) -> None:
    before, after = ClockReading(wall=0.0, up=0.0), ClockReading(wall=wall, up=100.0)
    assert clock_jump(before, after, tolerance=300) == jump


def test_the_heartbeat_is_of_runs_that_left_nothing(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path)
    clocks.manager.expire(apply=False)
    assert not (tmp_path / "data" / "expire.json").exists()
    clocks.manager.expire(apply=True)
    first = json.loads((tmp_path / "data" / "expire.json").read_text())
    assert first["last_success"] == first["last_run"] == clocks.wall
    clocks.wall += DAY
    clocks.manager.expire(apply=True)
    held = json.loads((tmp_path / "data" / "expire.json").read_text())
    assert (held["last_success"], held["last_run"]) == (first["last_success"], clocks.wall)


def test_a_log_that_cannot_be_read_keeps_nothing_from_ending(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path)
    create(clocks.here, ttl=600)
    (tmp_path / "data" / "expire.json").write_text("{ torn")
    clocks.passes(601)
    assert [action.outcome for action in clocks.manager.expire(apply=True).actions] == ["done"]
