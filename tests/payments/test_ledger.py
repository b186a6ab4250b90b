"""The credits against a plain model, under crashes, replays and duplicates (promise 19)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from sandboxer.errors import Conflict, InsufficientCredits, StoreCorrupt
from sandboxer.models import Budget
from sandboxer.payments import codec, ledger
from sandboxer.payments.consistency import flaw as flaw_of
from sandboxer.payments.credits import Balance, Credits
from sandboxer.payments.ledger import Accounts, Book, LedgerEntry, Posting, TokenBudget
from sandboxer.payments.prices import from_micro, to_micro
from sandboxer.store.document import AtomicDocument, VersionStamp
from tests.sizes import scaled

MONTH = 31 * 86_400.0
START = 1_800_000_000.0
ALICE, BOB, EVE = "adm:alice", "agt:bob", "atm:eve"
BUDGETS = {ALICE: Budget(usd="0.00004"), "*": Budget(usd="0.00003", per="month")}
IDS = [f"sandbox{letter}0000" for letter in "abcd"]


class Died(BaseException):
    """The process was killed."""


class MortalDocument(AtomicDocument):
    """A file whose writer dies before or after a write."""

    dies: str | None = None

    def replace(self, data: bytes, *, must_succeed: bool = False) -> VersionStamp | None:
        if self.dies == "before":
            raise Died
        stamp = super().replace(data, must_succeed=must_succeed)
        if self.dies == "after":
            raise Died
        return stamp


class Model:
    """The same in the plainest way: no entries, no accounts; what was added, what is held, and what was charged."""

    def __init__(self) -> None:
        self.added = 0
        self.keys: dict[str, int] = {}  # what was added under each
        self.held: dict[str, tuple[str, int]] = {}
        self.charged: dict[str, tuple[str, int, str]] = {}  # by sandbox: consumer, micro-dollars, month

    @property
    def spent(self) -> int:
        return sum(charge for _, charge, _ in self.charged.values())

    @property
    def available(self) -> int:
        return self.added - self.spent - sum(micro for _, micro in self.held.values())

    def allows(self, consumer: str, more: int, month: str) -> bool:
        if more <= 0:
            return True
        mine = sum(micro for who, micro in self.held.values() if who == consumer)
        if consumer == ALICE:
            left = 40 - mine - sum(charge for who, charge, _ in self.charged.values() if who == consumer)
        else:
            left = 30 - mine - sum(c for who, c, when in self.charged.values() if (who, when) == (consumer, month))
        return more <= min(left, self.available)


FAULTS = st.sampled_from([None, None, None, "before", "after"])
MICRO = st.integers(min_value=0, max_value=25)


class Machine(RuleBasedStateMachine):
    """Moves of money in any order, each with a death before or after its write or none."""

    purse_class: ClassVar[type[Credits]] = Credits

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="purse"))
        self.now = START
        self.model = Model()
        self._restart()

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def _restart(self) -> None:
        self.document = MortalDocument(self.root / "credits.json")
        self.purse = self.purse_class(
            self.root, BUDGETS, install=lambda: "here", clock=lambda: self.now, document=self.document
        )

    def _do(self, fault: str | None, act: Callable[[], object]) -> bool:
        """Whether the write happened. A dead process is replaced."""
        self.document.dies = fault
        try:
            act()
        except Died:
            self._restart()
            return fault == "after"
        finally:
            self.document.dies = None
        return True

    @rule(micro=st.integers(min_value=1, max_value=60), fault=FAULTS)
    def add(self, micro: int, fault: str | None) -> None:
        if self._do(fault, lambda: self.purse.add(from_micro(micro))):
            self.model.added += micro

    @rule(micro=st.integers(min_value=1, max_value=2), key=st.sampled_from(["oct", "nov"]), fault=FAULTS)
    def add_under_a_key(self, micro: int, key: str, fault: str | None) -> None:
        known = self.model.keys.get(key)
        try:
            happened = self._do(fault, lambda: self.purse.add(from_micro(micro), key=key))
        except Conflict:
            assert known not in (None, micro)
            return
        assert known in (None, micro)
        if happened and known is None:
            self.model.keys[key] = micro
            self.model.added += micro

    @rule(sandbox=st.sampled_from(IDS), micro=MICRO, consumer=st.sampled_from([ALICE, BOB, EVE]), fault=FAULTS)
    def reserve(self, sandbox: str, micro: int, consumer: str, fault: str | None) -> None:
        known = self.model.held.get(sandbox)
        owner, before = known or (consumer, 0)
        settled = known is None and sandbox in self.model.charged
        allowed = self.model.allows(owner, micro - before, ledger.month_of(self.now))

        def act() -> None:
            self.purse.reserve(sandbox, from_micro(micro), consumer=owner)

        try:
            happened = self._do(fault, act)
        except Conflict:
            assert settled
            return
        except InsufficientCredits:
            assert not allowed
            return
        if not happened:
            return
        assert not settled or not self.purse.path.exists()
        assert allowed
        self.model.held.pop(sandbox, None)
        if micro:
            self.model.held[sandbox] = (owner, micro)

    @rule(sandbox=st.sampled_from(IDS), micro=MICRO, again=st.integers(min_value=1, max_value=3), fault=FAULTS)
    def settle(self, sandbox: str, micro: int, again: int, fault: str | None) -> None:
        """Once, or several times: repeated after a crash, by eight overlapping sweeps, by a second destroy."""
        for _ in range(again):
            held = self.model.held.get(sandbox)

            def act() -> None:
                self.purse.settle(sandbox, from_micro(micro), usage_id=f"use-{sandbox}", overrun=Decimal("0.1"))

            if self._do(fault, act) and held is not None:
                del self.model.held[sandbox]
                self.model.charged[sandbox] = (held[0], min(micro, held[1]), ledger.month_of(self.now))
            fault = None

    @rule(sandbox=st.sampled_from(IDS), fault=FAULTS)
    def release(self, sandbox: str, fault: str | None) -> None:
        if self._do(fault, lambda: self.purse.release(sandbox)):
            self.model.held.pop(sandbox, None)

    @rule(seconds=st.sampled_from([60.0, MONTH]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_ledger_is_the_model(self) -> None:
        found, model = self.purse.show(), self.model
        assert to_micro(Decimal(found.added_usd)) == model.added
        assert to_micro(Decimal(found.spent_usd)) == model.spent
        assert to_micro(Decimal(found.available_usd)) == model.available
        assert to_micro(Decimal(found.balance_usd)) == model.added - model.spent
        assert {one.sandbox_id: (one.consumer, one.micro_usd) for one in self.purse.open()} == model.held

    @invariant()
    def nothing_is_below_zero(self) -> None:
        assert self.model.available >= 0
        assert not any(
            text.startswith("-") for text in msgspec.to_builtins(self.purse.show()).values() if type(text) is str
        )

    @invariant()
    def it_is_always_readable_and_adds_up(self) -> None:
        if self.document.path.exists():
            page = codec.parse(self.document.path.read_bytes(), self.document.path)
            assert flaw_of(page.book) is None


SIZE = settings(
    max_examples=scaled(150, soak=20_000),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_the_ledger_equals_the_model_under_crashes_replays_and_duplicates() -> None:
    """Promise 19: to the micro-dollar; the balance is never below zero; nobody is charged twice."""
    run_state_machine_as_test(Machine, settings=SIZE)


class _ChargesAgain(Credits):
    """Settles a sandbox that has no open reservation, out of what is available."""

    def settle(self, sandbox_id: str, usd: Decimal, *, usage_id: str, overrun: Decimal = Decimal(0)) -> None:
        if self.reserved(sandbox_id) is None and 0 < usd <= self.spare(ALICE):
            self._change(lambda book, at: ledger.settle(
                ledger.reserve(_forgetful(book), sandbox_id, to_micro(usd), consumer=ALICE, at=at, budget=None),
                sandbox_id, to_micro(usd), usage_id=f"{usage_id}-{book.seq}", overrun=0, at=at,
            ))  # fmt: skip
            return
        super().settle(sandbox_id, usd, usage_id=usage_id, overrun=overrun)


class _LooksAtNoId(Credits):
    """Reserves again for a sandbox that was settled, and settles that too."""

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
        micro, budget = to_micro(usd), ledger.budget_of(BUDGETS, consumer)

        def change(book: Book, at: float) -> Book:
            after = ledger.reserve(_forgetful(book), sandbox_id, micro, consumer=consumer, at=at, budget=budget)
            fresh = after.entries[len(book.entries) :]
            return msgspec.structs.replace(after, entries=(*book.entries, *fresh))

        self._change(change)


class _KeepsTheRest(Credits):
    """Charges all that was reserved, whatever was used."""

    def settle(self, sandbox_id: str, usd: Decimal, *, usage_id: str, overrun: Decimal = Decimal(0)) -> None:
        super().settle(sandbox_id, self.reserved(sandbox_id) or usd, usage_id=usage_id, overrun=overrun)


class _LendsMoney(Credits):
    """Reserves without looking at the budget."""

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
        self._change(
            lambda book, at: ledger.reserve(book, sandbox_id, to_micro(usd), consumer=consumer, at=at, budget=None)
        )


class _ForgetsKeys(Credits):
    """Adds again what was added under a key."""

    def add(
        self, usd: Decimal, *, note: str | None = None, actor: str | None = None, key: str | None = None
    ) -> Balance:
        return super().add(usd, note=note, actor=actor, key=None)


def _forgetful(book: Book) -> Book:
    """A book that does not remember who was settled."""
    return msgspec.structs.replace(
        book, entries=tuple(msgspec.structs.replace(entry, sandbox_id=None, usage_id=None) for entry in book.entries)
    )


@pytest.mark.parametrize("planted", [_ChargesAgain, _LooksAtNoId, _KeepsTheRest, _LendsMoney, _ForgetsKeys])
def test_the_model_catches_a_ledger_that_is_wrong(planted: type[Credits]) -> None:
    """Promise 19: a check that was not seen to fail proves nothing."""

    class Planted(Machine):
        purse_class = planted

    quick = settings(SIZE, max_examples=2000, report_multiple_bugs=False, phases=[Phase.generate])
    with pytest.raises((AssertionError, StoreCorrupt)):
        run_state_machine_as_test(Planted, settings=quick)


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (lambda book: _with(book, accounts=_accounts(book, available=1)), "accounts"),
        (lambda book: _with(book, seq=book.seq + 1), "the last entry"),
        (lambda book: _with(book, entries=book.entries[1:]), "accounts"),
        (lambda book: _with(book, entries=(book.entries[0], *book.entries[2:])), "where 2 should be"),
        (lambda book: _with(book, entries=(_unbalanced(book.entries[0]), *book.entries[1:])), "sum to zero"),
        (lambda book: _with(book, reservations={}), "reservations"),
        (lambda book: _with(book, spent_by={}), "consumers"),
        (lambda book: _with(book, spent_by={ALICE: {"2027-01": 4}}), "consumers"),
        (lambda book: _with(book, keys={"oct": ledger.KeyedCredit(micro_usd=101, at=START)}), "under keys"),
    ],
)  # fmt: skip
def test_every_sum_that_is_wrong_is_seen(change: Callable[[Book], Book], flaw: str) -> None:
    book = ledger.add(ledger.EMPTY, 100, at=START, actor=None, note=None)
    book = ledger.reserve(book, IDS[0], 10, consumer=ALICE, at=START, budget=None)
    book = ledger.settle(book, IDS[0], 5, usage_id="use-a", overrun=0, at=START)
    book = ledger.reserve(book, IDS[1], 10, consumer=ALICE, at=START, budget=None)
    assert flaw_of(book) is None
    assert flaw in str(flaw_of(change(book)))


def _with(book: Book, **changes: object) -> Book:
    return msgspec.structs.replace(book, **changes)


def _accounts(book: Book, *, available: int) -> Accounts:
    return msgspec.structs.replace(book.accounts, available=book.accounts.available + available)


def _unbalanced(entry: LedgerEntry) -> LedgerEntry:
    return msgspec.structs.replace(entry, postings=(*entry.postings, Posting(account="spent", micro_usd=1)))


def test_what_was_charged_and_reserved_beyond_what_is_held_is_overrun() -> None:
    """Promise 20: nothing more than was reserved is charged; the rest is told."""
    book = ledger.add(ledger.EMPTY, 100, at=START, actor=None, note=None)
    book = ledger.reserve(book, IDS[0], 10, consumer=ALICE, at=START, budget=None)
    book = ledger.settle(book, IDS[0], 14, usage_id="use-a", overrun=3, at=START)
    assert (book.accounts.spent, book.entries[-1].overrun_micro_usd) == (10, 7)


def test_a_late_reservation_of_a_settled_sandbox_is_refused() -> None:
    """Promise 19: a renewal that races the end of its sandbox cannot open it again."""
    book = ledger.add(ledger.EMPTY, 100, at=START, actor=None, note=None)
    book = ledger.reserve(book, IDS[0], 10, consumer=ALICE, at=START, budget=None)
    book = ledger.settle(book, IDS[0], 5, usage_id="use-a", overrun=0, at=START)
    for only_open in (True, False):
        with pytest.raises(Conflict):
            ledger.reserve(book, IDS[0], 20, consumer=ALICE, at=START, budget=None, only_open=only_open)
    with pytest.raises(Conflict):
        ledger.reserve(book, IDS[1], 20, consumer=ALICE, at=START, budget=None, only_open=True)


def test_a_monthly_budget_is_whole_again_in_the_next_month() -> None:
    budget = Budget(usd="0.00001", per="month")
    book = ledger.add(ledger.EMPTY, 100, at=START, actor=None, note=None)
    book = ledger.reserve(book, IDS[0], 10, consumer=BOB, at=START, budget=budget)
    book = ledger.settle(book, IDS[0], 10, usage_id="use-a", overrun=0, at=START)
    why = ledger.shortfall(book, 1, consumer=BOB, at=START, budget=budget)
    assert why == "0.000001 USD are needed, the budget of agt:bob has 0 left this month"
    assert ledger.shortfall(book, 10, consumer=BOB, at=START + MONTH, budget=budget) is None
