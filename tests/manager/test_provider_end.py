"""A provider that ends a sandbox earlier than was agreed: shown, recorded, and never charged beyond that."""

from __future__ import annotations

import shutil
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from sandboxer.errors import Unavailable
from sandboxer.extensions.base import Context, Status
from sandboxer.models import Handle, Ready, Sandbox
from sandboxer.state import State
from tests.manager.metered import SECOND, Bank, MeteredFake

HOUR = 3600.0


class Stingy(MeteredFake):
    """A provider with an end of its own (`at`: unix seconds, None: it does not tell)."""

    own_end: float | None = None

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        return msgspec.structs.replace(super().wait_ready(handle, ctx), ends_at=self.own_end)

    def status(self, handle: Handle, ctx: Context) -> Status:
        return msgspec.structs.replace(super().status(handle, ctx), ends_at=self.own_end)


class Lent(Bank):
    """A bank whose backend is one `Stingy`."""

    def __init__(self, root: Path) -> None:
        self.provider = Stingy()
        super().__init__(root, extension=lambda: self.provider)


@pytest.fixture
def bank(tmp_path: Path) -> Lent:
    return Lent(tmp_path)


def test_an_end_before_the_agreed_one_is_shown_and_nothing_is_charged_beyond_it(bank: Lent) -> None:
    whole = bank.create(ttl=int(HOUR))
    bank.now += HOUR
    bank.manager.destroy(whole.id)
    hour = bank.spent
    bank.provider.own_end = bank.now + HOUR / 2
    record = bank.create(ttl=int(HOUR))
    assert record.expires_at == bank.now + HOUR / 2
    assert record.isolation is not None
    assert any("its provider ends it at" in note for note in record.isolation.notes)
    bank.now += HOUR
    bank.manager.destroy(record.id)
    assert bank.spent - hour == hour / 2


@pytest.mark.parametrize("later", [-2.0, 0.0, 60.0, None], ids=str)
def test_an_end_at_the_agreed_time_or_after_it_changes_nothing(bank: Lent, later: float | None) -> None:
    """Providers count whole seconds or minutes, and clocks differ by a little."""
    bank.provider.own_end = None if later is None else bank.now + HOUR + later
    record = bank.create(ttl=int(HOUR))
    assert record.expires_at == bank.now + HOUR
    assert bank.manager.reconcile(apply=True).actions == []


def test_reconcile_records_an_end_that_somebody_shortened_there(bank: Lent) -> None:
    record = bank.create(ttl=int(HOUR))
    bank.provider.own_end = bank.now + 600
    planned = bank.manager.reconcile(apply=False)
    assert [(one.action, one.outcome) for one in planned.actions] == [("shorten", "planned")]
    assert bank.manager.get(record.id).expires_at == record.expires_at, "a dry run changes nothing"
    done = bank.manager.reconcile(apply=True)
    assert [(one.action, one.outcome) for one in done.actions] == [("shorten", "done")]
    assert bank.manager.get(record.id).expires_at == bank.provider.own_end
    assert bank.manager.reconcile(apply=True).actions == []
    bank.now += HOUR
    assert [one.action for one in bank.manager.expire(apply=True).actions] == ["expire"]
    assert bank.spent > Decimal(0)


def test_an_end_that_was_recorded_is_no_longer_noted_once_it_was_extended(bank: Lent) -> None:
    """The note of the old end stayed, and each further one was added to it."""

    def noted() -> list[str]:
        isolation = bank.manager.get(record.id).isolation
        return [] if isolation is None else [note for note in isolation.notes if "its provider ends it" in note]

    record = bank.create(ttl=int(HOUR))
    for _ in range(2):
        bank.provider.own_end = bank.now + 600
        assert [one.outcome for one in bank.manager.reconcile(apply=True).actions] == ["done"]
        assert len(noted()) == 1
        bank.provider.own_end = None
        bank.manager.extend_ttl(record.id, 600)
        assert noted() == []
    bank.provider.own_end = bank.now + 600
    bank.manager.reconcile(apply=True)
    bank.provider.own_end = bank.now + 300
    bank.manager.reconcile(apply=True)
    assert len(noted()) == 1


def lose(bank: Lent, record: Sandbox) -> None:
    """The provider ends it without a word."""
    shutil.rmtree(bank.root / "work" / "fake" / f"sbx-{record.id}")


def test_what_a_provider_has_ended_is_charged_up_to_the_last_run_of_expire_that_saw_it(bank: Lent) -> None:
    """Also at one that cannot stop sandboxes: `expire` asked only those that can, and the meter ran on to the TTL."""
    record = bank.create(ttl=int(HOUR))
    bank.now += 100
    assert bank.manager.expire(apply=True).actions == []
    bank.now += 200
    lose(bank, record)
    bank.now += 300
    planned = bank.manager.expire(apply=False)
    assert [(one.action, one.outcome) for one in planned.actions] == [("fail", "planned")]
    assert bank.manager.get(record.id).state == State.READY, "a dry run changes nothing"
    report = bank.manager.expire(apply=True)
    assert [(one.action, one.outcome) for one in report.actions] == [("fail", "done")]
    assert report.remaining == []
    after = bank.manager.get(record.id)
    assert (after.state, (after.error or {}).get("message")) == (State.FAILED, "the backend has lost it")
    assert bank.spent == 100 * SECOND
    assert bank.reserved == 0
    assert bank.manager.events()[-1].event_type == "sandbox.failed"


def test_one_that_nobody_has_looked_at_is_charged_up_to_the_look_that_missed_it(bank: Lent) -> None:
    record = bank.create(ttl=int(HOUR))
    bank.now += 100
    lose(bank, record)
    bank.manager.reconcile(apply=True)
    assert bank.spent == 100 * SECOND


def test_use_after_the_last_look_is_charged(bank: Lent) -> None:
    """Whoever used it knows that it was there."""
    record = bank.create(ttl=int(HOUR))
    bank.manager.expire(apply=True)
    bank.now += 100
    bank.manager.services.edit(record.id, lambda now: msgspec.structs.replace(now, last_active_at=bank.now))
    lose(bank, record)
    bank.now += 100
    bank.manager.expire(apply=True)
    assert bank.spent == 100 * SECOND


def test_expire_records_an_end_that_a_provider_has_shortened(bank: Lent) -> None:
    record = bank.create(ttl=int(HOUR))
    bank.provider.own_end = bank.now + 600
    assert [(one.action, one.outcome) for one in bank.manager.expire(apply=True).actions] == [("shorten", "done")]
    assert bank.manager.get(record.id).expires_at == bank.provider.own_end
    assert bank.manager.expire(apply=True).actions == []


@pytest.mark.parametrize("silent", [False, True], ids=["says unknown", "raises"])
def test_a_provider_that_does_not_say_ends_nothing(bank: Lent, silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    record = bank.create(ttl=int(HOUR))

    def status(_handle: Handle, _ctx: Context) -> Status:
        if silent:
            raise Unavailable("503")
        return Status("unknown", "503")

    with monkeypatch.context() as patched:
        patched.setattr(bank.provider, "status", status)
        report = bank.manager.expire(apply=True)
    assert (report.actions, report.remaining) == ([], [])
    assert bank.manager.get(record.id).state == State.READY


def test_a_provider_that_shows_none_of_many_is_not_believed_without_a_person(bank: Lent) -> None:
    records = [bank.create(ttl=int(HOUR)) for _ in range(6)]
    for record in records:
        lose(bank, record)
    report = bank.manager.expire(apply=True)
    assert report.actions == []
    assert {one.sandbox_id for one in report.remaining} == {record.id for record in records}
    assert {bank.manager.get(record.id).state for record in records} == {State.READY}
    assert bank.spent == 0
