"""A run on a host over SSH: killed at its steps, killed while the host is cut off, interrupted while it is silent."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest

from sandboxer.bootstrap import install
from sandboxer.errors import Interruption
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Streams
from sandboxer.models import Request
from sandboxer.state import State
from tests.crash.sweep import Sweep
from tests.installations import environment, lay_out
from tests.testbed.census import Census
from tests.testbed.components import need
from tests.testbed.fault_proxy import FaultProxy, Mode
from tests.testbed.sshd import Sshd


class FarSweep(Sweep):
    """A sweep that passes over an engine of this machine without its daemon."""

    def settle(self) -> list[str]:
        return [text for text in super().settle() if "'extension': 'ext.compose-ssh'" not in text]


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[FaultProxy]:
    need("sshd", "rsync")
    with Sshd(tmp_path / "sshd") as server, FaultProxy(server.port) as between:
        settings = msgspec.structs.replace(
            server.settings(tmp_path / "work"), port=between.port, host_key=server.fingerprint
        )
        given = {name: value for name, value in msgspec.to_builtins(settings).items() if value}
        lay_out(tmp_path, config=json.dumps({"hosts": {"far": given}}))
        yield between


@pytest.fixture
def sweep(proxy: FaultProxy, tmp_path: Path) -> Iterator[Sweep]:
    work = tmp_path / "work"
    before = Census.take(dirs=[work], marks=[str(work)])
    made = FarSweep(
        environment(tmp_path),
        {"profile": "profile.native", "host": "far"},
        lambda: Census.take(dirs=[work], marks=[str(work)]) - before,
    )
    yield made
    proxy.set(Mode.PASS)
    made.clear()


def test_a_run_killed_at_any_step_leaves_nothing_after_reconcile(sweep: Sweep) -> None:
    """Promises 1 and 2, for the one-shot over a real sshd."""
    assert {where: wrong for where, wrong in sweep.kills_of_run(check=6) if wrong} == {}


def test_what_a_killed_run_left_on_a_host_that_is_cut_off_is_kept_in_mind_until_it_is_back(
    sweep: Sweep, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Promise 6: silence is not absence, and what is wished gone goes once it can."""
    struck = sweep.killed_run(share=0.7)
    proxy.set(Mode.BLACKHOLE)
    here = install(environment(tmp_path), relay_in_background=False)
    limits = msgspec.structs.replace(here.manager.services.limits, sweep_one=4)
    here.manager.services = dataclasses.replace(here.manager.services, limits=limits)
    assert here.manager.reconcile(apply=True, force=True).remaining, struck
    assert len(here.manager.list()) == 1, struck
    here.close()
    assert (tmp_path / "work").is_dir()
    proxy.set(Mode.PASS)
    assert sweep.settle() == [], struck
    assert [record.id for record in sweep.records() if record.state != State.FAILED] == [], struck
    assert sweep.remains("after the host came back") == [], struck


def test_an_interrupt_while_the_host_is_silent_tells_what_may_be_left_and_the_next_sweep_takes_it_away(
    sweep: Sweep, proxy: FaultProxy, tmp_path: Path
) -> None:
    here = install(environment(tmp_path), relay_in_background=False)

    def said(_chunk: bytes) -> None:
        proxy.set(Mode.BLACKHOLE)
        raise Interruption

    streams = Streams(stdout=said, stderr=lambda _chunk: None)
    command = Exec(argv=("sh", "-c", "echo it runs; sleep 600"))
    with pytest.raises(Interruption) as raised:
        here.manager.run(
            here.manager.plan(Request(profile="profile.native", host="far")),
            command,
            lambda _record: nullcontext(streams),
        )
    (record,) = here.manager.list()
    assert (raised.value.left, raised.value.sandbox_id) == ("going", record.id)
    assert record.state == State.DESTROYING
    here.close()
    proxy.set(Mode.PASS)
    assert sweep.settle() == []
    assert sweep.records() == []
    assert sweep.remains("after the host came back") == []
