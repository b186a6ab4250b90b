"""SIGKILL inside create, destroy and reconcile with a provider: at each write of ours, and on both sides of each
request, by the provider's fake itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from sandboxer.bootstrap import install
from tests.crash.killing_clouds import DeadlyDaytona, DeadlyE2B, DeadlyModal
from tests.crash.sweep import Sweep
from tests.installations import environment, lay_out

PROFILES = {
    "e2b": "profile.e2b-burst",
    "daytona": "profile.daytona-dev",
    "modal": "profile.modal-gpu",
    "stub": "profile.saas-stub",
}
Cloud = DeadlyE2B | DeadlyDaytona | DeadlyModal
CLOUDS: Mapping[str, type[Cloud]] = {"e2b": DeadlyE2B, "daytona": DeadlyDaytona, "modal": DeadlyModal}


class CloudSweep(Sweep):
    """A sweep whose steps are those of the client's own writes, then those of the cloud."""

    def __init__(self, settings: Mapping[str, str], profile: str, cloud: Cloud | None) -> None:
        super().__init__(settings, {"profile": profile}, self.left)
        self.cloud = cloud
        self.own: dict[str, int] = {}

    def left(self) -> list[str]:
        """What lives at the provider, and what is reserved for nothing."""
        here = install(self._environment, relay_in_background=False)
        living = list(self.cloud.census()) if self.cloud is not None else []
        return living + [f"reserved for {one.sandbox_id}" for one in here.manager.services.credits.open()]

    def victim(self, step: int, verb: str, argument: str) -> subprocess.CompletedProcess[str]:
        own = self.own.get(verb)
        theirs = own is not None and step >= own
        if self.cloud is not None:
            self.cloud.steps, self.cloud.struck = 0, ""
            self.cloud.strike = step - (own or 0) if theirs else None
        dead = super().victim(-1 if theirs else step, verb, argument)
        if self.cloud is not None:
            self.cloud.victim = None
            dead.stderr += f"\n{self.cloud.struck}" if self.cloud.struck else ""
        return dead

    def started(self, pid: int) -> None:
        if self.cloud is not None:
            self.cloud.victim = pid

    def steps_of(self, verb: str, argument: str) -> int:
        self.own.pop(verb, None)
        self.own[verb] = super().steps_of(verb, argument)
        return self.own[verb] + (0 if self.cloud is None else self.cloud.steps)

    def charged_wrongly(self) -> str | None:
        """Promise 19: what was charged is what the records say, each once; nothing is below zero."""
        here = install(self._environment, relay_in_background=False)
        balance = here.manager.services.credits.show()
        ended = here.manager.list(ended=True)
        due = sum((Decimal(r.usage.actual_usd) for r in ended if r.usage is not None), Decimal(0))
        if Decimal(balance.spent_usd) != due or Decimal(balance.available_usd) < 0:
            return f"{balance} where the records say {due}"
        return None


@pytest.fixture(params=list(PROFILES))
def sweep(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CloudSweep]:
    lay_out(tmp_path)
    cloud = CLOUDS[request.param]() if request.param in CLOUDS else None
    if cloud is not None:
        cloud.start()
    try:
        settings = environment(tmp_path, **(cloud.environment() if cloud is not None else {}))
        install(settings, relay_in_background=False).manager.services.credits.add(Decimal(100))
        made = CloudSweep(settings, PROFILES[request.param], cloud)
        yield made
        made.clear()
        assert made.charged_wrongly() is None
    finally:
        if cloud is not None:
            cloud.stop()


def test_a_create_killed_at_any_step_leaves_nothing_at_the_provider(sweep: CloudSweep) -> None:
    """Promise 1: 0 left over, 0 records lost, 0 stuck; and nothing stays reserved."""
    assert {where: wrong for where, wrong in sweep.kills_of_create(check=14) if wrong} == {}


def test_a_destroy_killed_at_any_step_is_finished_and_charged_once(sweep: CloudSweep) -> None:
    """Promises 2 and 19."""
    assert {where: wrong for where, wrong in sweep.kills_of_destroy(check=12) if wrong} == {}


@pytest.mark.parametrize("sweep", ["e2b", "daytona"], indirect=True)
@pytest.mark.parametrize("verb", ["stop", "start"])
def test_a_stop_or_start_killed_at_any_step_is_settled_by_what_the_provider_shows(sweep: CloudSweep, verb: str) -> None:
    assert {where: wrong for where, wrong in sweep.kills_of_power(verb, check=8) if wrong} == {}


def test_a_run_killed_at_any_step_leaves_nothing_at_the_provider(sweep: CloudSweep) -> None:
    """Promises 1 and 2, for the one-shot."""
    assert {where: wrong for where, wrong in sweep.kills_of_run(check=10) if wrong} == {}


def test_a_reconcile_killed_at_any_step_converges_in_two_further_runs(sweep: CloudSweep) -> None:
    """Promise 2."""
    assert {where: wrong for where, wrong in sweep.kills_of_reconcile(check=6) if wrong} == {}


def test_the_sweep_sees_what_is_left_when_nothing_settles(sweep: CloudSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness catches a fault: without reconcile, a killed create leaves things."""
    monkeypatch.setattr(sweep, "settle", list)
    assert any(wrong for _, wrong in sweep.kills_of_create(check=8))
