"""What a metered sandbox costs, from its create to its end (promises 18, 19, 20)."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from sandboxer.errors import BackendError, InsufficientCredits, SandboxerError, Unavailable
from sandboxer.extensions.base import Context
from sandboxer.models import Handle, Ready, Resources
from sandboxer.state import State
from sandboxer.testing.fake import FakeExtension, Faults
from sandboxer.timing import Deadline
from tests.installations import create, installed, left_over
from tests.manager.metered import MANIFEST, SECOND, START, Bank, MeteredFake, book

FREE = Decimal(0)


def test_it_is_reserved_for_its_whole_life_and_charged_for_what_it_lived(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    record = bank.create()
    assert (record.cost.pricing_model, record.cost.estimated_usd) == ("metered", "1")
    assert (bank.reserved, bank.spent) == (Decimal(1), FREE)
    bank.now += 250.5
    ended = bank.manager.destroy(record.id)
    assert ended.cost.actual_usd == "0.2505"
    assert (bank.reserved, bank.spent) == (FREE, Decimal("0.2505"))
    assert bank.kinds() == ["add", "reserve", "settle"]
    (item,) = bank.manager.usage()
    assert (item.usage_id, item.sandbox_id, item.consumer) == (f"use-{record.id}", record.id, "adm:tester")
    assert (item.state, item.duration_s, item.actual_usd, item.overrun_usd) == ("destroyed", 250.5, "0.2505", "0")
    assert (item.started_at, item.ended_at) == ("2027-01-15T08:00:00.000Z", "2027-01-15T08:04:10.500Z")


def test_what_has_accrued_is_told_while_it_lives(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    bank.create()
    bank.now += 100
    (item,) = bank.manager.usage()
    assert (item.ended_at, item.actual_usd, item.estimated_usd, item.pricing_model) == (None, "0.1", "1", "metered")
    bank.now += 5000
    (item,) = bank.manager.usage()
    assert item.actual_usd == "1", "never more than is reserved, whatever expire was kept from"


def test_a_free_sandbox_has_its_usage_and_never_touches_the_book(tmp_path: Path) -> None:
    here = installed(tmp_path)
    ended = here.manager.destroy(create(here).id)
    assert ended.usage is not None
    assert (ended.usage.actual_usd, ended.cost.actual_usd, ended.cost.pricing_model) == ("0", "0", "free")
    assert ended.usage.ended_at >= ended.usage.started_at == ended.ready_at
    assert not (tmp_path / "data" / "credits.json").exists()
    assert [event.event_type for event in here.manager.events()][-1] == "sandbox.destroyed"
    assert "usage.metered" not in [event.event_type for event in here.manager.events()]


def test_without_enough_credits_nothing_is_begun(tmp_path: Path) -> None:
    """Exit 9 before anything is asked of the backend."""
    faults = Faults()
    bank = Bank(tmp_path, money="0.999999", extension=lambda: MeteredFake(faults))
    with pytest.raises(InsufficientCredits) as caught:
        bank.create()
    assert "1 USD are needed, 0.999999 of the credits are left" in caught.value.message
    assert "sandboxer credits" in caught.value.hint
    assert (faults.seen, left_over(tmp_path), bank.reserved) == ([], [], FREE)
    bank.manager.add_credits("0.000001")
    assert bank.create().state == State.READY


def test_recreate_may_use_what_its_predecessor_gives_back_and_no_more(tmp_path: Path) -> None:
    bank = Bank(tmp_path, money="1.5")
    first = bank.create()
    bank.now += 250
    second = bank.manager.recreate(first.id)
    assert (bank.spent, bank.reserved) == (Decimal("0.25"), Decimal(1))
    with pytest.raises(InsufficientCredits):
        bank.create()
    bank.now += 250
    with pytest.raises(InsufficientCredits):
        bank.manager.recreate(second.id, actor="agt:other")
    with pytest.raises(InsufficientCredits):
        bank.manager.recreate(second.id)
    assert bank.manager.get(second.id).state == State.READY, "what cannot be made anew is not destroyed"


def test_a_consumer_cannot_exceed_its_budget_and_the_others_go_on(tmp_path: Path) -> None:
    bank = Bank(tmp_path, config='budgets: {"agt:one": {usd: "1.5"}, "*": {usd: "2", per: month}}\n')
    first = bank.create(actor="agt:one")
    with pytest.raises(InsufficientCredits, match=r"the budget of agt:one has 0\.5 left"):
        bank.create(actor="agt:one")
    bank.create(actor="agt:two")
    bank.now += 100
    bank.manager.destroy(first.id)
    assert bank.create(actor="agt:one").state == State.READY
    assert {one.consumer: one.spent_usd for one in bank.manager.credits().budgets} == {"agt:one": "0.1", "agt:two": "0"}


class _Slow(MeteredFake):
    """Takes 40 s to go."""

    def __init__(self, bank: list[Bank]) -> None:
        super().__init__()
        self._bank = bank

    def teardown(self, handle: Handle, ctx: Context) -> None:
        self._bank[0].now += 40
        super().teardown(handle, ctx)


def test_nothing_is_charged_after_the_wish_to_destroy(tmp_path: Path) -> None:
    """Promise 20: the time of the teardown, of a failed one, and of waiting for the next are overrun."""
    banks: list[Bank] = []
    bank = Bank(tmp_path, extension=lambda: _Slow(banks))
    banks.append(bank)
    record = bank.create()
    bank.now += 100
    bank.manager.request_destroy(record.id)
    bank.now += 300
    ended = bank.manager.destroy(record.id)
    assert ended.usage is not None
    assert (ended.usage.actual_usd, ended.usage.overrun_usd) == ("0.1", "0.34")
    assert (bank.spent, book(tmp_path).entries[-1].overrun_micro_usd) == (Decimal("0.1"), 340_000)


def test_nothing_is_charged_after_the_agreed_end_however_late_expire_comes(tmp_path: Path) -> None:
    """Promise 20."""
    bank = Bank(tmp_path)
    record = bank.create(ttl=600)
    bank.now += 10_000
    report = bank.manager.expire(apply=True)
    assert [action.outcome for action in report.actions] == ["done"]
    ended = bank.manager.get(record.id)
    assert ended.usage is not None
    assert (ended.usage.actual_usd, ended.usage.overrun_usd) == ("0.6", "9.4")
    assert bank.spent == Decimal("0.6")


@pytest.mark.parametrize("point", ["provision", "provision.made", "provision.saved", "wait_ready"])
def test_a_create_that_fails_costs_nothing_and_gives_everything_back(tmp_path: Path, point: str) -> None:
    bank = Bank(tmp_path, extension=lambda: MeteredFake(Faults({point: BackendError("no")})))
    with pytest.raises(BackendError):
        bank.create()
    assert (bank.reserved, bank.spent) == (FREE, FREE)
    (record,) = bank.manager.list()
    bank.manager.destroy(record.id)
    assert (bank.reserved, bank.spent, bank.kinds()) == (FREE, FREE, ["add", "reserve", "release"])


def test_what_a_failed_create_ran_ends_when_it_was_taken_back_and_not_when_its_record_goes(tmp_path: Path) -> None:
    """Promise 20: what the backend ran on is what is told, and nothing of it ran on."""
    bank = Bank(tmp_path)

    def runs_for_a_while_and_breaks() -> MeteredFake:
        return Slow(Faults({"wait_ready": BackendError("no")}), bank)

    bank.manager.services.extensions.add("ext.fake", runs_for_a_while_and_breaks)
    with pytest.raises(BackendError):
        bank.create()
    (failed,) = bank.manager.list()
    assert bank.manager.document(failed)["cost"]["actual_usd"] == "0"
    for later in (0, 1000):
        bank.now += later
        (item,) = bank.manager.usage()
        assert (item.actual_usd, item.overrun_usd, item.duration_s) == ("0", "0.02", 0)
    gone = bank.manager.destroy(failed.id)
    assert gone.usage is not None
    assert gone.usage.overrun_usd == "0.02"
    assert (bank.reserved, bank.spent, bank.kinds()) == (FREE, FREE, ["add", "reserve", "release"])


class Slow(MeteredFake):
    """It takes 20 s to come up."""

    def __init__(self, faults: Faults, bank: Bank) -> None:
        super().__init__(faults)
        self._bank = bank

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        self._bank.now += 20
        return super().wait_ready(handle, ctx)


def test_a_sandbox_that_the_backend_lost_is_charged_until_that_is_known(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    record = bank.create()
    (tmp_path / "work" / "fake" / f"sbx-{record.id}").rename(tmp_path / "gone")
    bank.now += 200
    bank.manager.reconcile(apply=True)
    assert bank.manager.get(record.id).state == State.FAILED
    assert (bank.reserved, bank.spent) == (FREE, Decimal("0.2")), "at once, not when its record is destroyed"
    bank.now += 10_000
    bank.manager.destroy(record.id)
    assert bank.spent == Decimal("0.2")
    assert [item.actual_usd for item in bank.manager.usage()] == ["0.2"]


def test_destroying_again_charges_nothing_more(tmp_path: Path) -> None:
    """Promise 4: one settlement."""
    bank = Bank(tmp_path)
    record = bank.create()
    bank.now += 10
    for _ in range(3):
        bank.manager.destroy(record.id)
        bank.now += 10
    assert (bank.spent, bank.kinds()) == (SECOND * 10, ["add", "reserve", "settle"])


def test_eight_overlapping_expires_bill_each_sandbox_once(tmp_path: Path) -> None:
    """Promise 18."""
    bank = Bank(tmp_path)
    for _ in range(6):
        bank.create(ttl=60)
    bank.now += 100
    others = [Bank(tmp_path, money=None) for _ in range(8)]
    for other in others:
        other.now = bank.now
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda other: other.manager.expire(apply=True), others))
    assert bank.manager.list() == []
    assert bank.kinds().count("settle") == 6
    assert (bank.spent, bank.reserved) == (SECOND * 60 * 6, FREE)


def test_a_book_that_cannot_be_read_keeps_no_sandbox_alive_and_is_charged_later(tmp_path: Path) -> None:
    """What is gone is gone; its reservation stays open, and the next sweep settles it by its usage."""
    bank = Bank(tmp_path)
    record = bank.create()
    bank.now += 100
    file = tmp_path / "data" / "credits.json"
    kept = file.read_bytes()
    file.write_bytes(kept[:-20])
    told: list[str] = []
    ended = bank.manager.destroy(record.id, progress=lambda _, text: told.append(text))
    assert (ended.state, left_over(tmp_path)) == (State.DESTROYED, [])
    assert "its charge waits" in told[-1]
    report = bank.manager.expire(apply=True)
    assert "credits.json" in report.remaining[0].why
    file.write_bytes(kept)
    bank.now += 1000
    (planned,) = bank.manager.expire(apply=False).actions
    assert (planned.action, planned.outcome) == ("settle", "planned")
    (done,) = bank.manager.expire(apply=True).actions
    assert (done.action, done.outcome, bank.spent) == ("settle", "done", SECOND * 100)
    assert bank.manager.expire(apply=True).actions == []


def _meter(answer: Resources | SandboxerError | None) -> MeteredFake:
    def look() -> Resources | None:
        if isinstance(answer, SandboxerError):
            raise answer
        return answer

    return MeteredFake(meter=look)


@pytest.mark.parametrize(
    ("answer", "actual", "overrun"),
    [
        (Resources(vcpu=0.5), "0.05", "0"),
        (Resources(vcpu=2), "0.2", "0"),
        (Resources(vcpu=40), "1", "3"),
        (Resources(gpu="B200", gpus=1), "0.1", "0"),
        (None, "0.1", "0"),
        (Unavailable("the meter does not answer"), "0.1", "0"),
    ],
    ids=["less", "more", "more than is reserved", "a gpu without a price", "nothing", "no answer"],
)
def test_what_the_backend_really_gave_is_charged_where_it_says_so(
    tmp_path: Path, answer: Resources | SandboxerError | None, actual: str, overrun: str
) -> None:
    bank = Bank(tmp_path, extension=lambda: _meter(answer))
    record = bank.create()
    bank.now += 100
    ended = bank.manager.destroy(record.id)
    assert ended.usage is not None
    assert (ended.usage.actual_usd, ended.usage.overrun_usd) == (actual, overrun)
    assert bank.spent == Decimal(actual)


def test_a_reservation_whose_sandbox_never_came_to_be_is_given_back_after_the_grace_period(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    bank.manager.services.credits.reserve("k3v9x2m7q4ta", Decimal(5), consumer="adm:ops")
    assert bank.manager.reconcile(apply=True).actions == []
    bank.now += 601
    with bank.manager.services.locks.acquire("k3v9x2m7q4ta", _soon(), "creating it, slowly"):
        (action,) = bank.manager.expire(apply=True).actions
        assert (action.outcome, bank.reserved) == ("skipped", Decimal(5))
    (action,) = bank.manager.reconcile(apply=True).actions
    assert (action.action, action.outcome, action.why) == ("settle", "done", "its sandbox never came to be")
    assert (bank.reserved, bank.spent) == (FREE, FREE)


def _soon() -> Deadline:
    return Deadline(5)


def test_a_host_has_its_own_prices_and_an_operators_list_replaces_the_manifests(tmp_path: Path) -> None:
    """Self-hosted time is metered where the operator says so; it is free by default."""
    own = '    prices: {as_of: "2026-11-01", source: our power bill, sandbox_hour: {usd: "0.36"}}\n'
    config = 'extensions:\n  ext.fake:\n    prices: {as_of: "2026-11-01", source: mine, vcpu_hour: {usd: "7.2"}}\n'
    assert Bank(tmp_path / "manifest").create().cost.estimated_usd == "1"
    assert Bank(tmp_path / "operator", config=config).create().cost.estimated_usd == "2"
    root = tmp_path / "host"
    bank = Bank(root)
    (root / "config" / "config.yaml").write_text(f"hosts:\n  local:\n    work_dir: {root}/work\n{own}")
    assert Bank(root, money=None).create().cost.estimated_usd == "0.1"
    free = MANIFEST[: MANIFEST.index("prices:")].replace("pricing_model: metered\n", "")
    assert Bank(tmp_path / "free", manifest=free).create().cost.pricing_model == "free"
    assert bank.spent == 0


def test_a_sandbox_without_a_meter_is_metered_by_the_hour(tmp_path: Path) -> None:
    by_hour = MANIFEST.replace('vcpu_hour: {usd: "3.6"}', 'sandbox_hour: {usd: "0.36"}')
    bank = Bank(tmp_path, extension=FakeExtension, manifest=by_hour)
    record = bank.create()
    bank.now += 50
    assert bank.manager.destroy(record.id).cost.actual_usd == "0.005"


def test_what_is_recorded_of_the_money_is_no_secret_and_not_shown(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    document = bank.manager.document(bank.create())
    assert document["cost"] == {"pricing_model": "metered", "estimated_usd": "1", "actual_usd": None}
    assert "metering" not in json.dumps(document)
    assert bank.now == START
