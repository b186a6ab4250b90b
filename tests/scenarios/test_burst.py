"""What an operator sees of clouds, routes and money, with the command alone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import Command
from tests.fakes import Fault
from tests.fakes.daytona import FakeDaytona
from tests.fakes.e2b import FakeE2B
from tests.fakes.modal import FakeModal
from tests.installations import lay_out
from tests.testbed.openbao import OpenBao

BURST = ("create", "--profile", "profile.burst-sandbox", "--json")
FULL = Fault(
    match="POST /(v2/)?sandboxes",
    kind="status",
    status=503,
    body={"code": 503, "message": "no capacity", "error_code": "sandbox_capacity_unavailable"},
    times=None,
)


@pytest.fixture
def e2b() -> Iterator[FakeE2B]:
    with FakeE2B() as cloud:
        yield cloud


@pytest.fixture
def modal() -> Iterator[FakeModal]:
    with FakeModal() as cloud:
        yield cloud


def decisions(document: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Extension -> outcome and reason."""
    return {d["extension"]: (d["outcome"], d["reason"]) for d in document["route"]["decisions"]}


def with_credits(root: Path, *clouds: FakeE2B | FakeModal, usd: str = "10") -> Command:
    """An installation that has money, and the keys of these clouds."""
    more: dict[str, str] = {}
    for cloud in clouds:
        more |= cloud.environment()
    command = Command(root, more=more)
    assert command("credits", "add", usd).status == 0
    return command


def test_without_credentials_burst_goes_to_the_stub_and_says_why(tmp_path: Path) -> None:
    sandboxer = with_credits(tmp_path)
    made = sandboxer(*BURST)
    assert made.status == 0, made
    assert made.document["extension"] == "ext.saas-stub"
    told = decisions(made.document)
    for name, variable in {"e2b": "E2B_API_KEY", "modal": "MODAL_TOKEN_ID", "daytona": "DAYTONA_API_KEY"}.items():
        outcome, reason = told[f"ext.{name}"]
        assert outcome == "skipped"
        assert variable in reason
    assert told["ext.saas-stub"][0] == "chosen"
    assert sandboxer("destroy", made.document["id"]).status == 0


def test_with_a_key_burst_goes_to_e2b(tmp_path: Path, e2b: FakeE2B) -> None:
    sandboxer = with_credits(tmp_path, e2b)
    explained = sandboxer("route", "explain", "--profile", "profile.burst-sandbox", "--json")
    assert explained.document["chosen"]["extension"] == "ext.e2b"
    assert e2b.creates == 0
    made = sandboxer(*BURST)
    assert made.document["extension"] == "ext.e2b"
    assert made.document["placement"] == {"host": None}
    assert made.document["reachability"]["kind"] == "api"
    sandbox_id = made.document["id"]
    ran = sandboxer("exec", "-i", sandbox_id, "--", "sh", "-c", "cat > /tmp/x; wc -c < /tmp/x; exit 7", stdin=b"12345")
    assert (ran.status, ran.stdout.strip()) == (7, "5")
    assert sandboxer("destroy", sandbox_id, "--json").status == 0
    assert e2b.census() == []


def test_when_e2b_is_full_modal_takes_over_and_the_reasons_are_told(
    tmp_path: Path, e2b: FakeE2B, modal: FakeModal
) -> None:
    e2b.script.add(FULL)
    sandboxer = with_credits(tmp_path, e2b, modal)
    made = sandboxer(*BURST)
    assert made.status == 0, made
    assert made.document["extension"] == "ext.modal"
    told = decisions(sandboxer("get", made.document["id"], "--json").document)
    assert told["ext.e2b"][0] == "failed"
    assert "capacity" in told["ext.e2b"][1]
    assert told["ext.modal"][0] == "chosen"
    assert (len(e2b.census()), len(modal.census())) == (0, 1)
    assert sandboxer("destroy", made.document["id"]).status == 0
    assert list(modal.census()) == []


def test_a_lost_answer_ends_with_one_sandbox_and_one_charge(tmp_path: Path, e2b: FakeE2B) -> None:
    """Promises 7 and 19."""
    e2b.script.add(Fault(match="POST /(v2/)?sandboxes", kind="lost-answer"))
    sandboxer = with_credits(tmp_path, e2b)
    made = sandboxer(*BURST)
    assert made.status == 0, made
    assert made.document["extension"] == "ext.e2b"
    assert e2b.script.struck
    assert len(e2b.census()) == 1
    assert sandboxer("destroy", made.document["id"], "--json").status == 0
    assert e2b.census() == []
    (usage,) = sandboxer("usage", "list", "--json").document["usage"]
    balance = sandboxer("credits", "show", "--json").document
    assert Decimal(usage["actual_usd"]) > 0
    assert balance["spent_usd"] == usage["actual_usd"]
    assert balance["reserved_usd"] == "0"


@pytest.mark.parametrize(
    ("profile", "cloud", "key"),
    [
        ("e2b-burst", FakeE2B, "E2B_API_KEY"),
        ("modal", FakeModal, "MODAL_TOKEN_SECRET"),
        ("daytona-dev", FakeDaytona, "DAYTONA_API_KEY"),
    ],
)
def test_a_wrong_key_makes_nothing_holds_nothing_and_burst_goes_on(
    tmp_path: Path, profile: str, cloud: type[FakeE2B | FakeModal | FakeDaytona], key: str
) -> None:
    """Promises 5 and 19: what a provider refuses at the door exists nowhere, and its money is free again."""
    with cloud() as there:
        sandboxer = Command(tmp_path, more={**there.environment(), key: "wrong"})
        (tmp_path / "config" / "profiles" / "profile.modal.yaml").write_text(
            "{id: profile.modal, version: 1.0.0, extension: ext.modal, ttl: {default: 1h}}"
        )
        sandboxer("credits", "add", "10")
        refused = sandboxer("create", "--profile", f"profile.{profile}", "--json")
        assert (refused.status, refused.error["code"], refused.error["outcome"]) == (11, "denied", "failed")
        assert sandboxer("credits", "show", "--json").document["reserved_usd"] == "0"
        assert sandboxer("destroy", refused.error["sandbox_id"]).status == 0
        made = sandboxer(*BURST)
        assert made.status == 0, made
        assert made.document["extension"] == "ext.saas-stub"
        assert "failed" in [outcome for outcome, _ in decisions(made.document).values()]
        assert sandboxer("destroy", made.document["id"]).status == 0
        assert list(there.census()) == []


def test_a_balance_that_is_too_low_is_exit_9_before_any_call(tmp_path: Path, e2b: FakeE2B) -> None:
    sandboxer = with_credits(tmp_path, e2b, usd="0.000001")
    refused = sandboxer("create", "--profile", "profile.e2b-burst", "--json")
    assert refused.status == 9
    assert refused.error["code"] == "insufficient_credits"
    assert "credits add" in refused.error["hint"]
    assert list(e2b.requests) == []
    assert sandboxer("list", "--json").document["sandboxes"] == []


def test_keys_come_from_openbao(tmp_path: Path, e2b: FakeE2B) -> None:
    bao = OpenBao(tmp_path / "bao")
    try:
        environment = dict(e2b.environment())
        bao.put("clouds/e2b", api_key=environment.pop("E2B_API_KEY"))
        root = tmp_path / "operator"
        refs = {"secrets": {"E2B_API_KEY": {"ref": "openbao:secret/clouds/e2b#api_key"}}}
        lay_out(root, config=json.dumps({"openbao": {"address": bao.address}, "extensions": {"ext.e2b": refs}}))
        sandboxer = Command(root, more={**environment, "BAO_TOKEN": bao.root})
        assert sandboxer("credits", "add", "1").status == 0
        made = sandboxer("create", "--profile", "profile.e2b-burst", "--json")
        assert made.status == 0, made
        assert sandboxer("destroy", made.document["id"]).status == 0
        assert e2b.census() == []
        without = Command(root, more=environment)("create", "--profile", "profile.e2b-burst", "--json")
        assert without.status in (6, 11), without
    finally:
        bao.close()


def test_the_focus_export_opens_in_a_spreadsheet(tmp_path: Path, e2b: FakeE2B) -> None:
    sandboxer = with_credits(tmp_path, e2b)
    for _ in range(2):
        made = sandboxer(*BURST)
        assert sandboxer("destroy", made.document["id"]).status == 0
    exported = sandboxer("usage", "export", "--format", "focus")
    assert exported.status == 0
    rows = list(csv.DictReader(io.StringIO(exported.stdout)))
    assert len(rows) == 2
    assert {row["BillingCurrency"] for row in rows} == {"USD"}
    assert {row["ChargeCategory"] for row in rows} == {"Usage"}
    spent = Decimal(sandboxer("credits", "show", "--json").document["spent_usd"])
    assert sum(Decimal(row["BilledCost"]) for row in rows) == spent
