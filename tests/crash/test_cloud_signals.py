"""Ctrl-C, SIGTERM and SIGHUP while a sandbox is made or ended at a provider."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import Command
from tests.crash.test_signals import SIGNALS, interrupt
from tests.fakes import Cloud
from tests.fakes.daytona import FakeDaytona
from tests.fakes.e2b import FakeE2B
from tests.fakes.modal import FakeModal
from tests.sizes import scaled

MAKES: dict[str, tuple[type[FakeE2B | FakeDaytona | FakeModal], str, float]] = {
    "e2b": (FakeE2B, "profile.e2b-burst", 0.7),
    "daytona": (FakeDaytona, "profile.daytona-dev", 0.9),
    "modal": (FakeModal, "profile.modal-gpu", 1.8),
}
"""The fake, its profile, and how long a create takes here, in seconds."""


@pytest.fixture(params=list(MAKES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Command, Cloud, str, float]]:
    make, profile, seconds = MAKES[request.param]
    with make(latency=0.05) as cloud:
        sandboxer = Command(tmp_path, more=dict(cloud.environment()))
        assert sandboxer("credits", "add", "1000").status == 0
        yield sandboxer, cloud, profile, seconds


def test_a_signal_at_any_moment_leaves_nothing_at_the_provider(place: tuple[Command, Cloud, str, float]) -> None:
    """Promise 3: 0 leaks after one reconcile; the command ends within 10 s; and nothing stays reserved."""
    sandboxer, cloud, profile, seconds = place
    chance = random.Random(19)  # noqa: S311 - moments, not secrets
    words = ("create", "--profile", profile, "--json")
    for turn in range(scaled(3, soak=200)):
        number, moment = SIGNALS[turn % 3], chance.uniform(0.1, seconds)
        status, took = interrupt(sandboxer, words, number, moment)
        assert took < 10
        assert status in (128 + number, -number, 0), f"{status} after {moment:.3f} s"
        report = sandboxer("reconcile", "--apply", "--json")
        assert report.status == 0, report
        for record in sandboxer("list", "--json").document["sandboxes"]:
            assert record["state"] in ("ready", "failed")
            _, took = interrupt(sandboxer, ("destroy", record["id"]), number, chance.uniform(0.1, 0.4))
            assert took < 10
            assert sandboxer("reconcile", "--apply", "--json").status == 0
            assert sandboxer("destroy", record["id"]).status == 0
        assert list(cloud.census()) == [], f"signal {number} after {moment:.3f} s"
        assert sandboxer("credits", "show", "--json").document["reservations"] == []
