"""The book: double entry over whole micro-dollars. Pure: every function takes a book and gives the one after it.

Four accounts: `granted` (where credits come from, so it is never positive), `available`, `reserved`, `spent`. Each
entry moves money between them, its postings sum to zero, and what is available is never below zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Final, Literal

import msgspec

from sandboxer.errors import Conflict, InsufficientCredits, Internal
from sandboxer.models import Budget, Owner, Value
from sandboxer.payments.prices import micro_text, parse_price, to_micro
from sandboxer.timing import rfc3339

Account = Literal["granted", "available", "reserved", "spent"]
Kind = Literal["add", "reserve", "settle", "release"]

KEPT: Final = 1000
"""How many entries stay in the book, the newest."""
SPARE: Final = 250
"""How many more may gather before the oldest move to the archive together."""
ADD_HINT: Final = "see `sandboxer credits show`; then `sandboxer credits add AMOUNT`, or destroy what is not needed"
ANYBODY: Final = "*"


class Posting(Value, frozen=True, kw_only=True):
    """One side of an entry."""

    account: Account
    micro_usd: int


class LedgerEntry(Value, frozen=True, kw_only=True, omit_defaults=True):
    """One move of money. `at` is in unix seconds; `overrun_micro_usd` is told, and charged to nobody."""

    seq: int
    at: float
    kind: Kind
    postings: tuple[Posting, ...]
    sandbox_id: str | None = None
    consumer: str | None = None
    usage_id: str | None = None
    overrun_micro_usd: int = 0
    actor: str | None = None
    note: str | None = None


class TokenBudget(Value, frozen=True, kw_only=True):
    """What may be spent and held reserved by a token of the HTTP API in all, in US dollars."""

    token: str
    usd: str


class Reservation(Value, frozen=True, kw_only=True, omit_defaults=True):
    """What is set aside for one sandbox. `since` is in unix seconds; `owner` the process that did it; `token` the
    budget that it counts in besides the consumer's."""

    sandbox_id: str
    consumer: str
    micro_usd: int
    since: float
    owner: Owner | None = None
    token: TokenBudget | None = None


class Accounts(Value, frozen=True, kw_only=True):
    """What each account holds."""

    granted: int = 0
    available: int = 0
    reserved: int = 0
    spent: int = 0

    def after(self, postings: Sequence[Posting]) -> Accounts:
        """With these postings applied."""
        found = {"granted": self.granted, "available": self.available, "reserved": self.reserved, "spent": self.spent}
        for posting in postings:
            found[posting.account] += posting.micro_usd
        return Accounts(**found)


class KeyedCredit(Value, frozen=True, kw_only=True):
    """What was added under an idempotency key, and when (unix seconds)."""

    micro_usd: int
    at: float


class Book(Value, frozen=True, kw_only=True):
    """All of it. `carried` is how the accounts stood before the first entry that is still here; `spent_by` what each
    consumer was charged in each month (UTC, `2027-01`), `spent_by_token` what of it was asked for with tokens that have
    a budget; `keys` outlive the entries that were made under them."""

    seq: int = 0
    accounts: Accounts = Accounts()
    carried: Accounts = Accounts()
    reservations: Mapping[str, Reservation] = {}
    spent_by: Mapping[str, Mapping[str, int]] = {}
    entries: tuple[LedgerEntry, ...] = ()
    keys: Mapping[str, KeyedCredit] = {}
    spent_by_token: Mapping[str, int] = {}


EMPTY: Final = Book()


def add(
    book: Book, micro: int, *, at: float, actor: str | None = None, note: str | None = None, key: str | None = None
) -> Book:
    """Credits that were bought or granted; once under one `key`. Raises Conflict when that was used for another
    amount."""
    if micro <= 0:
        raise Internal("only more than nothing can be added")
    earlier = None if key is None else book.keys.get(key)
    if earlier is not None and earlier.micro_usd != micro:
        raise Conflict(
            f"the idempotency key was used for another amount: {micro_text(earlier.micro_usd)} USD, "
            f"added at {rfc3339(earlier.at)}",
            hint="use a new key to add something else",
        )
    if earlier is not None:
        return book
    after = _entered(book, "add", at=at, move=("granted", "available", micro), actor=actor, note=note)
    if key is None:
        return after
    return msgspec.structs.replace(after, keys={**book.keys, key: KeyedCredit(micro_usd=micro, at=at)})


def reserve(
    book: Book,
    sandbox_id: str,
    micro: int,
    *,
    consumer: str,
    at: float,
    budget: Budget | None,
    only_open: bool = False,
    owner: Owner | None = None,
    token: TokenBudget | None = None,
) -> Book:
    """Set `micro` aside for a sandbox, in place of what is set aside for it now; 0 releases.

    What was set aside with a token's budget stays in that, whoever raises it. Raises InsufficientCredits when the
    credits, the consumer's budget or the token's do not cover it, Conflict when the sandbox was
    settled already, or (`only_open`) has no reservation."""
    now = book.reservations.get(sandbox_id)
    if now is None and (only_open or _settled(book, sandbox_id)):
        raise Conflict(f"sandbox {sandbox_id} has been settled", hint=f"run `sandboxer get {sandbox_id}`")
    if micro <= 0:
        return release(book, sandbox_id, at=at)
    more = micro - (now.micro_usd if now else 0)
    token = now.token if now else token
    if more == 0:
        return book
    if more > 0 and (why := shortfall(book, more, consumer=consumer, at=at, budget=budget, token=token)) is not None:
        raise InsufficientCredits(why, hint=ADD_HINT, sandbox_id=sandbox_id)
    kept = Reservation(
        sandbox_id=sandbox_id,
        consumer=now.consumer if now else consumer,
        micro_usd=micro,
        since=now.since if now else at,
        owner=owner,
        token=token,
    )
    return msgspec.structs.replace(
        _entered(
            book, "reserve", at=at, move=("available", "reserved", more), sandbox_id=sandbox_id, consumer=kept.consumer
        ),
        reservations={**book.reservations, sandbox_id: kept},
    )


def lower(book: Book, sandbox_id: str, micro: int, *, at: float) -> Book:
    """Leave no more than `micro`, which is more than nothing, set aside for a sandbox."""
    now = book.reservations.get(sandbox_id)
    if now is None or now.micro_usd <= micro:
        return book
    return reserve(book, sandbox_id, micro, consumer=now.consumer, at=at, budget=None, owner=now.owner)


def _settled(book: Book, sandbox_id: str) -> bool:
    # Nearly always asked for a new sandbox, of which nothing is there: the quickest look comes first.
    if sandbox_id not in map(attrgetter("sandbox_id"), book.entries):
        return False
    return any(entry.kind == "settle" and entry.sandbox_id == sandbox_id for entry in book.entries)


def settle(book: Book, sandbox_id: str, micro: int, *, usage_id: str, overrun: int, at: float) -> Book:
    """Charge a sandbox, and give back what was set aside beyond that. At most what was set aside is charged; the rest
    is overrun. Without an open reservation nothing happens; for a usage that was charged already it is only closed."""
    held = book.reservations.get(sandbox_id)
    if held is None:
        return book
    if any(entry.usage_id == usage_id for entry in book.entries):
        return release(book, sandbox_id, at=at)
    charged = max(0, min(micro, held.micro_usd))
    postings = (
        Posting(account="reserved", micro_usd=-held.micro_usd),
        Posting(account="spent", micro_usd=charged),
        Posting(account="available", micro_usd=held.micro_usd - charged),
    )
    entry = LedgerEntry(
        seq=book.seq + 1,
        at=at,
        kind="settle",
        postings=tuple(posting for posting in postings if posting.micro_usd),
        sandbox_id=sandbox_id,
        consumer=held.consumer,
        usage_id=usage_id,
        overrun_micro_usd=max(0, overrun) + max(0, micro - charged),
    )
    months = dict(book.spent_by.get(held.consumer, {}))
    months[month_of(at)] = months.get(month_of(at), 0) + charged
    return msgspec.structs.replace(
        _with(book, entry),
        reservations=_without(book.reservations, sandbox_id),
        spent_by={**book.spent_by, held.consumer: months} if charged else book.spent_by,
        spent_by_token=_with_token(book, held, charged),
    )


def release(book: Book, sandbox_id: str, *, at: float) -> Book:
    """Give back all that is set aside for a sandbox."""
    held = book.reservations.get(sandbox_id)
    if held is None:
        return book
    return msgspec.structs.replace(
        _entered(
            book,
            "release",
            at=at,
            move=("reserved", "available", held.micro_usd),
            sandbox_id=sandbox_id,
            consumer=held.consumer,
        ),
        reservations=_without(book.reservations, sandbox_id),
    )


def _with_token(book: Book, held: Reservation, charged: int) -> Mapping[str, int]:
    if held.token is None or not charged:
        return book.spent_by_token
    name = held.token.token
    return {**book.spent_by_token, name: book.spent_by_token.get(name, 0) + charged}


def shortfall(
    book: Book, micro: int, *, consumer: str, at: float, budget: Budget | None, token: TokenBudget | None = None
) -> str | None:
    """Why `micro` more cannot be reserved for a consumer; None when it can."""
    if micro > book.accounts.available:
        return f"{micro_text(micro)} USD are needed, {micro_text(book.accounts.available)} of the credits are left"
    left = room(book, consumer=consumer, at=at, budget=budget)
    if left is not None and micro > left:
        span = " this month" if budget is not None and budget.per == "month" else ""
        return f"{micro_text(micro)} USD are needed, the budget of {consumer} has {micro_text(max(0, left))} left{span}"
    if token is not None and micro > (of_token := token_room(book, token)):
        return f"{micro_text(micro)} USD are needed, the budget of the token has {micro_text(max(0, of_token))} left"
    return None


def token_room(book: Book, token: TokenBudget) -> int:
    """What a token's budget leaves, in micro-dollars (below 0 when it was lowered since)."""
    reserved = sum(
        one.micro_usd for one in book.reservations.values() if one.token is not None and one.token.token == token.token
    )
    return to_micro(parse_price(token.usd)) - book.spent_by_token.get(token.token, 0) - reserved


def room(book: Book, *, consumer: str, at: float, budget: Budget | None) -> int | None:
    """What a consumer's budget leaves, in micro-dollars (below 0 when it was lowered since); None without a budget."""
    if budget is None:
        return None
    allowed = to_micro(parse_price(budget.usd))
    return allowed - spent(book, consumer, budget=budget, at=at) - held(book, consumer)


def spent(book: Book, consumer: str, *, budget: Budget, at: float) -> int:
    """What a consumer was charged in the time that its budget is for."""
    months = book.spent_by.get(consumer, {})
    return months.get(month_of(at), 0) if budget.per == "month" else sum(months.values())


def held(book: Book, consumer: str) -> int:
    """What is set aside for all sandboxes of a consumer."""
    return sum(one.micro_usd for one in book.reservations.values() if one.consumer == consumer)


def budget_of(budgets: Mapping[str, Budget], consumer: str) -> Budget | None:
    """The budget that holds for a consumer: its own, else the one for anybody."""
    return budgets.get(consumer) or budgets.get(ANYBODY)


def month_of(at: float) -> str:
    """The calendar month (UTC) of an instant, such as `2027-01`."""
    return str(rfc3339(at))[:7]


def overflow(book: Book) -> tuple[LedgerEntry, ...]:
    """The oldest entries, once too many have gathered; they go to the archive before `trimmed` drops them."""
    return book.entries[:-KEPT] if len(book.entries) > KEPT + SPARE else ()


def trimmed(book: Book) -> Book:
    """The book without what `overflow` gives."""
    gone = overflow(book)
    carried = book.carried
    for entry in gone:
        carried = carried.after(entry.postings)
    return msgspec.structs.replace(book, carried=carried, entries=book.entries[len(gone) :])


def _entered(
    book: Book,
    kind: Kind,
    *,
    at: float,
    move: tuple[Account, Account, int],
    sandbox_id: str | None = None,
    consumer: str | None = None,
    actor: str | None = None,
    note: str | None = None,
) -> Book:
    source, target, micro = move
    entry = LedgerEntry(
        seq=book.seq + 1,
        at=at,
        kind=kind,
        postings=(Posting(account=source, micro_usd=-micro), Posting(account=target, micro_usd=micro)),
        sandbox_id=sandbox_id,
        consumer=consumer,
        actor=actor,
        note=note,
    )
    return _with(book, entry)


def _with(book: Book, entry: LedgerEntry) -> Book:
    accounts = book.accounts.after(entry.postings)
    return msgspec.structs.replace(book, seq=entry.seq, accounts=accounts, entries=(*book.entries, entry))


def _without(reservations: Mapping[str, Reservation], sandbox_id: str) -> dict[str, Reservation]:
    return {key: one for key, one in reservations.items() if key != sandbox_id}
