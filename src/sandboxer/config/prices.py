"""What types alone cannot say of amounts and price tables, wherever a person writes them."""

from __future__ import annotations

import math
import re
from datetime import date
from typing import Final

from sandboxer.errors import Invalid
from sandboxer.models import Price, PriceTable

AMOUNT: Final = re.compile(r"\d{1,9}(\.\d{1,12})?", re.ASCII)
"""An amount of US dollars: digits, with a point; no sign, no exponent."""


def check_amount(text: str, source: str, key: str) -> None:
    """An amount of money as a person writes it. Raises Invalid."""
    if not AMOUNT.fullmatch(text):
        raise Invalid(
            f"{source}: {key} {text[:40]!r} is not an amount of US dollars", hint=f'write {key}: "12.50", in quotes'
        )


def check_prices(table: PriceTable | None, source: str, key: str) -> None:
    """A price table: its date, its source, and each price. None is right. Raises Invalid."""
    if table is None:
        return
    try:
        date.fromisoformat(table.as_of)
    except ValueError:
        raise Invalid(
            f"{source}: {key}.as_of {table.as_of[:40]!r} is not a date", hint="write it like 2026-11-21"
        ) from None
    if not table.source.strip():
        raise Invalid(f"{source}: {key}.source is empty", hint="say where the prices are from")
    listed = {
        "sandbox_hour": table.sandbox_hour,
        "vcpu_hour": table.vcpu_hour,
        "memory_gib_hour": table.memory_gib_hour,
        "disk_gib_hour": table.disk_gib_hour,
        **{f"gpu_hour.{model}": price for model, price in table.gpu_hour.items()},
    }
    for name, price in listed.items():
        if price is not None:
            _check_price(price, source, f"{key}.{name}")


def _check_price(price: Price, source: str, key: str) -> None:
    check_amount(price.usd, source, f"{key}.usd")
    for name, units in (("included", price.included), ("minimum", price.minimum)):
        if not (math.isfinite(units) and units >= 0):
            raise Invalid(f"{source}: {key}.{name} is not a number of units", hint="give 0 or more")
