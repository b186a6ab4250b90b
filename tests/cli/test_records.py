"""rename, label."""

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
