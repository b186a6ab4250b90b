"""As an operator would: the command in processes of its own, against a fake E2B."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.cli.running import Command
from tests.fakes import Fault, SandboxFS
from tests.fakes.e2b import KEY, FakeE2B, no_room

PROFILE = ("--profile", "profile.e2b-burst")


@pytest.fixture
def sandboxer(tmp_path: Path, fake: FakeE2B) -> Command:
    """The command, with a key for the fake and five dollars."""
    command = Command(tmp_path, more=fake.environment())
    assert command("credits", "add", "5").status == 0
    return command


def test_a_sandbox_from_its_create_to_its_bill(sandboxer: Command, fake: FakeE2B, tmp_path: Path) -> None:
    """Promises 4, 19, 20, 28."""
    created = sandboxer("create", *PROFILE, "--json")
    assert created.status == 0, created
    document = created.document
    name = document["id"]
    assert (document["state"], document["placement"]["host"]) == ("ready", None)
    assert document["reachability"]["kind"] == "api"
    assert [document["reachability"]["provider_id"]] == list(fake.census())
    # 2 vCPU and 0.5 GiB for an hour
    assert document["cost"]["estimated_usd"] == "0.1089"

    ran = sandboxer("exec", name, "--env", "WHO=you there", "--", "sh", "-c", 'echo "hi $WHO"; exit 3')
    assert (ran.status, ran.stdout) == (3, "hi you there\n")
    typed = sandboxer("exec", name, "-i", "--", "wc", "-c", stdin=bytes(300_000))
    assert typed.stdout.strip() == "300000"

    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("kept")
    assert sandboxer("cp", "tree", f"{name}:there").status == 0
    assert sandboxer("exec", name, "--", "cat", "there/file").stdout == "kept"
    assert sandboxer("cp", f"{name}:there", "back").status == 0
    assert (tmp_path / "back" / "file").read_text() == "kept"
    assert "Process started" in sandboxer("logs", name, "--tail", "200").stdout

    (sandbox,) = fake.estate.sandboxes.values()
    before = sandbox.end_at
    assert sandboxer("extend-ttl", name, "--duration", "30m").status == 0
    assert 1795 < sandbox.end_at - before < 1805

    assert sandboxer("destroy", name, "--force").status == 0
    assert sandboxer("destroy", name, "--force").status == 0
    assert list(fake.census()) == []
    usage = sandboxer("usage", "list", "--json").document["usage"]
    assert len(usage) == 1
    assert float(usage[0]["actual_usd"]) < 0.01
    assert sandboxer("reconcile", "--json").document["actions"] == []
    _no_secret(tmp_path, fake, sandbox.id)


def _no_secret(root: Path, fake: FakeE2B, sandbox: str) -> None:
    """Neither the key nor a sandbox's token is in any file of the installation."""
    texts = [file.read_bytes() for file in (root / "data").rglob("*") if file.is_file()]
    assert any(sandbox.encode() in text for text in texts), "the look is not blind: it sees the sandbox's id"
    assert not any(KEY.encode() in text or fake.estate.token(sandbox).encode() in text for text in texts)


def test_a_create_whose_answer_is_lost_is_one_sandbox_and_one_charge(sandboxer: Command, fake: FakeE2B) -> None:
    """Promises 7, 19."""
    fake.script.add(Fault(match="POST /v2/sandboxes", kind="lost-answer"))
    name = sandboxer("create", *PROFILE, "--json").document["id"]
    assert (fake.creates, len(fake.census())) == (1, 1)
    assert sandboxer("destroy", name, "--force").status == 0
    assert list(fake.census()) == []
    assert len(sandboxer("usage", "list", "--json").document["usage"]) == 1


def test_without_a_key_it_says_what_to_set(sandboxer: Command, fake: FakeE2B) -> None:
    answer = sandboxer("create", *PROFILE, "--json", E2B_API_KEY="")
    assert answer.status == 6
    assert "E2B_API_KEY" in answer.error["message"]
    assert fake.creates == 0


def test_a_wrong_key_is_denied_and_nowhere_repeated(sandboxer: Command, fake: FakeE2B) -> None:
    answer = sandboxer("create", *PROFILE, "--json", E2B_API_KEY="e2b_wrong_canary")
    assert answer.status == 11
    assert "e2b_wrong_canary" not in answer.stdout + answer.stderr


def test_no_room_is_unavailable_and_leaves_nothing(sandboxer: Command, fake: FakeE2B) -> None:
    fake.script.add(no_room(times=None))
    answer = sandboxer("create", *PROFILE, "--json")
    assert (answer.status, answer.error["outcome"]) == (8, "failed")
    assert list(fake.census()) == []
    assert sandboxer("credits", "show", "--json").document["reserved_usd"] == "0"


def test_a_balance_that_is_too_low_makes_no_call(tmp_path: Path, fake: FakeE2B) -> None:
    answer = Command(tmp_path, more=fake.environment())("create", *PROFILE, "--json")
    assert answer.status == 9
    assert list(fake.requests) == []


def test_a_ttl_over_the_providers_is_refused_before_anything_starts(sandboxer: Command, fake: FakeE2B) -> None:
    assert sandboxer("create", *PROFILE, "--ttl", "25h", "--json").status == 2
    assert fake.creates == 0


def test_an_expired_sandbox_is_taken_away_by_expire(sandboxer: Command, fake: FakeE2B) -> None:
    """Promise 15: by us or by E2B's own end, whichever comes first; the record says the same."""
    name = sandboxer("create", *PROFILE, "--ttl", "1s", "--json").document["id"]
    time.sleep(1.2)  # the lifetime that was asked for
    assert sandboxer("expire", "--apply", "--json").status == 0
    assert sandboxer("get", name, "--json").document["state"] == "destroyed"
    assert list(fake.census()) == []


def test_a_sandbox_that_e2b_lost_is_settled_by_reconcile(sandboxer: Command, fake: FakeE2B) -> None:
    name = sandboxer("create", *PROFILE, "--json").document["id"]
    fake.estate.clear()
    sandboxer("reconcile", "--apply")
    assert sandboxer("get", name, "--json").document["state"] in ("failed", "destroyed")


def test_a_ghost_without_a_record_is_found(sandboxer: Command, fake: FakeE2B, tmp_path: Path) -> None:
    """Promise 6: E2B shows a sandbox of ours that has no live record."""
    name = sandboxer("create", *PROFILE, "--json").document["id"]
    (sandbox,) = list(fake.estate.sandboxes.values())
    sandboxer("destroy", name, "--force")
    sandbox.box = SandboxFS()
    sandbox.started_at -= 7200
    fake.estate.add(sandbox)
    found = sandboxer("reconcile", "--json").document
    assert [one["sandbox_id"] for one in found["actions"]] == [name]
    assert sandboxer("reconcile", "--apply").status == 0
    assert list(fake.census()) == []


@pytest.mark.parametrize("key", ["", "   ", f"{KEY[:4]}\n{KEY[4:]}"], ids=["empty", "blank", "broken in two"])
def test_a_key_that_is_none_is_not_configured_and_the_hint_says_which(tmp_path: Path, fake: FakeE2B, key: str) -> None:
    command = Command(tmp_path, more={**fake.environment(), "E2B_API_KEY": key})
    assert command("credits", "add", "5").status == 0
    refused = command("create", *PROFILE, "--json")
    assert refused.status == 6
    error = refused.document["error"]
    assert error["code"] == "not_configured"
    assert "E2B_API_KEY" in error["hint"] or "check the key" in error["hint"]
    assert fake.creates == 0
