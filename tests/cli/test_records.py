"""rename, label, wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import Command

FAKE = ("--profile", "profile.fake")


@pytest.fixture
def sandboxer(tmp_path: Path) -> Command:
    return Command(tmp_path)


def test_rename_and_label(sandboxer: Command) -> None:
    made = sandboxer("create", *FAKE, "--label", "old=1", "--json").document["id"]
    assert sandboxer("rename", made, "web").stdout == f"{made} is called web\n"
    labelled = sandboxer("label", "web", "team=blue", "old-", "--json")
    assert (labelled.status, labelled.document["labels"], labelled.document["name"]) == (0, {"team": "blue"}, "web")
    assert sandboxer("label", "web", "team-").stdout == f"{made} has no labels\n"
    refused = sandboxer("label", "web", "team", "--json")
    assert (refused.status, refused.error["code"]) == (2, "invalid")
    assert "KEY-" in refused.error["hint"]


def test_wait_ends_when_another_command_has_seen_to_it(sandboxer: Command) -> None:
    made = sandboxer("create", *FAKE, "--name", "web", "--no-wait", "--json").document["id"]
    ready = sandboxer("wait", "web", "--for", "ready", "--json")
    assert (ready.status, ready.document["id"], ready.document["state"]) == (0, made, "ready")
    late = sandboxer("wait", "web", "--for", "destroyed", "--timeout", "1s", "--json")
    assert (late.status, late.error["code"]) == (124, "timeout")
    waiting = sandboxer.start("wait", "web", "--for", "destroyed")
    assert sandboxer("destroy", "web").status == 0
    said, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, said.decode()) == (0, f"{made} is destroyed\n")


def test_what_cannot_come_any_more_is_not_waited_for(sandboxer: Command) -> None:
    sandboxer("create", *FAKE, "--name", "web")
    never = sandboxer("wait", "web", "--for", "stopped", "--json")
    assert (never.status, never.error["code"]) == (5, "unsupported")
    unknown = sandboxer("wait", "web", "--for", "active", "--json")
    assert (unknown.status, unknown.error["code"]) == (2, "invalid")
    sandboxer("destroy", "web")
    gone = sandboxer("wait", "web", "--for", "ready", "--json")
    assert (gone.status, gone.error["code"]) == (4, "conflict")
    assert sandboxer("wait", "nosuch", "--for", "ready", "--json").error["code"] == "not_found"
