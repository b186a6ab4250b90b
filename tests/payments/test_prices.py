"""What a sandbox costs: exact, rounded once, and never less reserved than charged."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.errors import Invalid, NotConfigured
from sandboxer.models import Price, PriceTable, Resources
from sandboxer.payments.prices import (
    AHEAD_SECONDS,
    cost,
    from_micro,
    hourly,
    metering_of,
    parse_amount,
    parse_price,
    priced,
    quote,
    seconds_for,
    to_micro,
    usd_text,
)


def prices(**given: Price | dict[str, Price]) -> PriceTable:
    return msgspec.structs.replace(PriceTable(as_of="2026-11-01", source="made up"), **given)


E2B_LIKE = prices(vcpu_hour=Price(usd="0.0504"), memory_gib_hour=Price(usd="0.0162"))
AMOUNTS = st.decimals(min_value=0, max_value=10_000, places=9).map(lambda value: format(value, "f"))
UNITS = st.floats(min_value=0, max_value=512).map(lambda value: round(value, 3))
SECONDS = st.floats(min_value=0, max_value=40 * 86_400).map(lambda value: round(value, 3))


def test_an_hour_of_two_processors_and_half_a_gib_costs_what_the_list_says() -> None:
    found = quote(E2B_LIKE, Resources(vcpu=2, memory_gib=0.5), 3600)
    assert found.usd_per_hour == Decimal("0.1089")
    assert found.estimated_usd == Decimal("0.1089")
    assert usd_text(found.estimated_usd) == "0.1089"


def test_what_is_included_is_free_and_the_minimum_is_billed() -> None:
    table = prices(
        sandbox_hour=Price(usd="0.01"),
        disk_gib_hour=Price(usd="0.1", included=5),
        vcpu_hour=Price(usd="1", minimum=0.125),
    )
    assert hourly(table, Resources(disk_gib=5)) == Decimal("0.135")
    assert hourly(table, Resources(disk_gib=7.5, vcpu=2)) == Decimal("2.26")


def test_gpus_are_priced_by_model_whatever_its_case_and_one_without_a_price_is_not_guessed() -> None:
    table = prices(gpu_hour={"T4": Price(usd="0.59"), "H100": Price(usd="3.95")})
    assert hourly(table, Resources(gpu="h100", gpus=2)) == Decimal("7.90")
    assert not priced(table, Resources(gpu="B200", gpus=1))
    with pytest.raises(NotConfigured, match="no price for the GPU 'B200'"):
        quote(table, Resources(gpu="B200", gpus=1), 60)


def test_without_a_list_or_with_a_list_of_nothing_it_is_free() -> None:
    assert not quote(None, Resources(vcpu=64), 3600).metered
    assert not quote(prices(sandbox_hour=Price(usd="0")), Resources(), 3600).metered
    assert metering_of(quote(None, Resources(), None), now=0) is None


def test_without_an_end_a_day_is_reserved_ahead() -> None:
    found = quote(prices(sandbox_hour=Price(usd="0.05")), Resources(), None)
    assert (found.seconds, found.estimated_usd) == (AHEAD_SECONDS, Decimal("1.2"))
    kept = metering_of(found, now=1_800_000_000)
    assert kept is not None
    assert (kept.reserved_usd, kept.funded_until) == ("1.2", 1_800_086_400)
    with_an_end = metering_of(quote(prices(sandbox_hour=Price(usd="0.05")), Resources(), 60), now=0)
    assert with_an_end is not None
    assert with_an_end.funded_until is None


def test_a_fraction_of_a_micro_dollar_is_rounded_up_once() -> None:
    assert cost(prices(sandbox_hour=Price(usd="0.0036")), Resources(), 1) == Decimal("0.000001")
    assert cost(prices(sandbox_hour=Price(usd="0.0036")), Resources(), 1.001) == Decimal("0.000002")
    assert cost(prices(sandbox_hour=Price(usd="0.000000000000000001")), Resources(), 0.001) == Decimal("0.000001")
    assert cost(prices(sandbox_hour=Price(usd="0.0036")), Resources(), 0) == 0


@given(usd=AMOUNTS, vcpu=UNITS, included=UNITS, minimum=UNITS, seconds=SECONDS)
def test_a_cost_is_the_exact_one_rounded_up(
    usd: str, vcpu: float, included: float, minimum: float, seconds: float
) -> None:
    table = prices(vcpu_hour=Price(usd=usd, included=included, minimum=minimum), sandbox_hour=Price(usd="0.1"))
    units = max(Fraction(0), max(Fraction(repr(vcpu)), Fraction(repr(minimum))) - Fraction(repr(included)))
    exact = (Fraction(usd) * units + Fraction(1, 10)) * Fraction(repr(seconds)) / 3600 * 1_000_000
    assert to_micro(cost(table, Resources(vcpu=vcpu), seconds)) == -(-exact.numerator // exact.denominator)


@given(usd=AMOUNTS, seconds=SECONDS, part=st.floats(min_value=0, max_value=1))
def test_a_part_of_the_time_never_costs_more_than_all_of_it(usd: str, seconds: float, part: float) -> None:
    table = prices(sandbox_hour=Price(usd=usd))
    assert cost(table, Resources(), seconds * part) <= cost(table, Resources(), seconds)


@given(usd=AMOUNTS, credit=st.integers(min_value=0, max_value=10**12))
def test_what_is_bought_never_costs_more_than_was_paid(usd: str, credit: int) -> None:
    table = prices(sandbox_hour=Price(usd=usd))
    seconds = seconds_for(table, Resources(), from_micro(credit))
    assert seconds == float("inf") or cost(table, Resources(), seconds) <= from_micro(credit)


@given(st.integers(min_value=-(10**15), max_value=10**15))
def test_money_as_text_is_plain_and_exact(micro: int) -> None:
    text = usd_text(from_micro(micro))
    assert to_micro(Decimal(text)) == micro
    assert set(text) <= set("-0123456789.")
    assert "." not in text or not text.endswith(("0", "."))


@pytest.mark.parametrize("text", ["25", "0.50", "0.000001", "1000000000"])
def test_an_amount_is_taken(text: str) -> None:
    assert parse_amount(text) == Decimal(text)


@pytest.mark.parametrize(
    "text",
    ["", "0", "0.0", "-1", "+1", "1e3", "1E-6", " 1", "1 ", "1_000", "1,5", "0.0000001", ".5", "1.", "NaN", "Infinity",
     "1000000001", "10000000000", "99999999999", "٣", "0x10", "$5", "1\n"],
)  # fmt: skip
def test_what_is_no_amount_is_invalid(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_amount(text)
    assert caught.value.hint


@given(st.text(max_size=30))
def test_any_text_is_an_amount_and_a_price_or_invalid(text: str) -> None:
    for parse in (parse_amount, parse_price):
        try:
            assert parse(text) >= 0
        except Invalid:
            continue


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -3.0])
def test_an_allotment_that_is_none_is_not_billed(wrong: float) -> None:
    assert hourly(E2B_LIKE, Resources(vcpu=wrong, memory_gib=1)) == Decimal("0.0162")
