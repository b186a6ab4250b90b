"""Limits that hold, and words for those that do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.extensions.native.sandboxes import Bench, Box

MEMORY = Path("/sys/fs/cgroup/memory/cgroup.procs")


def _notes(box: Box) -> str:
    assert box.ready is not None
    return "; ".join(box.ready.isolation.notes)


def test_processes_are_bounded_for_the_sandbox_as_a_whole(bench: Bench) -> None:
    with bench.box(limits={"processes": 20}) as box:
        code, _, said = box.run("sh", "-c", "for i in $(seq 40); do sleep 20 & done; echo made")
        assert code != 0
        assert b"fork" in said.lower()
        # the host, and other sandboxes, are not touched by it
        with bench.box(limits={"processes": 20}) as other:
            assert other.sh("sleep 0 & sleep 0 & wait; echo fine") == "fine"


def test_limits_of_each_process(bench: Bench) -> None:
    limits = {"open_files": 64, "file_size": "1m", "cpu_time": 5}
    with bench.box(limits=limits) as box:
        assert box.sh("ulimit -n; ulimit -c; ulimit -t").split() == ["64", "0", "5"]
        assert box.run("sh", "-c", "head -c 2000000 /dev/zero >/workspace/big")[0] != 0
        assert (box.directory / "workspace/big").stat().st_size == 1024 * 1024
        assert box.run("prlimit", "--nofile=100000:100000", "true")[0] != 0


def test_commands_have_the_same_limits_as_services(bench: Bench) -> None:
    service = {"command": ["sh", "-c", "ulimit -n >/workspace/n; sleep 60"]}
    with bench.box(limits={"open_files": 64}, services={"a": service}, settle=0.1) as box:
        assert box.sh("cat n") == "64"


def test_a_higher_limit_than_the_hosts_is_the_hosts(bench: Bench) -> None:
    with bench.box(limits={"open_files": 10**12}) as box:
        assert int(box.sh("ulimit -n")) > 0


@pytest.mark.skipif(not os.access(MEMORY, os.W_OK), reason="no memory control group can be written here")
def test_memory_is_bounded_where_control_groups_can_be_written(bench: Bench) -> None:
    with bench.box(limits={"memory": "48m", "cpu": 1.5}) as box:
        group = MEMORY.parent / box.paths.name
        assert (group / "memory.limit_in_bytes").read_text().strip() == str(48 * 1024 * 1024)
        assert box.run("sh", "-c", "head -c 200000000 /dev/zero | tail -c 150000000 >/dev/null")[0] != 0
        assert box.sh("echo alive") == "alive"
        assert "not enforced" not in _notes(box)
        assert "memory" not in _notes(box)
        box.remove()
        assert not group.exists()


@pytest.mark.skipif(os.access(MEMORY, os.W_OK), reason="memory control groups can be written here")
def test_a_memory_limit_that_cannot_be_enforced_is_said(bench: Bench) -> None:
    with bench.box(limits={"memory": "48m"}) as box:
        assert "the memory limit 48m is not enforced" in _notes(box)


def test_what_nobody_limits_is_said(box: Box) -> None:
    assert "not limited: memory, cpu, disk" in _notes(box)
