"""The command is killed on either side of each call on E2B; then one `reconcile`, and nothing is left."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cli.running import Command
from tests.fakes import Fault
from tests.fakes.e2b import FakeE2B
from tests.testbed.waiting import eventually

PROFILE = ("--profile", "profile.e2b-burst")
SIDES = ("hang", "trickle")
"""Before E2B has done anything; and after it has, while its answer is on its way."""


@pytest.fixture
def sandboxer(tmp_path: Path, fake: FakeE2B) -> Command:
    command = Command(tmp_path, more=fake.environment())
    assert command("credits", "add", "5").status == 0
    return command


def kill_at(command: Command, fake: FakeE2B, match: str, kind: str, *words: str) -> None:
    """Run a command, and kill it during the first request that matches."""
    fake.script.add(Fault(match=match, kind=kind))  # type: ignore[arg-type]  # one of SIDES
    running = command.start(*words)
    eventually(lambda: fake.script.struck and fake.asked(match), within=20, what="the request")
    running.send_signal(signal.SIGKILL)
    running.communicate()
    fake.script.clear()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("match", ["POST /v2/sandboxes", "GET /sandboxes/.*", "GET /health"])
def test_a_create_killed_at_a_call_leaves_nothing_after_reconcile(
    sandboxer: Command, fake: FakeE2B, match: str, side: str
) -> None:
    """Promise 1: 0 left over, 0 records lost, 0 stuck, 0 charged."""
    kill_at(sandboxer, fake, match, side, "create", *PROFILE)
    answer = sandboxer("reconcile", "--apply", "--json")
    assert answer.status == 0, answer
    assert list(fake.census()) == []
    (record,) = sandboxer("list", "--all", "--json").document["sandboxes"]
    assert record["state"] in ("failed", "destroyed")
    assert sandboxer("reconcile", "--json").document["actions"] == []
    balance = sandboxer("credits", "show", "--json").document
    assert (balance["reserved_usd"], balance["available_usd"]) == ("0", "5")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("match", ["DELETE /sandboxes/.*", "GET /sandboxes/.*"])
def test_a_destroy_killed_at_a_call_is_finished_by_reconcile(
    sandboxer: Command, fake: FakeE2B, match: str, side: str
) -> None:
    """Promises 2, 19."""
    name = sandboxer("create", *PROFILE, "--json").document["id"]
    kill_at(sandboxer, fake, match, side, "destroy", name, "--force")
    assert sandboxer("reconcile", "--apply", "--json").status == 0
    assert list(fake.census()) == []
    assert sandboxer("get", name, "--json").document["state"] == "destroyed"
    assert len(sandboxer("usage", "list", "--json").document["usage"]) == 1


def test_a_planted_leak_is_seen(sandboxer: Command, fake: FakeE2B) -> None:
    """The census is not blind: before reconcile, what was made and never told is there."""
    kill_at(sandboxer, fake, "POST /v2/sandboxes", "trickle", "create", *PROFILE)
    assert len(fake.census()) == 1
