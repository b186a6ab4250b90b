"""credits and usage, as an operator types them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest

from sandboxer.testing.hub import FakeHub
from tests.cli.running import Answer, Command
from tests.docs.test_schemas import fits
from tests.installations import FAKE_MANIFEST, left_over
from tests.testbed.waiting import eventually

PRICES = 'pricing_model: metered\nprices: {as_of: "2026-11-01", source: made up, sandbox_hour: {usd: "36"}}\n'
FAKE = ("--profile", "profile.fake")


@pytest.fixture
def sandboxer(tmp_path: Path) -> Command:
    found = Command(tmp_path)
    (tmp_path / "config" / "extensions" / "ext.fake.yaml").write_text(FAKE_MANIFEST + PRICES)
    return found


def test_an_operator_adds_credits_spends_some_and_reads_what_it_was_for(sandboxer: Command) -> None:
    assert sandboxer("credits", "show", "--json").document == {
        "currency": "USD", "added_usd": "0", "spent_usd": "0", "reserved_usd": "0", "balance_usd": "0",
        "available_usd": "0", "budgets": [], "reservations": [],
    }  # fmt: skip
    added = sandboxer("credits", "add", "50.5", "--note", "a voucher", "--json")
    assert (added.status, added.document["available_usd"]) == (0, "50.5")
    fits("credits", added.document)
    made = sandboxer("create", *FAKE, "--ttl", "1h", "--name", "box", "--json").document
    assert made["cost"] == {"pricing_model": "metered", "estimated_usd": "36", "actual_usd": None}
    held = sandboxer("credits", "show", "--json").document
    assert (held["reserved_usd"], held["available_usd"]) == ("36", "14.5")
    assert held["reservations"][0]["sandbox_id"] == made["id"]
    fits("credits", held)
    gone = sandboxer("destroy", "box", "--json").document
    cost = Decimal(gone["cost"]["actual_usd"])
    assert 0 < cost < 1
    listed = sandboxer("usage", "list", "--json").document
    fits("usage", listed)
    assert [(item["sandbox_id"], item["actual_usd"]) for item in listed["usage"]] == [(made["id"], str(cost))]
    after = sandboxer("credits", "show", "--json").document
    assert (Decimal(after["spent_usd"]), after["reserved_usd"]) == (cost, "0")
    assert "available" in sandboxer("credits", "show").stdout
    assert made["id"] in sandboxer("usage", "list").stdout


def test_a_balance_that_is_too_low_is_exit_9_and_nothing_is_made(sandboxer: Command, tmp_path: Path) -> None:
    sandboxer("credits", "add", "1")
    refused = sandboxer("create", *FAKE, "--ttl", "1h", "--json")
    assert (refused.status, refused.error["code"]) == (9, "insufficient_credits")
    assert "sandboxer credits" in refused.error["hint"]
    assert left_over(tmp_path) == []
    sandboxer("create", *FAKE, "--ttl", "90s", "--name", "box")
    longer = sandboxer("extend-ttl", "box", "--duration", "1h", "--json")
    assert (longer.status, longer.error["code"]) == (9, "insufficient_credits")


@pytest.mark.parametrize("amount", ["0", "1e3", "0.0000001", "1000000001", "ten", "NaN", "", "1,5"])
def test_what_is_no_amount_is_exit_2_and_nothing_is_added(sandboxer: Command, amount: str, tmp_path: Path) -> None:
    refused = sandboxer("credits", "add", amount, "--json")
    assert (refused.status, refused.error["code"]) == (2, "invalid")
    assert not (tmp_path / "data" / "credits.json").exists()


def test_credits_are_added_once_under_a_key_and_who_asks_again_is_told(sandboxer: Command) -> None:
    def add(amount: str, key: str) -> Answer:
        return sandboxer("credits", "add", amount, "--idempotency-key", key, "--json")

    first, again = add("25", "cron-2026-11"), add("25.00", "cron-2026-11")
    assert (first.status, again.status) == (0, 0)
    assert first.document == again.document
    assert "nothing was added" not in first.stderr
    assert "nothing was added" in again.stderr
    other = add("26", "cron-2026-11")
    assert (other.status, other.error["code"]) == (4, "conflict")
    assert "25 USD" in other.error["message"]
    assert "new key" in other.error["hint"]
    assert add("25", "cron-2026-12").document["added_usd"] == "50"
    for wrong in ("", "x" * 256, "two\nlines"):
        assert (add("1", wrong).status, add("1", wrong).error["code"]) == (2, "invalid")
    assert sandboxer("credits", "show", "--json").document["added_usd"] == "50"


def test_an_export_is_bytes_for_a_spreadsheet_and_one_document_for_a_program(sandboxer: Command) -> None:
    sandboxer("create", *FAKE, "--name", "free-of-charge", "--ttl", "1h")
    sandboxer("credits", "add", "100")
    sandboxer("create", *FAKE, "--name", "box", "--ttl", "1h")
    sandboxer("destroy", "box")
    plain = subprocess.run(
        sandboxer.words("usage", "export"), env=sandboxer.environment, capture_output=True, check=True, timeout=60
    )
    assert plain.stdout.count(b"\r\n") == 2
    (row,) = csv.DictReader(io.StringIO(plain.stdout.decode(), newline=""))
    assert row["state"] == "destroyed"
    focus = sandboxer("usage", "export", "--format", "focus")
    assert next(csv.DictReader(io.StringIO(focus.stdout)))["ResourceId"] == row["sandbox_id"]
    wrapped = sandboxer("usage", "export", "--format", "focus", "--json").document
    assert wrapped["format"] == "focus"
    assert wrapped["content"].startswith("BilledCost,")
    fits("usage", sandboxer("usage", "export", "--format", "json").document)
    fits("usage", sandboxer("usage", "export", SANDBOXER_OUTPUT="json").document)
    assert sandboxer("usage", "export", "--format", "xml", "--json").status == 2


def test_usage_is_narrowed_by_times_days_and_durations(sandboxer: Command) -> None:
    sandboxer("credits", "add", "100")
    sandboxer("create", *FAKE, "--ttl", "1h")
    for words, count in {
        ("--since", "1h"): 1, ("--since", "2001-01-01"): 1, ("--since", "2101-01-01T00:00:00Z"): 0,
        ("--until", "2101-01-01"): 1, ("--until", "7d"): 0, ("--since", "7d", "--until", "2101-01-01"): 1,
    }.items():  # fmt: skip
        assert len(sandboxer("usage", "list", *words, "--json").document["usage"]) == count, words
    assert sandboxer("usage", "list", "--since", "yesterday", "--json").error["code"] == "invalid"


def test_doctor_tells_a_book_that_cannot_be_used_and_one_that_is_behind(sandboxer: Command, tmp_path: Path) -> None:
    def findings() -> dict[str, dict[str, str]]:
        return {found["level"]: found for found in _doctor(sandboxer) if found["subject"] == "credits"}

    sandboxer("credits", "add", "100")
    made = sandboxer("create", *FAKE, "--ttl", "1h", "--json").document
    assert findings()["ok"]["text"] == "64 of 100 USD are available"
    file = tmp_path / "data" / "credits.json"
    before = file.read_bytes()
    file.write_bytes(b"{")
    assert sandboxer("destroy", made["id"]).status == 0
    answer = sandboxer("doctor", "--json")
    assert answer.status == 13
    assert "put a copy" in findings()["error"]["hint"]
    assert file.read_bytes() == b"{"
    file.write_bytes(before)
    assert made["id"] in findings()["warning"]["text"]
    assert findings()["warning"]["hint"] == "run `sandboxer expire --apply`"
    assert sandboxer("expire", "--apply", "--json").document["actions"][0]["action"] == "settle"
    assert set(findings()) == {"ok"}


def _doctor(sandboxer: Command) -> list[dict[str, str]]:
    found: list[dict[str, str]] = sandboxer("doctor", "--json").document["findings"]
    return found


def test_a_metered_destroy_reaches_fin_hub_by_itself_although_the_state_hub_is_dead(tmp_path: Path) -> None:
    """Promise 21: a process of its own sends it; the command does not wait."""
    with FakeHub(path="/usage") as fin:
        sandboxer = Command(
            tmp_path,
            more={"SANDBOXER_STATE_HUB_URL": "http://127.0.0.1:9", "SANDBOXER_FIN_HUB_URL": fin.url + "/usage"},
        )
        (tmp_path / "config" / "extensions" / "ext.fake.yaml").write_text(FAKE_MANIFEST + PRICES)
        sandboxer("credits", "add", "100")
        made = sandboxer("create", *FAKE, "--ttl", "1h", "--json").document
        started = time.monotonic()
        assert sandboxer("destroy", made["id"]).status == 0
        assert time.monotonic() - started < 20
        eventually(lambda: len(fin.arrivals) == 1, within=60, what="the usage record")
        assert fin.arrivals[0].headers["Idempotency-Key"] == f"use-{made['id']}"
        fits("fin-hub", fin.arrivals[0].event)
        eventually(lambda: "sent" in _statuses(sandboxer, "fin-hub"), within=60, what="the mark that it was sent")
        flushed = sandboxer("events", "flush", "--json")
        fits("flush", flushed.document)
        assert flushed.status == 8
        assert {sink["sink"]: sink["pending"] > 0 for sink in flushed.document["sinks"]} == {
            "state-hub": True, "fin-hub": False,
        }  # fmt: skip


def _statuses(sandboxer: Command, sink: str) -> set[str]:
    return {
        event["status"] for event in sandboxer("events", "list", "--json").document["events"] if event["sink"] == sink
    }


def test_a_command_that_looks_at_no_money_does_not_import_the_exports() -> None:
    code = (
        "import sys, sandboxer.bootstrap; "
        "print(*[m for m in ('csv', 'sandboxer.payments.export', 'httpx') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.dumps(found.stdout.split()) == "[]"
