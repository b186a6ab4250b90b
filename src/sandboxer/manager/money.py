"""Money before a sandbox is there: what it would cost, and setting that aside. What it came to is `charges`' matter.

Credits are reserved before the record is written, and given back when nothing comes of it; whoever dies in between
leaves a reservation without a record, which `charges.settle_open` gives back. A free sandbox never touches the book.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from sandboxer.extensions.base import CanMeter
from sandboxer.manager.services import Services
from sandboxer.models import Consumer, Cost, Grant, Manifest, Metering, PriceTable, Resources
from sandboxer.payments import prices
from sandboxer.payments.ledger import TokenBudget
from sandboxer.payments.prices import Quote, usd_text
from sandboxer.timing import now as present

ZERO_USD = Decimal(0)


def quote_for(services: Services, manifest: Manifest, *, host: str | None, options: Any, ttl: float | None) -> Quote:
    """What a sandbox of an extension with these options would cost for `ttl` seconds (None: without an end). Pure
    lookups.

    `options` are the extension's own model, or plain values for it. A self-hosted one is metered at the host's prices,
    else at the extension's, else it is free. Raises Invalid for a price that is none, NotConfigured for a GPU that has
    no price."""
    table = prices_of(services, manifest, host)
    if table is None:
        return prices.quote(None, Resources(), ttl)
    extension = services.extensions.get(manifest.id)
    if not isinstance(extension, CanMeter):
        return prices.quote(table, Resources(), ttl)
    if isinstance(options, Mapping):
        options = msgspec.convert(dict(options), extension.Options)
    return prices.quote(table, extension.estimate_cost(options), ttl)


def prices_of(services: Services, manifest: Manifest, host: str | None) -> PriceTable | None:
    """The price list that holds for an extension on a host; None: free."""
    if manifest.self_hosted and host is not None:
        settings = services.settings.hosts.get(host)
        if settings is not None and settings.prices is not None:
            return settings.prices
    return manifest.prices


def consumer_text(consumer: Consumer) -> str:
    """A consumer as budgets and the book name it, such as `agt:builder`."""
    return f"{consumer.actor}:{consumer.name}"


def token_budget(grant: Grant) -> TokenBudget | None:
    """The budget of the token that asks; None without one."""
    if grant.token is None or grant.budget is None:
        return None
    return TokenBudget(token=grant.token, usd=grant.budget)


def reserve(services: Services, sandbox_id: str, quote: Quote, consumer: Consumer, *, grant: Grant) -> None:
    """Set aside what a sandbox will cost at most, in place of what is set aside for it now; for a free one nothing.
    Raises InsufficientCredits."""
    usd = quote.estimated_usd if quote.metered else ZERO_USD
    services.credits.reserve(sandbox_id, usd, consumer=consumer_text(consumer), token=token_budget(grant))


def release(services: Services, sandbox_id: str) -> None:
    """Give back what is set aside for a sandbox that never came to be."""
    services.credits.release(sandbox_id)


def metering_of(quote: Quote, *, now: float | None = None) -> Metering | None:
    """What a record keeps of a quote that was reserved at `now` (unix seconds; None: the present); None for a free
    sandbox."""
    return prices.metering_of(quote, now=present() if now is None else now)


def cost_of(quote: Quote) -> Cost:
    """The estimate, as the sandbox document shows it."""
    return Cost(pricing_model="metered" if quote.metered else "free", estimated_usd=usd_text(quote.estimated_usd))


def with_measured_resources(metering: Metering | None, resources: Resources | None) -> Metering | None:
    """`metering` by what the backend shows (`Ready.resources`), where it does and the price list knows it."""
    if metering is None or resources is None or not prices.priced(metering.prices, resources):
        return metering
    return msgspec.structs.replace(metering, resources=resources, estimated=False)
