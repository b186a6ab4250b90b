"""What a sandbox was used for and what it came to, from its record alone. Pure, so that asking twice answers the same.

Charged is the time from `ready` to the wish that it should go, or to the agreed end if that came first; at most what is
reserved for it. While the backend was seen to bill for less, as for one that is stopped, that alone is charged. What it
ran besides, up to its verified absence, is overrun: told, and charged to nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Final, Literal

import msgspec

from sandboxer.models import PricingModel, ReducedBilling, Resources, Sandbox, Usage, Value
from sandboxer.payments.prices import cost_of_spans, usd_text
from sandboxer.timing import rfc3339

PREFIX: Final = "use-"
MOST_SPANS: Final = 64
"""So many times of reduced billing are kept apart in a record."""


class UsageItem(Value, frozen=True, kw_only=True):
    """One sandbox's usage as the outside sees it. `ended_at` null: it lives, and `actual_usd` is what has accrued so
    far. `duration_s` is the time that is charged for, in seconds; money is in US dollars."""

    usage_id: str
    sandbox_id: str
    extension_id: str
    profile: str
    consumer: str
    state: str
    started_at: str
    ended_at: str | None
    duration_s: float
    pricing_model: PricingModel
    estimated_usd: str
    actual_usd: str
    overrun_usd: str
    currency: Literal["USD"] = "USD"


class FinHubRecord(Value, frozen=True, kw_only=True):
    """What fin-hub gets of a metered sandbox that was destroyed (contract §7)."""

    usage_id: str
    sandbox_id: str
    extension_id: str
    profile: str
    consumer: str
    started_at: str
    ended_at: str
    duration_s: float
    actual_usd: str
    currency: Literal["USD"] = "USD"


def usage_id(sandbox_id: str) -> str:
    """The id of a sandbox's usage: one sandbox has one, so whoever makes it again makes the same."""
    return PREFIX + sandbox_id


def span(record: Sandbox, until: float) -> tuple[float, float]:
    """From when to when a sandbox is charged for, as of `until` (unix seconds). One that never was ready is charged for
    nothing."""
    if record.ready_at is None:
        return record.created_at, record.created_at
    ends = [t for t in (until, record.wished_at, record.expires_at) if t is not None]
    return record.ready_at, max(record.ready_at, min(ends))


def billed_spans(
    record: Sandbox, allotment: Resources, started: float, ended: float
) -> Iterator[tuple[Resources, float]]:
    """What was billed between two times, and for how many seconds each: the allotment, but for `reduced_billing`."""
    at = started
    for one in record.reduced_billing:
        since, until = max(one.since, at), ended if one.until is None else min(one.until, ended)
        if until <= since:
            continue
        yield allotment, since - at
        yield one.billed, until - since
        at = until
    yield allotment, ended - at


def with_billed(record: Sandbox, billed: Resources | None, *, at: float) -> Sandbox:
    """The record of a sandbox for which `billed` (None: the allotment) is billed from `at` on, in unix seconds."""
    spans = list(record.reduced_billing)
    present = spans[-1] if spans and spans[-1].until is None else None
    if billed == (None if present is None else present.billed):
        return record
    if present is not None:
        spans[-1] = msgspec.structs.replace(present, until=max(at, present.since))
    if len(spans) > MOST_SPANS:
        spans = _joined(spans)
    if billed is not None:
        spans.append(ReducedBilling(since=at, until=None, billed=billed))
    return msgspec.structs.replace(record, reduced_billing=spans)


def _joined(spans: Sequence[ReducedBilling]) -> list[ReducedBilling]:
    """As much time for each that was billed, in one piece each; all of it has passed, so that no more is changed."""
    seconds: dict[Resources, float] = {}
    for one in spans:
        seconds[one.billed] = seconds.get(one.billed, 0.0) + ((one.until or one.since) - one.since)
    joined: list[ReducedBilling] = []
    at = spans[0].since
    for billed, length in seconds.items():
        joined.append(ReducedBilling(since=at, until=at + length, billed=billed))
        at += length
    return joined


def usage_at(record: Sandbox, until: float) -> Usage:
    """The usage as of `until`: when its absence was verified, or now for one that lives. What is recorded stays."""
    if record.usage is not None:
        return record.usage
    started, ended = span(record, until)
    charged = overrun = Decimal(0)
    metering = record.metering
    if metering is not None:
        full = cost_of_spans(metering.prices, billed_spans(record, metering.resources, started, ended))
        charged = min(full, Decimal(metering.reserved_usd))
        ran = billed_spans(record, metering.resources, *_ran(record, until))
        overrun = max(Decimal(0), cost_of_spans(metering.prices, ran) - charged)
    return Usage(
        usage_id=usage_id(record.id),
        started_at=started,
        ended_at=ended,
        actual_usd=usd_text(charged),
        overrun_usd=usd_text(overrun),
    )


def closed(record: Sandbox, *, at: float) -> Sandbox:
    """The record of a sandbox whose absence was verified at `at`, with its usage and what it cost."""
    used = usage_at(record, at)
    paid = msgspec.structs.replace(record.cost, actual_usd=used.actual_usd)
    return msgspec.structs.replace(record, usage=used, cost=paid)


def usage_item(record: Sandbox, *, now: float) -> UsageItem:
    """The usage of a record as the outside sees it."""
    used = usage_at(record, now)
    over = record.usage is not None or record.wished_at is not None
    return UsageItem(
        usage_id=used.usage_id,
        sandbox_id=record.id,
        extension_id=record.extension,
        profile=record.profile,
        consumer=consumer_of(record),
        state=record.state,
        started_at=str(rfc3339(used.started_at)),
        ended_at=rfc3339(used.ended_at) if over else None,
        duration_s=_seconds(used),
        pricing_model="free" if record.metering is None else "metered",
        estimated_usd=record.cost.estimated_usd,
        actual_usd=used.actual_usd,
        overrun_usd=used.overrun_usd,
    )


def fin_hub_record(record: Sandbox) -> FinHubRecord:
    """What fin-hub gets of a record that carries its usage."""
    used = usage_at(record, record.destroyed_at or record.created_at)
    return FinHubRecord(
        usage_id=used.usage_id,
        sandbox_id=record.id,
        extension_id=record.extension,
        profile=record.profile,
        consumer=consumer_of(record),
        started_at=str(rfc3339(used.started_at)),
        ended_at=str(rfc3339(used.ended_at)),
        duration_s=_seconds(used),
        actual_usd=used.actual_usd,
    )


def within(records: Iterable[Sandbox], *, since: float | None, until: float | None, now: float) -> Iterator[Sandbox]:
    """The records whose usage touches the time from `since` to `until` (unix seconds; None: no bound)."""
    return (record for record in records if touches(usage_at(record, now), since=since, until=until))


def touches(used: Usage, *, since: float | None, until: float | None) -> bool:
    """Whether it was used between `since` and `until` (unix seconds; None: no bound)."""
    return (since is None or used.ended_at >= since) and (until is None or used.started_at < until)


def consumer_of(record: Sandbox) -> str:
    """Its consumer as budgets and the book name it, such as `agt:builder`."""
    return f"{record.consumer.actor}:{record.consumer.name}"


def _ran(record: Sandbox, until: float) -> tuple[float, float]:
    """From when to when the backend may have run it: from ready, or from the start when it never got there."""
    if record.ready_at is not None:
        return record.ready_at, until
    return record.created_at, until if record.handle is not None else record.created_at


def _seconds(used: Usage) -> float:
    return round(used.ended_at - used.started_at, 3)
