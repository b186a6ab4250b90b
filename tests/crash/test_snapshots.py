"""SIGKILL inside snapshot, restore and the deletion of a snapshot, on the native backend (promise 2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.snapshot_sweep import SnapshotSweep
from tests.installations import environment, lay_out
from tests.testbed.census import Census


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[SnapshotSweep]:
    lay_out(tmp_path)
    work = tmp_path / "work"
    before = Census.take(dirs=[work], marks=[str(work)])
    made = SnapshotSweep(
        environment(tmp_path),
        {"profile": "profile.native"},
        lambda: Census.take(dirs=[work], marks=[str(work)]) - before,
    )
    yield made
    made.clear()


def test_a_snapshot_killed_at_any_step_is_whole_or_nothing_after_reconcile(sweep: SnapshotSweep) -> None:
    assert {where: wrong for where, wrong in sweep.kills_of_snapshot(check=10) if wrong} == {}


def test_a_deletion_killed_at_any_step_is_finished_by_reconcile(sweep: SnapshotSweep) -> None:
    assert {where: wrong for where, wrong in sweep.kills_of_delete(check=8) if wrong} == {}


def test_a_restore_killed_at_any_step_leaves_nothing_after_reconcile(sweep: SnapshotSweep) -> None:
    assert {where: wrong for where, wrong in sweep.kills_of_restore(check=8) if wrong} == {}


def test_the_sweep_sees_what_is_left_when_nothing_settles(
    sweep: SnapshotSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness catches a fault: without reconcile, what was begun stays so."""
    monkeypatch.setattr(sweep, "settle", list)
    monkeypatch.setattr(sweep, "forget", list)
    assert any(wrong for _, wrong in sweep.kills_of_snapshot(check=6))
