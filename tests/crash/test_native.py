"""SIGKILL inside create, destroy and reconcile on the native backend."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.sweep import Sweep
from tests.installations import environment, lay_out
from tests.testbed.census import Census


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    lay_out(tmp_path)
    work = tmp_path / "work"
    before = Census.take(dirs=[work], marks=[str(work)])
    made = Sweep(
        environment(tmp_path),
        {"profile": "profile.native"},
        lambda: Census.take(dirs=[work], marks=[str(work)]) - before,
    )
    yield made
    made.clear()


def test_a_create_killed_at_any_step_leaves_nothing_after_reconcile(sweep: Sweep) -> None:
    """Promise 1: 0 left over, 0 records lost, 0 stuck."""
    assert {where: wrong for where, wrong in sweep.kills_of_create(check=12) if wrong} == {}


def test_a_destroy_killed_at_any_step_is_finished_by_reconcile(sweep: Sweep) -> None:
    """Promise 2."""
    assert {where: wrong for where, wrong in sweep.kills_of_destroy(check=8) if wrong} == {}


def test_a_run_killed_at_any_step_leaves_nothing_after_reconcile(sweep: Sweep) -> None:
    """Promises 1 and 2, for the one-shot: also where its sandbox was ready, and nobody's any more."""
    assert {where: wrong for where, wrong in sweep.kills_of_run(check=16) if wrong} == {}


@pytest.mark.parametrize("verb", ["stop", "start"])
def test_a_stop_or_start_killed_at_any_step_is_settled_by_what_the_host_shows(sweep: Sweep, verb: str) -> None:
    assert {where: wrong for where, wrong in sweep.kills_of_power(verb, check=8) if wrong} == {}


def test_a_reconcile_killed_at_any_step_converges_in_two_further_runs(sweep: Sweep) -> None:
    """Promise 2."""
    assert {where: wrong for where, wrong in sweep.kills_of_reconcile(check=6) if wrong} == {}


def test_the_sweep_sees_what_is_left_when_nothing_settles(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness catches a fault: without reconcile, a killed create leaves things."""
    monkeypatch.setattr(sweep, "settle", list)
    monkeypatch.setattr(sweep, "patience", 0)
    assert any(wrong for _, wrong in sweep.kills_of_create(check=5))


def test_what_is_about_to_end_is_told_from_what_stays(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "patience", 2)
    for seconds, wrong in ((1, 0), (60, 1)):
        with subprocess.Popen(["sleep", str(seconds)], env={"MARK": f"{tmp_path}/work/sbx-x"}) as child:
            try:
                threading.Thread(target=child.wait).start()
                left = sweep.remains("now")
                assert len([item for item in left if "still there after 2" in item]) == wrong, left
                assert ("ended by itself within" in capsys.readouterr().out) == (not wrong)
            finally:
                child.kill()
