"""SIGKILL inside create, destroy and run of a compose sandbox on a host over SSH."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.sweep import Sweep
from tests.installations import environment, lay_out
from tests.testbed.census import Census
from tests.testbed.components import need
from tests.testbed.engines import Docker
from tests.testbed.hosts import ComposeHost, need_kind
from tests.testbed.repositories import minimal

pytestmark = pytest.mark.engines
PROFILE = """\
id: profile.quick
version: 1.0.0
extension: ext.compose-ssh
options: {publish: remapped, settle: 0.2}
ttl: {default: 1h}
inputs:
  repo: {type: path, required: true}
"""


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    need("docker compose")
    with Docker() as engine:
        engine.build_base()
        yield engine


@pytest.fixture
def sweep(docker: Docker, tmp_path: Path) -> Iterator[Sweep]:
    need_kind("docker compose")
    with ComposeHost(tmp_path / "host", "docker compose", docker) as host:
        lay_out(tmp_path, config=json.dumps({"hosts": {host.name: host.config}}))
        (tmp_path / "config" / "profiles" / "profile.quick.yaml").write_text(PROFILE)
        work = Path(host.work_dir)

        def take() -> Census:
            return Census.take(engines=[docker], dirs=[work], marks=[str(work)])

        before = take()
        asked = {
            "profile": "profile.quick",
            "inputs": {"repo": str(minimal(tmp_path / "repository"))},
            "host": host.name,
        }
        made = Sweep(environment(tmp_path), asked, lambda: take() - before)
        yield made
        made.clear()
    docker.wipe()


def test_a_create_killed_at_any_step_leaves_nothing_after_reconcile(sweep: Sweep) -> None:
    """Promise 1: on a real engine, over a real sshd."""
    assert {where: wrong for where, wrong in sweep.kills_of_create(check=6) if wrong} == {}


def test_a_destroy_killed_at_any_step_is_finished_by_reconcile(sweep: Sweep) -> None:
    """Promise 2."""
    assert {where: wrong for where, wrong in sweep.kills_of_destroy(check=4) if wrong} == {}


def test_a_run_killed_at_any_step_leaves_nothing_after_reconcile(sweep: Sweep) -> None:
    """Promises 1 and 2, for the one-shot."""
    assert {where: wrong for where, wrong in sweep.kills_of_run(check=6) if wrong} == {}
