"""The host's marks: where the canary is planted, how the answer is read, and that nothing of it stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.errors import BackendError
from sandboxer.hosts.local import LocalHost
from sandboxer.models import HostSettings
from sandboxer.selfcheck import host_marks
from sandboxer.timing import Deadline

WORK = "/srv/sandboxer"
OWN = f"{WORK}/sbx-k3v9x2m7q4ta"


def test_the_file_is_planted_beside_the_workspace_so_that_teardown_takes_it_too() -> None:
    where = host_marks.ground(WORK, f"{OWN}/workspace", now=1000)
    assert where.own_directory == OWN
    assert where.plant.startswith(f"{OWN}/.sandboxer-canary-1000-")


@pytest.mark.parametrize("remote", [None, OWN, "/elsewhere/workspace", "/"])
def test_without_a_directory_around_the_workspace_it_is_planted_in_the_work_directory(remote: str | None) -> None:
    where = host_marks.ground(WORK, remote, now=1000)
    assert where.own_directory is None
    assert where.plant.startswith(f"{WORK}/.sandboxer-canary-1000-")


def local(work_dir: Path) -> LocalHost:
    return LocalHost("local", HostSettings(work_dir=str(work_dir)))


def test_this_host_tells_its_marks(tmp_path: Path) -> None:
    where = host_marks.ground(str(tmp_path), None)
    known = host_marks.begin(local(tmp_path), where, Deadline(20))
    assert Path(known.planted).read_text() == known.secret
    assert known.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert known.namespaces["pid"] == Path("/proc/self/ns/pid").stat().st_ino
    info = Path("/usr").stat()
    assert known.identities["/usr"] == f"{info.st_dev}:{info.st_ino}"
    info = tmp_path.stat()
    assert known.identities[str(tmp_path)] == f"{info.st_dev}:{info.st_ino}"
    assert str(tmp_path.parent) in known.private
    assert "/" not in known.private
    assert any(pid == 1 for pid, _ in known.processes)
    assert all(not address.startswith("127.") for address, _ in known.connect)
    assert known.telemetry["memory_total_bytes"] > 0
    assert known.secret not in str(known.targets(listener=1))
    host_marks.end(local(tmp_path), where, Deadline(20))
    assert list(tmp_path.iterdir()) == []


def test_a_canary_that_a_killed_check_left_is_removed_by_age(tmp_path: Path) -> None:
    old, young = tmp_path / ".sandboxer-canary-1000-ab", tmp_path / ".sandboxer-canary-99999999999-ab"
    strange = tmp_path / ".sandboxer-canary-notes"
    for path in (old, young, strange):
        path.touch()
    where = host_marks.ground(str(tmp_path), None)
    host_marks.begin(local(tmp_path), where, Deadline(20))
    host_marks.end(local(tmp_path), where, Deadline(20))
    assert {path.name for path in tmp_path.iterdir()} == {young.name, strange.name}


def test_where_nothing_can_be_planted_nothing_is_claimed(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(BackendError) as caught:
        host_marks.begin(local(missing), host_marks.ground(str(missing), None), Deadline(20))
    assert str(missing) in caught.value.hint


def test_the_owner_of_a_mark_is_told_by_its_inode(tmp_path: Path) -> None:
    mark = tmp_path / "sbx-k3v9x2m7q4ta" / ".sandboxer" / "owner"
    mark.parent.mkdir(parents=True)
    mark.touch()
    where = host_marks.ground(str(tmp_path), str(tmp_path / "sbx-k3v9x2m7q4ta"))
    owners = host_marks.end(local(tmp_path), where, Deadline(20))
    assert owners == {mark.stat().st_ino: mark.stat().st_uid}


SESSION = """\
@home
/home/ops
/tmp/ssh-x/agent.1
/run/user/1000
@session
198.51.100.9 50000 203.0.113.7 2222
@addresses
           |-- 127.0.0.1
              /32 host LOCAL
           |-- 203.0.113.7
              /32 host LOCAL
           |-- 203.0.113.0
              /24 link UNICAST
@addresses6
20010db8000000000000000000000001 02 40 00 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
fe800000000000000000000000000001 02 40 20 80     eth0
@processes
77 (odd (name) x) S 1 77 77 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4321 0 0
garbage
"""


def test_over_ssh_the_daemon_is_an_address_to_try() -> None:
    known = host_marks.read_facts(SESSION, host_marks.ground(WORK, None), private=[WORK], secret="s")
    assert known.connect == (("203.0.113.7", 2222), ("2001:0db8:0000:0000:0000:0000:0000:0001", 2222))
    assert known.processes == ((77, 4321),)
    assert "/tmp/ssh-x/agent.1" in known.sockets
    assert "/run/user/1000/docker.sock" in known.sockets
    assert {"/home/ops", WORK} <= known.private


@given(st.lists(st.one_of(st.sampled_from(SESSION.splitlines()), st.text(max_size=40)), max_size=40))
def test_any_answer_is_facts(lines: list[str]) -> None:
    host_marks.read_facts("\n".join(lines), host_marks.ground(WORK, None), private=[WORK], secret="s")
