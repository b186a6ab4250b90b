"""Usage for spreadsheets and for FinOps tools: CSV, and CSV with the columns of FOCUS 1.2. Pure.

A cell that a spreadsheet would take for a formula gets an apostrophe in front (docs/payments.md).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from sandboxer.models import Sandbox
from sandboxer.payments.usage import UsageItem, consumer_of, usage_at, usage_item

COLUMNS: Final = UsageItem.__struct_fields__
"""The columns of the plain CSV."""

FOCUS_VERSION: Final = "1.2"
FOCUS_COLUMNS: Final = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType", "BillingCurrency",
    "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency",
    "ChargePeriodEnd", "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "EffectiveCost",
    "InvoiceId", "InvoiceIssuerName", "ListCost", "PricingCategory", "PricingQuantity", "PricingUnit", "ProviderName",
    "PublisherName", "RegionId", "RegionName", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory",
    "ServiceName", "ServiceSubcategory", "SkuId", "SkuPriceId", "SubAccountId", "SubAccountName", "SubAccountType",
    "Tags", "x_EstimatedCost", "x_Host", "x_OverrunCost", "x_PricesAsOf", "x_Profile", "x_UsageId",
)  # fmt: skip
"""The columns of the FOCUS export, in the order of the specification; ours start with `x_`."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_SUBCATEGORY: Final = {"vm": "Virtual Machines", "microvm": "Virtual Machines", "container": "Containers"}
_OURS: Final = "sandboxer"
_HOURS: Final = "Hours"


def to_csv(records: Iterable[Sandbox], *, now: float) -> str:
    """The usage of these records, one a line, living ones with what has accrued."""
    rows = [msgspec.to_builtins(usage_item(record, now=now)) for record in records]
    return _table(COLUMNS, rows)


def to_focus(records: Iterable[Sandbox], *, install: str) -> str:
    """The settled usage of these records as FOCUS rows: one charge each, in the billing period (calendar month, UTC) in
    which it ended. `install` is the billing account. A sandbox that lives has no row yet; one that never was ready was
    not used, and has none (a consumed quantity has to be above zero)."""
    settled = [record for record in records if record.usage is not None]
    return _table(FOCUS_COLUMNS, [_focus(record, install) for record in settled if _hours(record) != "0"])


def _hours(record: Sandbox) -> str:
    used = usage_at(record, record.created_at)
    return _decimal(round((used.ended_at - used.started_at) / 3600, 9))


def _focus(record: Sandbox, install: str) -> Mapping[str, str]:
    used = usage_at(record, record.created_at)
    hours = _hours(record)
    consumer = consumer_of(record)
    began, over = _month(used.ended_at)
    cost = used.actual_usd
    kind = record.isolation.class_ if record.isolation is not None else "none"
    return {
        "BilledCost": cost,
        "BillingAccountId": install,
        "BillingAccountName": _OURS,
        "BillingAccountType": "Installation",
        "BillingCurrency": "USD",
        "BillingPeriodStart": began,
        "BillingPeriodEnd": over,
        "ChargeCategory": "Usage",
        "ChargeDescription": f"sandbox {record.id} ({record.profile}) on {record.host or record.extension}",
        "ChargeFrequency": "Usage-Based",
        # whole seconds; the end is exclusive, so it is the second after
        "ChargePeriodStart": _instant(math.floor(used.started_at)),
        "ChargePeriodEnd": _instant(max(math.ceil(used.ended_at), math.floor(used.started_at) + 1)),
        "ConsumedQuantity": hours,
        "ConsumedUnit": _HOURS,
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceIssuerName": _OURS,
        "ListCost": cost,
        "PricingCategory": "Standard",
        "PricingQuantity": hours,
        "PricingUnit": _HOURS,
        "ProviderName": record.extension,
        "PublisherName": record.extension,
        "RegionId": record.host or "",
        "RegionName": record.host or "",
        "ResourceId": record.id,
        "ResourceName": record.name or "",
        "ResourceType": "Sandbox",
        "ServiceCategory": "Compute",
        "ServiceName": record.extension,
        "ServiceSubcategory": _SUBCATEGORY.get(kind, "Other (Compute)"),
        "SkuId": record.extension,
        # the same at every time and for every account, so neither its date nor whose list it is of
        "SkuPriceId": record.extension,
        "SubAccountId": consumer,
        "SubAccountName": consumer,
        "SubAccountType": "Consumer",
        "Tags": json.dumps(record.labels, ensure_ascii=False, sort_keys=True) if record.labels else "",
        "x_EstimatedCost": record.cost.estimated_usd,
        "x_Host": record.host or "",
        "x_OverrunCost": used.overrun_usd,
        "x_PricesAsOf": record.metering.prices.as_of if record.metering is not None else "",
        "x_Profile": f"{record.profile}@{record.profile_version}",
        "x_UsageId": used.usage_id,
    }


def _table(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """CSV (RFC 4180) with a heading; what a row lacks is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    return text.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float):
        return _decimal(value)
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _decimal(number: float) -> str:
    """A number without an exponent."""
    text = f"{number:.9f}".rstrip("0").rstrip(".")
    return text or "0"


def _instant(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _month(instant: float) -> tuple[str, str]:
    """The first instants of the month (UTC) of `instant` and of the next."""
    first = datetime.fromtimestamp(instant, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return _instant(first.timestamp()), _instant(after.timestamp())
