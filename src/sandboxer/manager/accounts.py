"""The credits and the usage, for whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from sandboxer.errors import Invalid
from sandboxer.manager.services import Progress, Services, no_progress
from sandboxer.models import Sandbox
from sandboxer.names import check_key, parse_actor
from sandboxer.payments.credits import Balance
from sandboxer.payments.prices import parse_amount
from sandboxer.payments.usage import UsageItem, usage_item, within
from sandboxer.state import State
from sandboxer.timing import parse_duration, rfc3339

Table = Literal["csv", "focus"]


def add_credits(
    services: Services,
    amount: str,
    *,
    actor: str | None,
    note: str | None,
    idempotency_key: str | None = None,
    progress: Progress = no_progress,
) -> Balance:
    """Add credits; raises Invalid for what is no amount, and Conflict for a key that was used for another one. For a
    key that was used before nothing is added, and `progress` says so."""
    usd = parse_amount(amount)
    who = actor or services.settings.defaults.actor
    if who is not None:
        parse_actor(who)
    earlier = None if idempotency_key is None else services.credits.added_at(check_key(idempotency_key))
    balance = services.credits.add(usd, note=note, actor=who, key=idempotency_key)
    if earlier is not None:
        progress("credits", f"nothing was added: the idempotency key was used at {rfc3339(earlier)}")
    return balance


def unsettled(services: Services) -> Sequence[str]:
    """The sandboxes that ended while something is still set aside for them. Raises what the book raises."""
    found = []
    for held in services.credits.open():
        record = services.store.get(held.sandbox_id)
        if record is not None and (record.usage is not None or record.state == State.DESTROYED):
            found.append(held.sandbox_id)
    return found


def usage(services: Services, *, since: str | None = None, until: str | None = None) -> Sequence[UsageItem]:
    """What sandboxes were used for, oldest first, living ones with what has accrued. Raises Invalid."""
    now = services.clock()
    return [usage_item(record, now=now) for record in _records(services, since, until, now)]


def usage_table(services: Services, kind: Table, *, since: str | None = None, until: str | None = None) -> str:
    """The same as CSV, or (settled usage only) with the columns of FOCUS."""
    from sandboxer.payments.export import to_csv, to_focus  # csv and what it needs: only an export pays for it

    now = services.clock()
    records = _records(services, since, until, now)
    return to_csv(records, now=now) if kind == "csv" else to_focus(records, install=services.store.install_id)


def _records(services: Services, since: str | None, until: str | None, now: float) -> list[Sandbox]:
    start = None if since is None else instant(since, now=now, what="since")
    end = None if until is None else instant(until, now=now, what="until")
    return list(within(services.store.list(ended=True), since=start, until=end, now=now))


def instant(text: str, *, now: float, what: str) -> float:
    """Unix seconds of a time (`2027-01-15T08:00:00Z`), a day (`2027-01-15`, its first second in UTC), or a duration
    before `now` (`7d`). Raises Invalid."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        try:
            return now - parse_duration(text)
        except Invalid:
            raise Invalid(
                f"{what} {text[:80]!r} is not a time",
                hint="write it like 2027-01-15, 2027-01-15T08:00:00Z, or 7d for seven days ago",
            ) from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
