"""route explain, dry runs and fallback, as the command's users see them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.running import Command

NO_KEYS = {"E2B_API_KEY": "", "MODAL_TOKEN_ID": "", "MODAL_TOKEN_SECRET": "", "DAYTONA_API_KEY": ""}
BURST = ("--profile", "profile.burst-sandbox")


@pytest.fixture
def sandboxer(tmp_path: Path) -> Command:
    return Command(tmp_path, more=NO_KEYS)


def _outcomes(decisions: list[dict[str, str]]) -> dict[str, str]:
    return {one["extension"]: one["outcome"] for one in decisions}


def test_explain_says_what_would_serve_and_why_not_the_others(sandboxer: Command, tmp_path: Path) -> None:
    sandboxer("credits", "add", "5")
    told = sandboxer("route", "explain", *BURST, "--ttl", "30m", "--json")
    assert told.status == 0
    document = told.document
    assert list(document) == ["profile", "strategy", "decisions", "chosen", "refusal"]
    assert (document["profile"], document["strategy"]) == ("profile.burst-sandbox", "prefer-self-hosted")
    assert document["chosen"]["extension"] == "ext.saas-stub"
    assert document["refusal"] is None
    assert _outcomes(document["decisions"]) == {
        "ext.saas-stub": "chosen",
        "ext.e2b": "skipped",
        "ext.modal": "skipped",
        "ext.daytona": "skipped",
    }
    reasons = {one["extension"]: one["reason"] for one in document["decisions"]}
    assert "E2B_API_KEY" in reasons["ext.e2b"]
    assert not (tmp_path / "data" / "sandboxes.json").exists()
    shown = sandboxer("route", "explain", *BURST)
    assert "DAYTONA_API_KEY" in shown.stdout
    assert "ext.saas-stub" in shown.stdout


def test_explain_answers_also_when_a_create_would_be_refused(sandboxer: Command) -> None:
    told = sandboxer("route", "explain", *BURST, "--json")
    assert (told.status, told.document["chosen"]) == (0, None)
    assert told.document["refusal"]["code"] == "insufficient_credits"
    refused = sandboxer("create", *BURST, "--json")
    assert (refused.status, refused.error["code"]) == (9, "insufficient_credits")
    assert _outcomes(refused.error["details"]["decisions"])["ext.saas-stub"] == "skipped"
    assert sandboxer("list", "--all", "--json").document == {"sandboxes": []}
    wrong = sandboxer("route", "explain", *BURST, "--input", "nope=1", "--json")
    assert (wrong.status, wrong.error["code"]) == (2, "invalid")


def test_with_a_key_the_burst_goes_to_the_provider_and_without_any_to_the_stub(sandboxer: Command) -> None:
    sandboxer("credits", "add", "5")
    planned = sandboxer("create", *BURST, "--dry-run", "--json", E2B_API_KEY="made-up").document
    assert planned["extension"] == "ext.e2b"
    assert planned["cost"]["pricing_model"] == "metered"
    assert planned["hosts"] == []
    made = sandboxer("create", *BURST, "--json").document
    assert (made["extension"], made["placement"], made["state"]) == ("ext.saas-stub", {"host": None}, "ready")
    assert sandboxer("list").stdout.count("ext.saas-stub") == 1
    assert sandboxer("destroy", made["id"], "--json").document["cost"]["actual_usd"] is not None


def test_a_provider_that_is_down_gives_way_and_the_document_says_so(sandboxer: Command) -> None:
    """Nothing listens there: the request cannot have arrived, so nothing can be left."""
    sandboxer("credits", "add", "5")
    made = sandboxer("create", *BURST, "--json", E2B_API_KEY="made-up", E2B_API_URL="http://127.0.0.1:9").document
    assert made["extension"] == "ext.saas-stub"
    decisions = made["route"]["decisions"]
    assert [(one["extension"], one["outcome"]) for one in decisions[:2]] == [
        ("ext.e2b", "failed"),
        ("ext.saas-stub", "chosen"),
    ]
    assert sandboxer("credits", "show", "--json").document["reserved_usd"] == made["cost"]["estimated_usd"]
    assert sandboxer("destroy", made["id"]).status == 0
    assert sandboxer("credits", "show", "--json").document["reserved_usd"] == "0"


def test_no_wait_carries_the_whole_route_to_the_process_that_goes_on(sandboxer: Command) -> None:
    from tests.testbed.waiting import eventually

    sandboxer("credits", "add", "5")
    begun = sandboxer(
        "create", *BURST, "--no-wait", "--json", E2B_API_KEY="made-up", E2B_API_URL="http://127.0.0.1:9"
    ).document
    eventually(
        lambda: sandboxer("get", begun["id"], "--json").document["state"] == "ready",
        within=20,
        what="the stub serves",
    )
    assert sandboxer("get", begun["id"], "--json").document["extension"] == "ext.saas-stub"
    assert sandboxer("destroy", begun["id"]).status == 0


def test_a_damaged_health_file_is_a_warning_of_doctor(sandboxer: Command, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "health.json").write_text("{")
    findings = json.loads(sandboxer("doctor", "--json").stdout)["findings"]
    (found,) = [finding for finding in findings if finding["subject"] == "health"]
    assert found["level"] == "warning"
    assert found["hint"]
