"""Money: what a sandbox would cost, setting that aside, charging for it once it has ended, and paying ahead for those
without an end.

Credits are reserved before the record is written, and given back when nothing comes of it; whoever dies in between
leaves a reservation without a record. The write that ends a record carries its usage and the facts of it; then the book
is charged by that. A reservation that is still open is what is left to do: `settle_open` looks at each, so a crash
anywhere in between is mended by repeating. A free sandbox never touches the book.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from sandboxer.errors import Conflict, SandboxerError
from sandboxer.events.builder import build_usage_event
from sandboxer.extensions.base import CanMeter
from sandboxer.locks import owner_state
from sandboxer.manager.access import consumer_name
from sandboxer.manager.services import Progress, Services, no_progress
from sandboxer.manager.sweeps.report import Action, Remaining
from sandboxer.models import Consumer, Cost, Event, Grant, Manifest, Metering, PriceTable, Resources, Sandbox
from sandboxer.payments import prices
from sandboxer.payments.ledger import Reservation, TokenBudget
from sandboxer.payments.prices import AHEAD_SECONDS, Quote, from_micro, usd_text
from sandboxer.payments.usage import closed, consumer_of, fin_hub_record, usage_at
from sandboxer.state import ESTABLISHED, State
from sandboxer.timing import Deadline, rfc3339
from sandboxer.timing import now as present

ZERO_USD = Decimal(0)
LEAST_USD = Decimal("0.000001")
LEDGER_FILE = "credits.json"


# -- before it is there ------------------------------------------------------------------------------------------------


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


def token_budget(grant: Grant) -> TokenBudget | None:
    """The budget of the token that asks; None without one."""
    if grant.token is None or grant.budget is None:
        return None
    return TokenBudget(token=grant.token, usd=grant.budget)


def reserve(
    services: Services, sandbox_id: str, quote: Quote, consumer: Consumer, *, grant: Grant, replaces: str | None = None
) -> None:
    """Set aside what a sandbox will cost at most, in place of what is set aside for it now; for a free one nothing. In
    the same change the one that it `replaces` gives back what it will not be charged. Raises InsufficientCredits."""
    usd = quote.estimated_usd if quote.metered else ZERO_USD
    gives = None if replaces is None else _replaced(services, replaces, consumer)
    services.credits.reserve(
        sandbox_id, usd, consumer=consumer_name(consumer), token=token_budget(grant), lowered=gives
    )


def _replaced(services: Services, sandbox_id: str, consumer: Consumer) -> tuple[str, Decimal] | None:
    record = services.store.get(sandbox_id)
    if record is None or record.consumer != consumer:
        return None  # what another consumer has set aside is no room in this one's budget
    return sandbox_id, kept_when_replaced(services, record)


def kept_when_replaced(services: Services, record: Sandbox) -> Decimal:
    """What stays set aside for a sandbox that is to be replaced until its destroy is requested: never nothing, so that
    it can be raised again."""
    until = services.clock() + services.limits.replaced_charge
    return max(LEAST_USD, Decimal(usage_at(record, until).actual_usd))


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


# -- the end of a sandbox ---------------------------------------------------------------------------------------------


def latest_metering(services: Services, record: Sandbox, deadline: Deadline) -> Metering | None:
    """The metering by what the backend shows now, while it still shows it. What goes wrong only means that the estimate
    stays."""
    if record.metering is None or record.handle is None:
        return record.metering
    try:
        extension = services.extension(record)
        if not isinstance(extension, CanMeter):
            return record.metering
        context = services.context(record, deadline.shorter(services.limits.meter))
        return with_measured_resources(record.metering, extension.meter_actual(record.handle, context))
    except Exception:  # noqa: BLE001 - a look at the meter, of whatever quality, must not keep a sandbox alive
        return record.metering


def with_usage(record: Sandbox, *, at: float, metering: Metering | None) -> Sandbox:
    """The record of a destroyed sandbox with its usage, and the further event counted that tells of it."""
    after = closed(msgspec.structs.replace(record, metering=metering), at=at)
    return after if metering is None else msgspec.structs.replace(after, seq=after.seq + 1)


def usage_events(services: Services, before: Sandbox, after: Sandbox) -> Sequence[Event]:
    """The facts of a metered usage, ahead of the one that ends the record: for the State Hub, and for fin-hub where
    there is one."""
    if after.metering is None or after.usage is None:
        return ()
    body = msgspec.to_builtins(fin_hub_record(after))
    detail = {**body, "overrun_usd": after.usage.overrun_usd, "seq": after.seq - 1}
    for_hub = services.event(before, after, "usage.metered", detail=detail)
    if not services.settings.fin_hub.url:
        return (for_hub,)
    return (for_hub, build_usage_event(for_hub, body))


def settle(services: Services, record: Sandbox, progress: Progress = no_progress) -> None:
    """Charge the book for a record that carries its usage. When the book cannot be written now, the reservation stays
    open, and the next `expire` or `reconcile` does it: the sandbox is gone all the same."""
    if record.metering is None or record.usage is None:
        return
    try:
        _charge(services, record)
    except SandboxerError as error:
        progress("destroy", f"its charge waits for the next `sandboxer expire --apply`: {error.message}")


def _charge(services: Services, record: Sandbox) -> None:
    used = usage_at(record, services.clock())
    services.credits.settle(
        record.id, Decimal(used.actual_usd), usage_id=used.usage_id, overrun=Decimal(used.overrun_usd)
    )


# -- what is left to do -----------------------------------------------------------------------------------------------


def settle_open(services: Services, *, grace: float, apply: bool = True) -> tuple[list[Action], list[Remaining]]:
    """Settle the reservations of sandboxes that ended, and give back those of sandboxes that never came to be: no
    record, and whoever reserved is dead or had `grace` seconds for it. Without `apply` only what would be done. A book
    that cannot be used remains."""
    try:
        actions = [
            action for one in services.credits.open() if (action := _unsettled(services, one, grace)) is not None
        ]
    except SandboxerError as error:
        return [], [Remaining(why=error.message, host=None, extension=LEDGER_FILE, error=error.document())]
    return ([_settle_one(services, action, grace) for action in actions] if apply else actions), []


def _unsettled(services: Services, reservation: Reservation, grace: float) -> Action | None:
    record = services.store.get(reservation.sandbox_id)

    def action(why: str) -> Action:
        return Action(
            sandbox_id=reservation.sandbox_id,
            action="settle",
            why=why,
            host=record.host if record is not None else None,
            extension=record.extension if record is not None else LEDGER_FILE,
        )

    if record is None:
        dead = reservation.owner is not None and owner_state(reservation.owner) == "dead"
        if not dead and services.clock() - reservation.since <= grace:
            return None
        return action("its sandbox never came to be")
    if record.state == State.DESTROYED:
        return action("its sandbox has ended, and is not in the book")
    if record.state == State.FAILED and record.clean:
        return action("its sandbox failed, and nothing is left of it")
    if record.metering is None and record.state in ESTABLISHED:
        return action("its sandbox turned out to be free")
    if record.state in ESTABLISHED and record.metering is not None and _is_short(services, record, reservation):
        return action("less is set aside than it may cost, as one was to take its place")
    return None


def _is_short(services: Services, record: Sandbox, reservation: Reservation) -> bool:
    """Whether less is set aside than was agreed, and the rest can be had: a `recreate` that died had lowered it."""
    assert record.metering is not None  # noqa: S101 - asked of metered ones only
    lacking = Decimal(record.metering.reserved_usd) - from_micro(reservation.micro_usd)
    if lacking <= 0:
        return False
    return services.credits.covers(lacking, consumer=consumer_of(record), token=reservation.token) is None


def _settle_one(services: Services, action: Action, grace: float) -> Action:
    assert action.sandbox_id is not None  # noqa: S101 - a reservation is always for one
    lock = services.locks.try_acquire(action.sandbox_id)
    if lock is None:
        return msgspec.structs.replace(action, outcome="skipped", why="another command is working on it")
    with lock:
        try:
            # Looked at again under the lock: its owner may have settled it, or made its record, meanwhile.
            again = [one for one in services.credits.open() if one.sandbox_id == action.sandbox_id]
            if not again or _unsettled(services, again[0], grace) is None:
                return msgspec.structs.replace(action, outcome="skipped", why="settled meanwhile")
            record = services.store.get(action.sandbox_id)
            if record is None or record.metering is None:
                services.credits.release(action.sandbox_id)
            elif record.state in ESTABLISHED:
                raise_reservation(services, record, record.metering)
            else:
                _charge(services, record)
        except SandboxerError as error:
            return msgspec.structs.replace(action, outcome="failed", error=error.document())
    return msgspec.structs.replace(action, outcome="done")


# -- paying ahead -----------------------------------------------------------------------------------------------------


def funding_due(services: Services, record: Sandbox) -> Metering | str | None:
    """What is to be done about a sandbox without an end: the metering that pays for it further ahead; why there is no
    money for any more of it, once what was paid for is over; or None, nothing now. Raises what the book raises."""
    metering = record.metering
    if metering is None or metering.funded_until is None or record.expires_at is not None:
        return None
    if record.state not in ESTABLISHED or metering.funded_until - services.clock() > AHEAD_SECONDS / 2:
        return None
    consumer = consumer_of(record)
    wanted = paid_until(record, metering, services.clock() + AHEAD_SECONDS)
    more = Decimal(wanted.reserved_usd) - Decimal(metering.reserved_usd)
    token = services.credits.token_of(record.id)
    why = services.credits.covers(more, consumer=consumer, token=token)
    if why is None:
        return wanted
    total = services.credits.spare(consumer, token=token) + Decimal(metering.reserved_usd)
    until = record.created_at + prices.seconds_for(metering.prices, metering.resources, total)
    if until - metering.funded_until >= services.limits.min_funded and until > services.clock():
        return paid_until(record, metering, until)
    if metering.funded_until > services.clock():
        return None
    return f"what was paid for was over at {rfc3339(metering.funded_until)}: {why}"


def paid_until(record: Sandbox, metering: Metering, until: float) -> Metering:
    """`metering` with what a life up to `until` (unix seconds) costs."""
    usd = prices.cost(metering.prices, metering.resources, until - record.created_at)
    funded = None if metering.funded_until is None else until
    return msgspec.structs.replace(metering, reserved_usd=usd_text(usd), funded_until=funded)


def pay_ahead(services: Services, record: Sandbox, metering: Metering) -> None:
    """Reserve by `metering`, then keep it in the record; the caller holds the sandbox's lock. A crash between the two
    leaves more reserved than recorded, which the next time and the end both put right."""
    raise_reservation(services, record, metering)

    def edit(now: Sandbox) -> Sandbox:
        if now.state not in ESTABLISHED:
            raise Conflict(f"sandbox {now.id} is {now.state}", hint=f"run `sandboxer get {now.id}`")
        estimate = msgspec.structs.replace(now.cost, estimated_usd=metering.reserved_usd)
        return msgspec.structs.replace(now, metering=metering, cost=estimate)

    services.edit(record.id, edit)


def raise_reservation(services: Services, record: Sandbox, metering: Metering) -> None:
    """Reserve by `metering`; raises InsufficientCredits, or Conflict when it was settled."""
    services.credits.reserve(record.id, Decimal(metering.reserved_usd), consumer=consumer_of(record), only_open=True)


def restore_reservation(services: Services, sandbox_id: str) -> None:
    """After a change that came to nothing: reserve again what the record says, or settle it when it ended meanwhile.
    Fails silently: what stays reserved too much is given back at the end."""
    try:
        record = services.store.get(sandbox_id)
        if record is None or record.metering is None:
            return
        if record.usage is not None:
            _charge(services, record)
        else:
            raise_reservation(services, record, record.metering)
    except SandboxerError:
        return
