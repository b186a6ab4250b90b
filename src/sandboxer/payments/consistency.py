"""Whether a book adds up. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from sandboxer.payments.ledger import Accounts, Book, LedgerEntry


def flaw(book: Book) -> str | None:
    """What is wrong with a book, in words; None when every sum is right."""
    first = book.entries[0].seq if book.entries else book.seq + 1
    wrong = step_flaw(book.carried, book, book.entries, first=first)
    if wrong is not None:
        return wrong
    return _totals_flaw(book)


def step_flaw(before: Accounts, book: Book, entries: Sequence[LedgerEntry], *, first: int) -> str | None:
    """What is wrong with the newest `entries` of a book, numbered from `first`, given how the accounts stood
    before; None when nothing is. It costs no more than they do."""
    expected = first
    for entry in entries:
        if sum(posting.micro_usd for posting in entry.postings) != 0:
            return f"the postings of entry {entry.seq} do not sum to zero"
        if entry.seq != expected:
            return f"entry {entry.seq} is where {expected} should be"
        expected += 1
    if expected != book.seq + 1:
        return f"the last entry is {expected - 1}, not {book.seq}"
    if before.after([posting for entry in entries for posting in entry.postings]) != book.accounts:
        return "the accounts are not what the entries make of them"
    accounts = book.accounts
    if accounts.granted + accounts.available + accounts.reserved + accounts.spent != 0:
        return "the accounts do not sum to zero"
    if min(accounts.available, accounts.reserved, accounts.spent, -accounts.granted) < 0:
        return "an account is below zero"
    return None


def _totals_flaw(book: Book) -> str | None:
    if any(key != one.sandbox_id or one.micro_usd <= 0 for key, one in book.reservations.items()):
        return "a reservation is not what its key says, or is of nothing"
    if sum(one.micro_usd for one in book.reservations.values()) != book.accounts.reserved:
        return "the reservations are not what is reserved"
    keyed = [one.micro_usd for one in book.keys.values()]
    if min(keyed, default=1) <= 0 or sum(keyed) > -book.accounts.granted:
        return "what was added under keys is more than was added, or nothing"
    if sum(sum(months.values()) for months in book.spent_by.values()) != book.accounts.spent:
        return "what the consumers spent is not what is spent"
    by_token = book.spent_by_token.values()
    if min(by_token, default=0) < 0 or sum(by_token) > book.accounts.spent:
        return "what was spent with tokens is more than was spent"
    return None
