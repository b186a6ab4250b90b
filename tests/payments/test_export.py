"""The exports: exact bytes, columns of the specification, and cells that no spreadsheet takes for a formula."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.models import Consumer, Cost, Handle, Isolation, Metering, Price, PriceTable, Request, Resources, Sandbox
from sandboxer.payments.export import COLUMNS, FOCUS_COLUMNS, to_csv, to_focus
from sandboxer.payments.usage import closed, usage_item, within

GOLDEN = Path(__file__).parent / "golden"
NOON = 1_800_014_400.25  # 2027-01-15T12:00:00.25Z
TABLE = PriceTable(as_of="2026-11-01", source="made up", vcpu_hour=Price(usd="0.0504"))


def record(
    sandbox_id: str = "k3v9x2m7q4ta", *, metered: bool = True, lived: float = 5400, **changes: object
) -> Sandbox:
    fresh = Sandbox(
        id=sandbox_id,
        request=Request(profile="profile.e2b-burst"),
        profile="profile.e2b-burst",
        profile_version="1.0.0",
        extension="ext.e2b",
        state="destroyed",
        consumer=Consumer(actor="agt", name="builder"),
        host=None,
        name="web",
        labels={"team": "blue", "cost-centre": '=cmd|"/c calc"!A0'},
        created_at=NOON - 2,
        ready_at=NOON,
        expires_at=NOON + 7200,
        wished_at=NOON + lived,
        destroyed_at=NOON + lived + 10,
        isolation=Isolation(class_="microvm", network="internet"),
        handle=Handle(version=1, data={}),
        cost=Cost(pricing_model="metered", estimated_usd="0.2016") if metered else Cost(),
        metering=Metering(prices=TABLE, resources=Resources(vcpu=2), reserved_usd="0.2016") if metered else None,
    )
    return msgspec.structs.replace(fresh, **changes)


def ended(sandbox_id: str = "k3v9x2m7q4ta", **changes: object) -> Sandbox:
    made = record(sandbox_id, **changes)  # type: ignore[arg-type]  # any field
    return closed(made, at=made.destroyed_at or NOON)


def few() -> list[Sandbox]:
    return [
        ended(),
        ended("a2222222222b", metered=False, host="coulombcore", extension="ext.compose-ssh", name=None, labels={},
              isolation=Isolation(class_="container", network="bridge")),
        ended("c3333333333d", ready_at=None, state="failed", handle=None),
        record("e4444444444f", state="ready", wished_at=None, destroyed_at=None),
    ]  # fmt: skip


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("name", ["usage.csv", "focus.csv"])
def test_the_exports_are_the_golden_ones_to_the_byte(name: str) -> None:
    text = to_csv(few(), now=NOON + 600) if name == "usage.csv" else to_focus(few(), install="0123456789abcdef")
    assert text.encode() == (GOLDEN / name).read_bytes()


def test_a_spreadsheet_reads_as_many_cells_in_each_row_as_there_are_columns() -> None:
    for text, columns in ((to_csv(few(), now=NOON), COLUMNS), (to_focus(few(), install="x"), FOCUS_COLUMNS)):
        lines = list(csv.reader(io.StringIO(text, newline="")))
        assert lines[0] == list(columns)
        assert {len(line) for line in lines} == {len(columns)}


# FOCUS 1.2: every column of the feature level "Mandatory", and what it says of their values
MANDATORY = {
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost",
    "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName",
    "ServiceCategory", "ServiceName",
}  # fmt: skip
NULLABLE = {"ChargeClass", "BillingAccountName"}


def test_the_focus_rows_follow_the_specification() -> None:
    assert set(FOCUS_COLUMNS) >= MANDATORY
    assert [name for name in FOCUS_COLUMNS if not name.startswith("x_")] == sorted(
        name for name in FOCUS_COLUMNS if not name.startswith("x_")
    )
    found = rows(to_focus(few(), install="0123456789abcdef"))
    assert [row["ResourceId"] for row in found] == ["k3v9x2m7q4ta", "a2222222222b"], (
        "not what lives, or never was ready"
    )
    for row in found:
        assert all(row[name] for name in MANDATORY - NULLABLE)
        assert (row["BillingCurrency"], row["ChargeCategory"], row["ChargeFrequency"]) == (
            "USD",
            "Usage",
            "Usage-Based",
        )
        assert row["ServiceCategory"] == "Compute"
        assert Decimal(row["ConsumedQuantity"]) == Decimal(row["PricingQuantity"]) > 0
        assert row["SkuPriceId"] == row["SkuId"] == row["ServiceName"], "of free usage too, and whatever the date"
        assert Decimal(row["BilledCost"]) == Decimal(row["EffectiveCost"]) == Decimal(row["ListCost"]) >= 0
        start, end = when(row["ChargePeriodStart"]), when(row["ChargePeriodEnd"])
        assert start < end
        assert when(row["BillingPeriodStart"]).day == when(row["BillingPeriodEnd"]).day == 1
        assert when(row["BillingPeriodStart"]) <= end <= when(row["BillingPeriodEnd"])
        assert row["x_UsageId"] == f"use-{row['ResourceId']}"
    assert found[0]["BilledCost"] == "0.1512"
    assert found[0]["PricingQuantity"] == "1.5"
    assert [row["x_PricesAsOf"] for row in found] == ["2026-11-01", ""]
    assert json.loads(found[0]["Tags"])["team"] == "blue"


def when(text: str) -> datetime:
    assert text.endswith("Z")
    found = datetime.fromisoformat(text)
    assert found.utcoffset() == timedelta(0)
    return found


def test_a_charge_that_ends_with_the_year_is_in_december() -> None:
    last = 1_798_761_599.5  # 2026-12-31T23:59:59.5Z
    (row,) = rows(to_focus([ended(ready_at=last - 100, wished_at=last, destroyed_at=last + 9)], install="x"))
    assert (row["BillingPeriodStart"], row["BillingPeriodEnd"]) == ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z")
    assert row["ChargePeriodEnd"] == "2027-01-01T00:00:00Z"


@given(name=st.text(max_size=20), start=st.sampled_from(["=", "+", "-", "@", "\t", "\r", "\n", ""]))
def test_no_cell_is_taken_for_a_formula_and_none_is_torn(name: str, start: str) -> None:
    """Whatever a name holds; those that we make ourselves could never start like this."""
    one = ended(name=start + name, profile=start + name, host=start + name or None)
    for text in (to_csv([one], now=NOON), to_focus([one], install="x")):
        (row,) = csv.reader(io.StringIO(text.split("\r\n", 1)[1], newline=""))
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in row)
        assert any(start + name in cell for cell in row)


def test_one_that_never_was_ready_used_nothing_and_one_that_lives_has_no_end() -> None:
    _, _, failed, living = few()
    assert usage_item(failed, now=NOON).duration_s == 0
    assert usage_item(failed, now=NOON).actual_usd == "0"
    item = usage_item(living, now=NOON + 600)
    assert (item.ended_at, item.duration_s, item.actual_usd) == (None, 600, "0.0168")


def test_usage_is_found_by_the_time_that_it_touches() -> None:
    def found(since: float | None, until: float | None) -> list[str]:
        return [one.id[0] for one in within(few(), since=since, until=until, now=NOON + 600)]

    assert found(None, None) == ["k", "a", "c", "e"]
    assert found(NOON + 700, None) == ["k", "a"]
    assert found(None, NOON - 1) == ["c"]
    assert found(NOON + 100, NOON + 200) == ["k", "a", "e"]
