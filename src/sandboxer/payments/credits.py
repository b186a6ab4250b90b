"""The only writer of `credits.json`. Every change is in an atomic write under the document's lock, which the changes of
threads that come at once share; readers take no lock.

It writes nothing of its own accord: an installation without metered sandboxes has no `credits.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec

from sandboxer.errors import Internal, Invalid, StoreCorrupt
from sandboxer.locks import this_owner
from sandboxer.models import Budget, Value
from sandboxer.payments import codec, ledger
from sandboxer.payments.codec import LedgerFile
from sandboxer.payments.consistency import step_flaw
from sandboxer.payments.ledger import Book, Reservation, TokenBudget
from sandboxer.payments.prices import from_micro, micro_text, to_micro
from sandboxer.store.archive import Archive
from sandboxer.store.document import AtomicDocument
from sandboxer.store.group_commit import GroupCommit
from sandboxer.store.parse_cache import ParseCache
from sandboxer.timing import now, rfc3339

FILE: Final = "credits.json"
NOTE_LENGTH: Final = 200
CURRENCY: Final = "USD"


class BudgetShare(Value, frozen=True, kw_only=True):
    """How a consumer's budget stands, in US dollars. `per` null: in all, not by the month."""

    consumer: str
    usd: str
    per: str | None
    spent_usd: str
    reserved_usd: str
    available_usd: str


class ReservedCredits(Value, frozen=True, kw_only=True):
    """What is set aside for one sandbox."""

    sandbox_id: str
    consumer: str
    usd: str
    since: str


class Balance(Value, frozen=True, kw_only=True):
    """How the credits stand (`credits show`), in US dollars: the balance is what was added without what was spent, and
    available what is not set aside of it."""

    currency: str
    added_usd: str
    spent_usd: str
    reserved_usd: str
    balance_usd: str
    available_usd: str
    budgets: list[BudgetShare]
    reservations: list[ReservedCredits]


class Credits:
    """The credits of one installation, in `directory/credits.json`. May be used by any thread and process.

    `install` answers the installation's id. Raises StoreCorrupt for a file that is unreadable, newer, another
    installation's, or does not add up (its bytes are kept), and Unavailable or Denied as the disk says."""

    def __init__(
        self,
        directory: Path,
        budgets: Mapping[str, Budget],
        *,
        install: Callable[[], str],
        clock: Callable[[], float] = now,
        document: AtomicDocument | None = None,
    ) -> None:
        self._document = document or AtomicDocument(directory / FILE)
        self._commits = GroupCommit(self._document, read=self._file, write=self._commit)
        self._archive = Archive(directory / "archive")
        self._budgets = budgets
        self._install = install
        self._clock = clock
        self._parsed = ParseCache(self._document, self._parse)

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return self._document.path

    # -- looking --------------------------------------------------------------------------------------------------

    def show_for(self, consumer: str, *, token: TokenBudget | None = None) -> Balance:
        """How it stands for one consumer, which learns nothing of the others: what is available is what it could have,
        and what was added is that with what it has had."""
        book, at = self._file().book, self._clock()
        spare = self._spare(book, consumer, token)
        spent = sum(book.spent_by.get(consumer, {}).values())
        own = [one for one in book.reservations.values() if one.consumer == consumer]
        reserved = sum(one.micro_usd for one in own)
        budgeted = ledger.budget_of(self._budgets, consumer) is not None
        return Balance(
            currency=CURRENCY,
            added_usd=micro_text(spare + reserved + spent),
            spent_usd=micro_text(spent),
            reserved_usd=micro_text(reserved),
            balance_usd=micro_text(spare + reserved),
            available_usd=micro_text(spare),
            budgets=[self._share(book, consumer, at)] if budgeted else [],
            reservations=[_held(one) for one in own],
        )

    def show(self) -> Balance:
        """How it stands."""
        book, at = self._file().book, self._clock()
        accounts = book.accounts
        named = [name for name in self._budgets if name != ledger.ANYBODY]
        others = {*book.spent_by, *(one.consumer for one in book.reservations.values())} - set(named)
        consumers = [*named, *(sorted(others) if ledger.ANYBODY in self._budgets else [])]
        return Balance(
            currency=CURRENCY,
            added_usd=micro_text(-accounts.granted),
            spent_usd=micro_text(accounts.spent),
            reserved_usd=micro_text(accounts.reserved),
            balance_usd=micro_text(-accounts.granted - accounts.spent),
            available_usd=micro_text(accounts.available),
            budgets=[self._share(book, consumer, at) for consumer in consumers],
            reservations=[_held(one) for one in book.reservations.values()],
        )

    def open(self) -> Sequence[Reservation]:
        """What is set aside now, oldest first: the list of what is still to be settled."""
        return sorted(self._file().book.reservations.values(), key=lambda one: one.since)

    def reserved(self, sandbox_id: str) -> Decimal | None:
        """What is set aside for a sandbox, in dollars; None when nothing is."""
        found = self._file().book.reservations.get(sandbox_id)
        return None if found is None else from_micro(found.micro_usd)

    def covers(self, usd: Decimal, *, consumer: str, token: TokenBudget | None = None) -> str | None:
        """Why `usd` more cannot be reserved for a consumer (by a token with a budget of its own), in words; None when
        it can. Nothing is always covered."""
        if usd <= 0:
            return None
        return ledger.shortfall(
            self._file().book,
            to_micro(usd),
            consumer=consumer,
            at=self._clock(),
            budget=ledger.budget_of(self._budgets, consumer),
            token=token,
        )

    def spare(self, consumer: str, *, token: TokenBudget | None = None) -> Decimal:
        """How many dollars more can be reserved for a consumer now."""
        return from_micro(self._spare(self._file().book, consumer, token))

    def _spare(self, book: Book, consumer: str, token: TokenBudget | None) -> int:
        left = ledger.room(book, consumer=consumer, at=self._clock(), budget=ledger.budget_of(self._budgets, consumer))
        bounds = [book.accounts.available]
        bounds += [left] if left is not None else []
        bounds += [ledger.token_room(book, token)] if token is not None else []
        return max(0, min(bounds))

    def token_of(self, sandbox_id: str) -> TokenBudget | None:
        """The token's budget that a reservation counts in."""
        found = self._file().book.reservations.get(sandbox_id)
        return None if found is None else found.token

    def added_at(self, key: str) -> float | None:
        """When credits were added under an idempotency key, in unix seconds; None when none were."""
        found = self._file().book.keys.get(key)
        return None if found is None else found.at

    # -- writing --------------------------------------------------------------------------------------------------

    def add(
        self, usd: Decimal, *, note: str | None = None, actor: str | None = None, key: str | None = None
    ) -> Balance:
        """Add credits, once under one idempotency key; how it stands then. Raises Invalid for a note that is too long,
        and Conflict for a key that was used for another amount."""
        if note is not None and (len(note) > NOTE_LENGTH or not note.isprintable()):
            raise Invalid("the note is not allowed", hint=f"use up to {NOTE_LENGTH} printable characters")
        self._change(lambda book, at: ledger.add(book, to_micro(usd), at=at, actor=actor, note=note, key=key))
        return self.show()

    def reserve(
        self,
        sandbox_id: str,
        usd: Decimal,
        *,
        consumer: str,
        only_open: bool = False,
        token: TokenBudget | None = None,
        lowered: tuple[str, Decimal] | None = None,
    ) -> None:
        """Set `usd` aside for a sandbox, in place of what is set aside for it now; 0 releases. `token`: the budget that
        it counts in besides. `lowered`: another sandbox, for which no more than that stays set aside, in the same
        change. Raises InsufficientCredits, and Conflict when it was settled or (`only_open`) nothing is set aside for
        it."""
        if usd <= 0 and not self.path.exists():
            return  # a free sandbox costs no write
        budget = ledger.budget_of(self._budgets, consumer)

        def change(book: Book, at: float) -> Book:
            if lowered is not None:
                book = ledger.lower(book, lowered[0], to_micro(lowered[1]), at=at)
            return ledger.reserve(
                book,
                sandbox_id,
                to_micro(usd),
                consumer=consumer,
                at=at,
                budget=budget,
                only_open=only_open,
                owner=this_owner(),
                token=token,
            )

        self._change(change, must_succeed=usd <= 0)

    def settle(self, sandbox_id: str, usd: Decimal, *, usage_id: str, overrun: Decimal = Decimal(0)) -> None:
        """Charge a sandbox by its usage, once: only what is set aside for it is charged, and only while it is."""

        def change(book: Book, at: float) -> Book:
            return ledger.settle(book, sandbox_id, to_micro(usd), usage_id=usage_id, overrun=to_micro(overrun), at=at)

        self._change(change, must_succeed=True)

    def release(self, sandbox_id: str) -> None:
        """Give back what is set aside for a sandbox; nothing is fine."""
        if self.path.exists():
            self._change(lambda book, at: ledger.release(book, sandbox_id, at=at), must_succeed=True)

    # -- the file -------------------------------------------------------------------------------------------------

    def _share(self, book: Book, consumer: str, at: float) -> BudgetShare:
        budget = ledger.budget_of(self._budgets, consumer)
        assert budget is not None  # noqa: S101 - only consumers with one are asked for
        left = ledger.room(book, consumer=consumer, at=at, budget=budget)
        return BudgetShare(
            consumer=consumer,
            usd=budget.usd,
            per=budget.per,
            spent_usd=micro_text(ledger.spent(book, consumer, budget=budget, at=at)),
            reserved_usd=micro_text(ledger.held(book, consumer)),
            available_usd=micro_text(max(0, min(left or 0, book.accounts.available))),
        )

    def _file(self) -> LedgerFile:
        return self._parsed.read() or LedgerFile(install="")

    def _parse(self, data: bytes) -> LedgerFile:
        file = codec.parse(data, self.path)
        if file.install != self._install():
            raise StoreCorrupt(
                f"{self.path} belongs to another installation ({file.install!r}; this one is {self._install()!r})",
                hint=codec.HINT,
            )
        return file

    def _change(self, change: Callable[[Book, float], Book], *, must_succeed: bool = False) -> None:
        install = self._install()  # may take the store's own lock: never inside ours

        def decide(file: LedgerFile) -> tuple[LedgerFile, None]:
            book = change(file.book, self._clock())
            if book == file.book:
                return file, None
            _check(file.book, book)
            return msgspec.structs.replace(file, install=install, book=book), None

        self._commits.change(decide, must_succeed=must_succeed)

    def _commit(self, before: LedgerFile, after: LedgerFile, must_succeed: bool) -> None:
        trimmed = LedgerFile(install=after.install, book=self._trimmed(after.book), revision=before.revision + 1)
        file = codec.with_lines(trimmed, before)
        self._parsed.replace(file, codec.render(file), must_succeed=must_succeed)

    def _trimmed(self, book: Book) -> Book:
        """The book without its oldest entries, which are durable in the archive before. After a crash between the two
        an entry may be there twice, with the same `seq`."""
        months: dict[str, list[bytes]] = {}
        for entry in ledger.overflow(book):
            months.setdefault(ledger.month_of(entry.at), []).append(codec.encode_entry(entry))
        with suppress(OSError):  # then they stay here, and it is tried again next time
            for month, entries in months.items():
                self._archive.append_credits(month, entries)
            return ledger.trimmed(book)
        return book


def _held(one: Reservation) -> ReservedCredits:
    return ReservedCredits(
        sandbox_id=one.sandbox_id,
        consumer=one.consumer,
        usd=micro_text(one.micro_usd),
        since=str(rfc3339(one.since)),
    )


def _check(before: Book, after: Book) -> None:
    """What does not add up is never written."""
    new = after.entries[len(before.entries) :]
    wrong = step_flaw(before.accounts, after, new, first=before.seq + 1)
    held = sum(one.micro_usd for one in after.reservations.values())
    if wrong is None and held != after.accounts.reserved:
        wrong = "the reservations are not what is reserved"
    if wrong is not None:
        raise Internal(f"a change of the credits does not add up: {wrong}")
