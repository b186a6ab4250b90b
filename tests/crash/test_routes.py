"""SIGKILL inside a create that goes from one backend to the next."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxer.bootstrap import install
from sandboxer.state import State
from tests.crash.sweep import Sweep
from tests.installations import environment, lay_out

BACKENDS = ("broken", "mute", "willing")


ASKED = {"profile": "profile.routed"}


class Forgetful(Sweep):
    """Each create starts without what was learnt of the backends before: else a circuit opens, and it takes fewer
    steps."""

    health: Path

    def victim(self, step: int, verb: str, argument: str) -> subprocess.CompletedProcess[str]:
        self.health.unlink(missing_ok=True)
        return super().victim(step, verb, argument)


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    lay_out(tmp_path)
    config = tmp_path / "config"
    for name in BACKENDS:
        manifest = {
            "id": f"ext.{name}",
            "version": "1.0.0",
            "class": f"tests.crash.failing_backends:{name.capitalize()}",
            "isolation": {"class": "none"},
            "self_hosted": False,
            "pricing_model": "metered",
            "prices": {"as_of": "2026-11-01", "source": "a test", "sandbox_hour": {"usd": "1"}},
        }
        (config / "extensions" / f"ext.{name}.yaml").write_text(json.dumps(manifest))
    route = {"strategy": "explicit", "candidates": [f"ext.{name}" for name in BACKENDS]}
    profile = {"id": "profile.routed", "version": "1.0.0", "ttl": {"default": "1h"}, "route": route}
    (config / "profiles" / "profile.routed.yaml").write_text(json.dumps(profile))

    def census() -> list[str]:
        return sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "work").glob("*/*sbx-*"))

    made = Forgetful(environment(tmp_path), ASKED, census)
    made.health = tmp_path / "data" / "health.json"
    install(environment(tmp_path), relay_in_background=False).manager.add_credits("1000")
    yield made
    made.clear()


def test_a_routed_create_killed_at_any_step_leaves_nothing_after_reconcile(sweep: Sweep, tmp_path: Path) -> None:
    """Promises 1 and 19: on none of the backends, and no money set aside for what is gone."""
    wrong: dict[str, list[str]] = {}
    struck = 0
    for where, found in sweep.kills_of_create(check=16):
        struck += 1
        manager = install(environment(tmp_path), relay_in_background=False).manager
        manager.reconcile(apply=True, grace=0.0)  # what was set aside before there was a record
        held = manager.credits().reserved_usd
        found += [] if held == "0" else [f"still reserved: {held}"]
        if found:
            wrong[where] = found
    assert wrong == {}
    assert struck >= 12


def test_the_create_that_is_killed_does_go_from_one_backend_to_the_next(sweep: Sweep) -> None:
    """The harness strikes what it is meant to strike."""
    sweep.steps_of("create", json.dumps(ASKED))
    (record,) = [record for record in sweep.records() if record.state == State.READY]
    assert [(one.extension, one.outcome) for one in record.route.decisions] == [
        ("ext.broken", "failed"),
        ("ext.mute", "failed"),
        ("ext.willing", "chosen"),
    ]


def test_the_sweep_sees_what_a_kill_between_two_backends_leaves(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness catches a fault: without reconcile, a killed create leaves things."""
    monkeypatch.setattr(sweep, "settle", list)
    assert any(found for _, found in sweep.kills_of_create(check=9))


def test_a_recreate_killed_at_any_step_leaves_one_sandbox_or_none_and_no_money_set_aside_for_another(
    sweep: Sweep,
) -> None:
    wrong, struck = dict[str, list[str]](), 0
    for where, found in sweep.kills_of_recreate(check=16):
        struck += 1
        if found:
            wrong[where] = found
    assert wrong == {}
    assert struck >= 12
