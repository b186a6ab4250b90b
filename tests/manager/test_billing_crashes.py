"""SIGKILL on both sides of each write of a verb on a metered sandbox; then again: one charge (promises 19, 20)."""

from __future__ import annotations

import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from sandboxer.models import Sandbox
from sandboxer.state import State
from tests.crash.sweep import REPOSITORY, chosen
from tests.installations import environment, left_over
from tests.manager.metered import Bank, book


class Kills:
    """A metered installation whose processes are killed."""

    def __init__(self, root: Path, *, planted: bool = False) -> None:
        self.root = root
        self._more = ["planted"] if planted else []
        self.bank = Bank(root)

    def run(self, step: int, verb: str, argument: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "tests.manager.billing_crash_process", str(step), verb, argument, *self._more]
        env = {**environment(self.root), "PYTHONPATH": str(REPOSITORY)}
        return subprocess.run(words, env=env, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)

    def whole(self, verb: str, argument: str) -> int:
        """How many steps it takes."""
        done = self.run(-1, verb, argument)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    def dies(self, step: int, verb: str, argument: str) -> str:
        """Kill it there; where that was."""
        dead = self.run(step, verb, argument)
        assert dead.returncode == -signal.SIGKILL, (dead.returncode, dead.stderr)
        return dead.stderr.strip().splitlines()[-1]

    def records(self, *, ended: bool = False) -> list[Sandbox]:
        return list(Bank(self.root, money=None).manager.list(ended=ended))

    def wrong(self) -> list[str]:
        """After the last sweep, with every sandbox gone: what does not add up."""
        for verb in ("reconcile", "expire"):
            assert self.run(-1, verb, "-").returncode == 0
        for record in self.records():
            assert self.run(-1, "destroy", record.id).returncode == 0
        found, records = book(self.root), self.records(ended=True)
        charged = [entry for entry in found.entries if entry.kind == "settle"]
        used = sum((Decimal(record.usage.actual_usd) for record in records if record.usage), Decimal(0))
        names = [entry.usage_id for entry in charged]
        told = [e.event_id for e in self.bank.manager.events() if e.event_type == "usage.metered"]
        return [
            *(["something is still reserved"] if found.accounts.reserved else []),
            *([f"{names} are not once each"] if len(set(names)) != len(names) else []),
            *(
                [f"{found.accounts.spent} is spent, {used} was used"]
                if found.accounts.spent != used * 1_000_000
                else []
            ),
            *([f"left: {item}" for item in left_over(self.root)]),
            *(["a sandbox lives"] if any(record.state != State.DESTROYED for record in records) else []),
            *(["more is told than ended"] if len(told) > len(records) else []),
        ]


@pytest.fixture
def kills(tmp_path: Path) -> Kills:
    return Kills(tmp_path)


def test_a_create_that_is_killed_at_any_write_reserves_nothing_for_ever_and_charges_for_no_more_than_it_used(
    kills: Kills,
) -> None:
    """Promise 19."""
    total = kills.whole("create", "profile.fake")
    assert kills.wrong() == []
    assert total >= 8, "the book and the records, before and after"
    for step in chosen(total, 10):
        where = kills.dies(step, "create", "profile.fake")
        assert kills.wrong() == [], where


@pytest.mark.parametrize("again", ["destroy", "expire", "reconcile"])
def test_a_destroy_that_is_killed_at_any_write_and_repeated_charges_once(kills: Kills, again: str) -> None:
    """Promises 19 and 20: between the write that ends the record and the one that charges for it, too."""
    total = 6  # the wish, the end, the charge
    for step in range(total):
        assert kills.whole("create", "profile.fake") > 0
        (record,) = kills.records()
        where = kills.dies(step, "destroy", record.id)
        assert kills.run(-1, again, record.id if again == "destroy" else "-").returncode == 0
        if step:
            assert Bank(kills.root, money=None).reserved == 0, where
        assert kills.wrong() == [], where
    settled = [entry.sandbox_id for entry in book(kills.root).entries if entry.kind == "settle"]
    assert len(settled) == len(set(settled)) == total
    assert kills.bank.spent > 0


def test_a_sweep_that_is_killed_while_it_settles_is_repeated(kills: Kills) -> None:
    """Promise 19."""
    for step in range(2):
        kills.whole("create", "profile.fake")
        (record,) = kills.records()
        kills.dies(4, "destroy", record.id)  # the record has ended, the book does not know
        assert Bank(kills.root, money=None).reserved > 0
        kills.dies(step, "expire", "-")
        assert kills.wrong() == []


def test_a_renewal_that_is_killed_between_the_book_and_the_record_costs_nothing(kills: Kills) -> None:
    """Promise 19: what is reserved too much is given back at the end."""
    for step in range(4):
        kills.whole("create", "profile.fake")
        (record,) = kills.records()
        where = kills.dies(step, "extend-ttl", record.id)
        kills.run(-1, "extend-ttl", record.id)
        assert kills.wrong() == [], where


def test_the_sweep_sees_a_book_that_charges_whoever_asks(tmp_path: Path) -> None:
    """A check that was not seen to fail proves nothing."""
    kills = Kills(tmp_path, planted=True)
    kills.whole("create", "profile.fake")
    (record,) = kills.records()
    kills.run(-1, "destroy", record.id)
    kills.run(-1, "destroy", record.id)
    assert any("is spent" in complaint for complaint in kills.wrong())
