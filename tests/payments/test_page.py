"""docs/payments.md and docs/integrations/fin-hub.md: their figures and examples are those of the code."""

from __future__ import annotations

import json

import msgspec

from sandboxer.manager.limits import DEFAULT
from sandboxer.payments.credits import Balance
from sandboxer.payments.export import FOCUS_VERSION
from sandboxer.payments.ledger import KEPT, Account
from sandboxer.payments.prices import AHEAD_SECONDS, LARGEST_USD
from sandboxer.payments.usage import FinHubRecord, usage_id
from tests.docs.pages import ROOT, bare, blocks, table

PAGE = ROOT / "docs" / "payments.md"
FIN_HUB = ROOT / "docs" / "integrations" / "fin-hub.md"


def test_the_figures_of_the_page_are_the_codes() -> None:
    text = PAGE.read_text()
    for claim in (
        f"at most {LARGEST_USD}, at most six places",
        f"paid for {AHEAD_SECONDS / 3600:g} h ahead",
        f"(after {DEFAULT.stale_grace / 60:g} minutes)",
        f"The newest {KEPT} entries",
        f"FinOps FOCUS specification {FOCUS_VERSION}",
    ):
        assert claim in text, claim
    for account in Account.__args__:  # type: ignore[attr-defined]  # of a Literal
        assert f"`{account}`" in text
    assert DEFAULT.min_funded < AHEAD_SECONDS / 2


def test_the_table_of_figures_is_the_document() -> None:
    named = [bare(row[0]) for row in table(PAGE, "figure", "meaning").rows]
    assert named == [name for name in Balance.__struct_fields__ if name.endswith("_usd")]


def test_the_example_of_fin_hub_is_a_record() -> None:
    (example,) = list(blocks(FIN_HUB.read_text(), "json"))
    found = json.loads(example)
    assert list(found) == list(FinHubRecord.__struct_fields__)
    record = msgspec.convert(found, FinHubRecord)
    assert record.usage_id == usage_id(record.sandbox_id)
