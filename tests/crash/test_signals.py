"""Ctrl-C, SIGTERM and SIGHUP at random moments of a create and a destroy."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.running import Command
from tests.sizes import scaled
from tests.testbed.census import Census

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STARTING = (b"Fatal Python error: init_", b"Could not import runpy module")
"""What Python says and ends with 1 when Ctrl-C comes while it starts, before anything of ours runs."""
CREATE = ("create", "--profile", "profile.native", "--json")


@pytest.fixture
def sandboxer(tmp_path: Path) -> Command:
    return Command(tmp_path)


@pytest.fixture
def left(sandboxer: Command) -> Iterator[Callable[[], list[str]]]:
    work = sandboxer.root / "work"
    before = Census.take(dirs=[work], marks=[str(work)])
    yield lambda: Census.take(dirs=[work], marks=[str(work)]) - before
    for record in sandboxer("list", "--json").document["sandboxes"]:
        sandboxer("destroy", record["id"])


def interrupt(sandboxer: Command, words: tuple[str, ...], number: int, after: float) -> tuple[int, float]:
    """Start a command, send the signal `after` seconds; its status, and how long it went on."""
    process = sandboxer.start(*words)
    time.sleep(after)
    sent = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    took = time.monotonic() - sent
    if number == signal.SIGINT and process.returncode == 1 and said.startswith(STARTING):
        return -number, took
    return process.returncode, took


def test_a_signal_at_any_moment_of_a_create_leaks_nothing(sandboxer: Command, left: Callable[[], list[str]]) -> None:
    """Promise 3: 0 leaks after one reconcile; the command ends within 10 s with 128 + the signal's number."""
    chance = random.Random(20261121)  # noqa: S311 - moments, not secrets
    for turn in range(scaled(18, soak=500)):
        number = SIGNALS[turn % 3]
        moment = chance.uniform(0.02, 0.22)
        status, took = interrupt(sandboxer, CREATE, number, moment)
        assert took < 10
        # Before our handlers are there, the signal itself ends the process; after `ready`, the create is done.
        assert status in (128 + number, -number, 0), f"{status} after {moment:.3f} s"
        report = sandboxer("reconcile", "--apply", "--json")
        assert report.status == 0, report
        records = sandboxer("list", "--json").document["sandboxes"]
        for record in records:
            assert record["state"] in ("ready", "failed")
            assert sandboxer("destroy", record["id"]).status == 0
        assert left() == [], f"signal {number} after {moment:.3f} s"


def test_a_signal_at_any_moment_of_a_run_leaves_nothing(sandboxer: Command, left: Callable[[], list[str]]) -> None:
    """Promise 3, for the one-shot: no sandbox of it lives when it has ended, but for one that could not be recorded."""
    chance = random.Random(20261129)  # noqa: S311 - moments, not secrets
    for turn in range(scaled(12, soak=500)):
        number = SIGNALS[turn % 3]
        moment = chance.uniform(0.02, 0.4)
        status, took = interrupt(sandboxer, ("run", *CREATE[1:], "--", "sleep", "0.1"), number, moment)
        assert took < 10
        assert status in (128 + number, -number, 0), f"{status} after {moment:.3f} s"
        report = sandboxer("reconcile", "--apply", "--json")
        assert report.status == 0, report
        states = {record["state"] for record in sandboxer("list", "--json").document["sandboxes"]}
        assert states <= {"failed"}, f"signal {number} after {moment:.3f} s"
        assert left() == [], f"signal {number} after {moment:.3f} s"


@pytest.mark.alone  # a second is little beside other tests
def test_a_second_signal_ends_the_command_within_a_second(sandboxer: Command, left: Callable[[], list[str]]) -> None:
    """Promise 3; what was begun is left to reconcile."""
    for moment in (0.10, 0.14, 0.18):
        process = sandboxer.start(*CREATE)
        time.sleep(moment)
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert time.monotonic() - sent < 1
        assert sandboxer("reconcile", "--apply", "--json").status == 0
        for record in sandboxer("list", "--json").document["sandboxes"]:
            sandboxer("destroy", record["id"])
        assert left() == []


def test_a_signal_at_any_moment_of_a_destroy_is_finished_by_reconcile(
    sandboxer: Command, left: Callable[[], list[str]]
) -> None:
    """Promises 3 and 5."""
    chance = random.Random(7)  # noqa: S311 - moments, not secrets
    for turn in range(scaled(6, soak=100)):
        sandbox_id = sandboxer(*CREATE).document["id"]
        _, took = interrupt(sandboxer, ("destroy", sandbox_id), SIGNALS[turn % 3], chance.uniform(0.05, 0.2))
        assert took < 10
        assert sandboxer("reconcile", "--apply", "--json").status == 0
        if sandboxer("get", sandbox_id, "--json").document["state"] == "ready":
            sandboxer("destroy", sandbox_id)  # the signal came before the wish
        assert sandboxer("get", sandbox_id, "--json").document["state"] == "destroyed"
        assert left() == []
