"""What a sandbox costs: from a price list, an allotment and a time to US dollars. Pure; exact decimals, never floats.

A cost is computed exactly and rounded once, at the end, up to the next micro-dollar: so what is reserved for a time is
never less than what is charged for any part of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from decimal import ROUND_CEILING, Context, Decimal
from typing import Final

from sandboxer.errors import Invalid, NotConfigured
from sandboxer.models import Metering, Price, PriceTable, Resources, Value

MICRO: Final = 1_000_000
"""Micro-dollars in a dollar."""
AHEAD_SECONDS: Final = 86_400.0
"""How far ahead a sandbox without a TTL is paid for."""
LARGEST_USD: Final = 1_000_000_000
"""The largest amount that is taken from outside, in dollars."""

_EXACT = Context(prec=80, rounding=ROUND_CEILING)
_PRICE = re.compile(r"\d{1,10}(\.\d{1,18})?", re.ASCII)
_AMOUNT = re.compile(r"\d{1,10}(\.\d{1,6})?", re.ASCII)
_ZERO = Decimal(0)


class Quote(Value, frozen=True, kw_only=True):
    """What a sandbox would cost. `prices` None: it is free. `estimated_usd` is for `seconds`, the whole agreed
    lifetime; for `AHEAD_SECONDS` where that has no end (`open_ended`)."""

    prices: PriceTable | None = None
    resources: Resources = Resources()
    usd_per_hour: Decimal = _ZERO
    estimated_usd: Decimal = _ZERO
    seconds: float = 0.0
    open_ended: bool = False

    @property
    def metered(self) -> bool:
        """Whether it costs anything at all."""
        return self.prices is not None and self.usd_per_hour > 0


def quote(prices: PriceTable | None, resources: Resources, seconds: float | None) -> Quote:
    """The quote for `resources` over `seconds` (None: no end). Raises Invalid for a price that is none, NotConfigured
    for a GPU that the list has no price of."""
    span = AHEAD_SECONDS if seconds is None else max(0.0, seconds)
    if prices is None:
        return Quote(resources=resources, seconds=span, open_ended=seconds is None)
    return Quote(
        prices=prices,
        resources=resources,
        usd_per_hour=hourly(prices, resources),
        estimated_usd=cost(prices, resources, span),
        seconds=span,
        open_ended=seconds is None,
    )


def hourly(prices: PriceTable | None, resources: Resources) -> Decimal:
    """US dollars for an hour, unrounded; raises as `quote` does."""
    total = _ZERO
    if prices is None:
        return total
    for price, units in _items(prices, resources):
        total = _EXACT.add(total, _EXACT.multiply(parse_price(price.usd), _billed(price, units)))
    return total


def cost(prices: PriceTable | None, resources: Resources, seconds: float) -> Decimal:
    """US dollars for `seconds`, rounded up to the micro-dollar; raises as `quote` does."""
    return cost_of_spans(prices, [(resources, seconds)])


def cost_of_spans(prices: PriceTable | None, spans: Iterable[tuple[Resources, float]]) -> Decimal:
    """The same for times, in seconds, in which different resources were billed: rounded once, at the end."""
    total = _ZERO
    for resources, seconds in spans:
        total = _EXACT.add(total, _EXACT.multiply(hourly(prices, resources), _decimal(seconds)))
    exact = _EXACT.divide(total, Decimal(3600))
    return from_micro(int(_EXACT.multiply(exact, Decimal(MICRO)).to_integral_value(ROUND_CEILING)))


def priced(prices: PriceTable, resources: Resources) -> bool:
    """Whether the list has a price for everything in `resources`."""
    try:
        hourly(prices, resources)
    except NotConfigured:
        return False
    return True


def seconds_for(prices: PriceTable, resources: Resources, usd: Decimal) -> float:
    """How many whole seconds `usd` pay for; infinite where nothing is charged."""
    rate = hourly(prices, resources)
    if rate <= 0:
        return math.inf
    return float(usd * 3600 // rate)


def metering_of(found: Quote, *, now: float) -> Metering | None:
    """What a record keeps of a quote that was reserved at `now` (unix seconds); None for a free sandbox."""
    if found.prices is None or not found.metered:
        return None
    return Metering(
        prices=found.prices,
        resources=found.resources,
        reserved_usd=usd_text(found.estimated_usd),
        funded_until=now + found.seconds if found.open_ended else None,
    )


def _items(prices: PriceTable, resources: Resources) -> Iterator[tuple[Price, float]]:
    if prices.sandbox_hour is not None:
        yield prices.sandbox_hour, 1
    for price, units in (
        (prices.vcpu_hour, resources.vcpu),
        (prices.memory_gib_hour, resources.memory_gib),
        (prices.disk_gib_hour, resources.disk_gib),
    ):
        if price is not None:
            yield price, units
    if resources.gpu is not None and resources.gpus > 0:
        yield _gpu_price(prices, resources.gpu), resources.gpus


def _gpu_price(prices: PriceTable, model: str) -> Price:
    for name, price in prices.gpu_hour.items():
        if name.casefold() == model.casefold():
            return price
    known = ", ".join(prices.gpu_hour) or "none"
    raise NotConfigured(
        f"there is no price for the GPU {model[:40]!r} (known: {known})",
        hint="set extensions.NAME.prices in config.yaml to a list that has it under gpu_hour",
    )


def _billed(price: Price, units: float) -> Decimal:
    """The units that are paid for: at least the minimum, without those that are included."""
    return max(_ZERO, _EXACT.subtract(max(_decimal(units), _decimal(price.minimum)), _decimal(price.included)))


def _decimal(number: float) -> Decimal:
    """A float as it is shown, not as it is kept: 0.1 is 0.1. What is no amount (negative, infinite) counts as 0."""
    if not math.isfinite(number) or number <= 0:
        return _ZERO
    return Decimal(repr(round(float(number), 6)))


def parse_price(text: str) -> Decimal:
    """A price of a list, in dollars: plain digits, not negative. Raises Invalid."""
    if not _PRICE.fullmatch(text):
        raise Invalid(f"{text[:40]!r} is not a price", hint='write dollars for an hour, such as "0.0504"')
    return Decimal(text)


def parse_amount(text: str, *, what: str = "amount") -> Decimal:
    """An amount that a person gives, in dollars: more than 0, at most `LARGEST_USD`, at most six decimals. Raises
    Invalid."""
    if not _AMOUNT.fullmatch(text):
        raise Invalid(
            f"{what} {text[:40]!r} is not an amount in dollars",
            hint="write it like 25 or 0.50, with at most six decimals",
        )
    found = Decimal(text)
    if not 0 < found <= LARGEST_USD:
        raise Invalid(f"{what} {text!r} is out of range", hint=f"give more than 0 and at most {LARGEST_USD}")
    return found


def to_micro(usd: Decimal) -> int:
    """Whole micro-dollars; a finer amount is rounded up."""
    return int(_EXACT.multiply(usd, Decimal(MICRO)).to_integral_value(ROUND_CEILING))


def from_micro(micro: int) -> Decimal:
    """Dollars."""
    return _EXACT.divide(Decimal(micro), Decimal(MICRO))


def usd_text(usd: Decimal) -> str:
    """`0.0504`: plain digits without an exponent or trailing zeros; `0` for nothing."""
    if not usd:
        return "0"
    text = format(usd, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def micro_text(micro: int) -> str:
    """Micro-dollars as decimal dollars."""
    return usd_text(from_micro(micro))
