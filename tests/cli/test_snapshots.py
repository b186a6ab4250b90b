"""The commands of snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import Command


@pytest.fixture
def sandboxer(tmp_path: Path) -> Iterator[Command]:
    command = Command(tmp_path)
    yield command
    for record in command("list", "--json").document["sandboxes"]:
        command("destroy", record["id"], "--force")


def test_from_one_sandbox_to_another(sandboxer: Command) -> None:
    assert sandboxer("create", "--profile", "profile.native", "--name", "play").status == 0
    assert sandboxer("exec", "play", "--", "sh", "-c", "echo kept > f").status == 0
    told = sandboxer("snapshot", "play", "--name", "before")
    assert told.status == 0, told.stderr
    assert "of one moment" in told.stdout
    (listed,) = sandboxer("snapshots", "list", "--json").document["snapshots"]
    assert sandboxer("snapshots", "get", "before", "--json").document == listed
    assert listed["id"] in sandboxer("snapshots", "list").stdout
    again = sandboxer("restore", "before", "--name", "again", "--ttl", "10m", "--json")
    assert (again.status, again.document["snapshot_of"]) == (0, listed["id"])
    assert sandboxer("exec", "again", "--", "cat", "f").stdout == "kept\n"
    begun = sandboxer("restore", listed["id"], "--no-wait", "--json").document
    assert begun["snapshot_of"] == listed["id"]
    assert sandboxer("wait", begun["id"], "--for", "ready").status == 0
    assert sandboxer("exec", begun["id"], "--", "cat", "f").stdout == "kept\n"
    assert sandboxer("snapshots", "verify", "before").stdout == f"{listed['id']} is whole\n"
    assert sandboxer("snapshots", "delete", "before").stdout == f"{listed['id']} deleted\n"
    gone = sandboxer("snapshots", "get", "before", "--json")
    assert (gone.status, gone.error["code"]) == (3, "not_found")
    assert "no snapshots" in sandboxer("snapshots", "list").stdout


def test_damage_is_exit_13(sandboxer: Command) -> None:
    sandboxer("create", "--profile", "profile.native", "--name", "play")
    sandboxer("exec", "play", "--", "sh", "-c", "head -c 200000 /dev/urandom > big")
    sandboxer("snapshot", "play", "--name", "kept")
    (pack,) = (sandboxer.root / "data" / "snapshots").glob("*/packs/*.pack")
    data = bytearray(pack.read_bytes())
    data[500] ^= 1
    pack.write_bytes(data)
    answer = sandboxer("snapshots", "verify", "kept", "--json")
    assert (answer.status, answer.document["ok"], answer.document["damaged"][0]["stream"]) == (13, False, "workspace")
    assert "cannot be read" in sandboxer("snapshots", "verify", "kept").stdout
    failed = sandboxer("restore", "kept", "--json")
    assert (failed.status, failed.error["code"]) == (13, "store_corrupt")
    assert [one["state"] for one in sandboxer("list", "--json").document["sandboxes"]] == ["ready", "failed"]
