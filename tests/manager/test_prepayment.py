"""Money for more time: renewals, and sandboxes without an end."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from sandboxer.errors import BackendError, InsufficientCredits
from sandboxer.extensions.base import Context
from sandboxer.models import Handle
from sandboxer.payments.prices import AHEAD_SECONDS
from sandboxer.state import State
from sandboxer.testing.fake import Faults
from tests.manager.metered import SECOND, Bank, MeteredFake

DAY = 86_400.0
FREE = Decimal(0)
A_DAY = SECOND * 86_400


def test_more_time_is_paid_for_before_it_is_given(tmp_path: Path) -> None:
    bank = Bank(tmp_path, money="2")
    record = bank.create()
    bank.now += 100
    longer = bank.manager.extend_ttl(record.id, 500)
    assert (longer.expires_at, longer.cost.estimated_usd, bank.reserved) == (
        record.created_at + 1500,
        "1.5",
        3 / Decimal(2),
    )
    bank.now += 1300
    assert bank.manager.destroy(record.id).cost.actual_usd == "1.4"
    assert (bank.spent, bank.reserved) == (Decimal("1.4"), FREE)


def test_more_time_without_the_money_for_it_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """Exit 9, before the backend is asked."""
    faults = Faults()
    bank = Bank(tmp_path, money="1.2", extension=lambda: MeteredFake(faults))
    record = bank.create()
    with pytest.raises(InsufficientCredits) as caught:
        bank.manager.extend_ttl(record.id, 201)
    assert caught.value.sandbox_id == record.id
    assert "renew" not in faults.seen
    assert bank.manager.get(record.id) == record
    assert bank.reserved == 1
    bank.manager.extend_ttl(record.id, 200)
    assert bank.reserved == Decimal("1.2")


def test_a_renewal_that_the_backend_refuses_gives_its_money_back(tmp_path: Path) -> None:
    faults = Faults({"renew": BackendError("no")})
    bank = Bank(tmp_path, extension=lambda: MeteredFake(faults))
    record = bank.create()
    with pytest.raises(BackendError):
        bank.manager.extend_ttl(record.id, 500)
    assert bank.reserved == 1
    assert bank.manager.get(record.id).expires_at == record.expires_at


class _EndsMeanwhile(MeteredFake):
    """Somebody destroys the sandbox while its renewal is under way."""

    def __init__(self, banks: list[Bank]) -> None:
        super().__init__()
        self._banks = banks

    def renew(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        bank = self._banks[0]
        (record,) = bank.manager.list()
        bank.now += 100
        bank.manager.destroy(record.id)


def test_a_renewal_that_races_the_end_of_its_sandbox_leaves_one_charge(tmp_path: Path) -> None:
    """Promise 19."""
    banks: list[Bank] = []
    bank = Bank(tmp_path, extension=lambda: _EndsMeanwhile(banks))
    banks.append(bank)
    record = bank.create()
    with pytest.raises(Exception, match="destroyed"):
        bank.manager.extend_ttl(record.id, 500)
    assert (bank.spent, bank.reserved, bank.kinds().count("settle")) == (Decimal("0.1"), FREE, 1)


def test_a_sandbox_without_an_end_is_paid_for_a_day_ahead_for_as_long_as_it_lives(tmp_path: Path) -> None:
    """A month of hourly cron runs: it accrues without a stop, and is charged for each second once."""
    bank = Bank(tmp_path, money="5000")
    record = bank.create(profile="profile.endless")
    assert (record.expires_at, bank.reserved) == (None, A_DAY)
    writes = 0
    for _ in range(30 * 24):
        bank.now += 3600
        actions = bank.manager.expire(apply=True).actions
        assert all((action.action, action.outcome) == ("fund", "done") for action in actions)
        writes += len(actions)
        (item,) = bank.manager.usage()
        assert Decimal(item.actual_usd) == SECOND * int(bank.now - record.created_at)
    assert writes == 60, "twice a day: when half of it is used up"
    bank.now += 7
    ended = bank.manager.destroy(record.id)
    assert Decimal(str(ended.cost.actual_usd)) == bank.spent == SECOND * (30 * 86_400 + 7)
    assert bank.reserved == 0


def test_a_dry_run_says_what_would_be_paid_and_pays_nothing(tmp_path: Path) -> None:
    bank = Bank(tmp_path, money="5000")
    bank.create(profile="profile.endless")
    bank.now += 0.6 * DAY
    (action,) = bank.manager.expire(apply=False).actions
    assert (action.action, action.outcome) == ("fund", "planned")
    assert bank.reserved == A_DAY


def test_a_missed_cron_ends_nothing_that_there_is_money_for(tmp_path: Path) -> None:
    bank = Bank(tmp_path, money="5000")
    record = bank.create(profile="profile.endless")
    bank.now += 3 * DAY
    bank.manager.expire(apply=True)
    assert bank.manager.get(record.id).state == State.READY
    assert bank.reserved == A_DAY * 4


def test_the_last_of_the_money_is_lived_on_and_then_it_ends_with_the_reason(tmp_path: Path) -> None:
    """The balance is never below zero, and nothing that has a TTL or costs nothing is touched."""
    bank = Bank(tmp_path, money="130")
    record = bank.create(profile="profile.endless")
    bank.now += 0.9 * DAY
    bank.manager.expire(apply=True)
    metering = bank.manager.get(record.id).metering
    assert metering is not None
    assert metering.funded_until == record.created_at + 130_000
    bank.now = record.created_at + 129_000
    assert bank.manager.expire(apply=True).actions == []
    bank.now = record.created_at + 130_500
    (action,) = bank.manager.expire(apply=True).actions
    assert (action.action, action.outcome) == ("expire", "done")
    assert action.why.startswith("what was paid for was over at 2027-01-16T20:06:40.000Z: ")
    assert "0 of the credits are left" in action.why
    left = bank.manager.credits()
    assert (left.spent_usd, left.balance_usd, left.available_usd) == ("130", "0", "0")
    ended = bank.manager.get(record.id)
    assert ended.usage is not None
    assert ended.usage.overrun_usd == "0.5"


def test_what_is_in_use_is_not_ended_for_want_of_money_and_the_rest_is_overrun(tmp_path: Path) -> None:
    """`expire` never ends what is in use; nobody is charged for more than was reserved."""
    bank = Bank(tmp_path, money="86.4")
    record = bank.create(profile="profile.endless")
    bank.now += DAY + 10
    with bank.manager.lease(record.id, holder="somebody"):
        (action,) = bank.manager.expire(apply=True).actions
        assert (action.outcome, bank.manager.get(record.id).state) == ("skipped", State.READY)
    (action,) = bank.manager.expire(apply=True).actions
    assert action.outcome == "done"
    assert bank.spent == A_DAY


def test_an_unreadable_book_ends_nothing(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    record = bank.create(profile="profile.endless")
    bank.now += 2 * DAY
    (tmp_path / "data" / "credits.json").write_bytes(b"{")
    report = bank.manager.expire(apply=True)
    assert bank.manager.get(record.id).state == State.READY
    assert all(remaining.error for remaining in report.remaining)
    assert {remaining.sandbox_id for remaining in report.remaining} == {record.id, None}


def test_the_day_ahead_is_what_is_documented() -> None:
    assert AHEAD_SECONDS == DAY
