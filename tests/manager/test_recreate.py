"""Recreate: nobody takes the place of a sandbox while it is replaced, and one that does not go keeps what it had."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from sandboxer.bootstrap import Installation, install
from sandboxer.errors import BackendError, Conflict, InsufficientCredits, OverQuota, SandboxerError
from sandboxer.manager import SandboxManager
from sandboxer.models import Sandbox
from sandboxer.payments.credits import Credits
from sandboxer.state import State
from sandboxer.store.base import UpdateFn
from sandboxer.store.json_store import JsonStore
from sandboxer.testing.fake import FakeExtension, Faults
from tests.api.serving import called
from tests.installations import create, environment, installed, lay_out, left_over
from tests.manager.metered import Bank, MeteredFake
from tests.testbed.waiting import eventually


class Rival:
    """Somebody who asks for the same at the worst moment, once; what became of it."""

    def __init__(self) -> None:
        self.ask: Callable[[], object] | None = None
        self.refused: SandboxerError | None = None

    def strike(self) -> None:
        """Ask."""
        ask, self.ask = self.ask, None
        if ask is None:
            return
        try:
            ask()
        except SandboxerError as error:
            self.refused = error


class RivalStore(JsonStore):
    """The rival comes when a sandbox has just ended."""

    def __init__(self, directory: Path, rival: Rival) -> None:
        super().__init__(directory)
        self._rival = rival

    def update(self, sandbox_id: str, fn: UpdateFn, *, must_succeed: bool = False) -> Sandbox | None:
        stored = super().update(sandbox_id, fn, must_succeed=must_succeed)
        if stored is not None and stored.state == State.DESTROYED:
            self._rival.strike()
        return stored


class RivalCredits(Credits):
    """The rival comes when a sandbox has just been charged."""

    rival: Rival

    def settle(self, sandbox_id: str, usd: Decimal, *, usage_id: str, overrun: Decimal = Decimal(0)) -> None:
        super().settle(sandbox_id, usd, usage_id=usage_id, overrun=overrun)
        self.rival.strike()


def rivalled(root: Path, rival: Rival, *, config: str = "") -> Installation:
    lay_out(root, config=f"hosts:\n  local: {{work_dir: {root}/work}}\n{config}")
    here = install(environment(root), relay_in_background=False, store=lambda directory: RivalStore(directory, rival))
    here.manager.services.extensions.add("ext.fake", FakeExtension)
    return here


@pytest.mark.parametrize("door", ["command", "HTTP"])
@pytest.mark.parametrize(("config", "name"), [("quotas: {'*': {live: 1}}\n", None), ("", "web")], ids=["quota", "name"])
def test_nobody_takes_the_place_of_a_sandbox_that_is_replaced(
    tmp_path: Path, config: str, name: str | None, door: str
) -> None:
    """It was lost: destroyed, and the new one refused."""
    rival = Rival()
    here = rivalled(tmp_path, rival, config=config)
    old = create(here, name=name)
    rival.ask = lambda: create(here, name=name)
    if door == "command":
        new = here.manager.recreate(old.id)
    else:
        with called(here) as api:
            answer = api.post(f"/v1/sandboxes/{old.id}/recreate?wait=true")
            assert answer.status_code == 201, answer.text
            new = here.manager.get(answer.json()["id"])
    assert (new.state, new.name) == (State.READY, name)
    assert [record.id for record in here.manager.list()] == [new.id]
    assert isinstance(rival.refused, OverQuota if name is None else Conflict)


def test_nobody_takes_the_money_of_a_sandbox_that_is_replaced(tmp_path: Path) -> None:
    bank, rival = Bank(tmp_path, money="1.5"), Rival()
    services = bank.manager.services
    purse = RivalCredits(tmp_path / "data", {}, install=lambda: services.store.install_id, clock=lambda: bank.now)
    purse.rival = rival
    manager = bank.manager = SandboxManager(dataclasses.replace(services, credits=purse))
    old = bank.create()
    bank.now += 250
    rival.ask = lambda: bank.create()
    new = manager.recreate(old.id)
    assert new.state == State.READY
    assert isinstance(rival.refused, InsufficientCredits)
    assert (bank.spent, bank.reserved) == (Decimal("0.25"), Decimal(1))


def test_a_sandbox_that_does_not_go_keeps_its_name_and_nothing_comes_of_the_new_one(tmp_path: Path) -> None:
    faults = Faults({"teardown": BackendError("not now")})
    here = installed(tmp_path, faults)
    old = create(here, name="web")
    with pytest.raises(BackendError, match="not now") as caught:
        here.manager.recreate("web")
    assert (caught.value.sandbox_id, caught.value.outcome) == (old.id, "unknown")
    kept, given_up = here.manager.list()
    assert (kept.id, kept.state) == (old.id, State.DESTROYING)
    assert (given_up.state, given_up.clean) == (State.FAILED, True)
    assert given_up.error is not None
    assert f"sandboxer destroy {old.id}" in given_up.error["hint"]
    assert here.manager.get("web").id == old.id
    here.manager.destroy("web")
    assert create(here, name="web").state == State.READY


def test_over_http_too_nothing_comes_of_the_new_one_when_the_old_one_does_not_go(tmp_path: Path) -> None:
    here = installed(tmp_path, Faults({"teardown": BackendError("not now")}))
    old = create(here, name="web")
    with called(here) as api:
        answer = api.post(f"/v1/sandboxes/{old.id}/recreate")
        assert (answer.status_code, answer.json()["sandbox_id"]) == (502, old.id)
        eventually(lambda: here.manager.list()[-1].state == State.FAILED, within=60, what="the end of the new one")
        assert here.manager.list()[-1].clean
        assert here.manager.get("web").id == old.id


def test_the_money_of_one_that_does_not_go_stays_set_aside_and_the_new_ones_is_given_back(tmp_path: Path) -> None:
    faults = Faults({"teardown": BackendError("not now")})
    bank = Bank(tmp_path, extension=lambda: MeteredFake(faults))
    old = bank.create()
    bank.now += 100
    with pytest.raises(BackendError):
        bank.manager.recreate(old.id)
    assert {one.sandbox_id: one.usd for one in bank.manager.credits().reservations} == {old.id: "1"}
    bank.manager.destroy(old.id)
    assert (bank.spent, bank.reserved) == (Decimal("0.1"), Decimal(0))


def test_what_cannot_be_admitted_destroys_nothing_and_keeps_what_is_set_aside(tmp_path: Path) -> None:
    """Refused in the write itself, after the plan was made."""
    bank = Bank(tmp_path, config="quotas: {'*': {live: 1}}\n")
    old = bank.create()
    plan = bank.manager.recreate_plan(old.id)
    two = dataclasses.replace(bank.manager.services, settings=Bank(tmp_path / "other").manager.services.settings)
    plan_of_another = SandboxManager(two).plan(plan.request)
    SandboxManager(two).create(plan_of_another)
    with pytest.raises(OverQuota):
        bank.manager.begin_replacement(plan)
    assert bank.manager.get(old.id).state == State.READY
    assert {one.usd for one in bank.manager.credits().reservations} == {"1"}
    assert len(bank.manager.credits().reservations) == 2


def test_a_reservation_that_a_recreate_lowered_before_it_died_is_raised_again(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    old = bank.create()
    credits_ = bank.manager.services.credits
    credits_.reserve("zzzzzzzzzzzz", Decimal(1), consumer="adm:tester", lowered=(old.id, Decimal("0.01")))
    assert credits_.reserved(old.id) == Decimal("0.01")
    bank.now += 10_000
    credits_.release("zzzzzzzzzzzz")
    bank.manager.reconcile(apply=True, grace=0.0)
    assert credits_.reserved(old.id) == Decimal(1)
    assert bank.manager.reconcile(apply=True, grace=0.0).actions == []


def test_a_recreate_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    here = installed(tmp_path)
    new = here.manager.recreate(create(here, name="k3v9").id)
    assert [name.rpartition("sbx-")[2] for name in left_over(tmp_path)] == [new.id]
