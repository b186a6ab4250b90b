"""Leases: who uses a sandbox right now, decided together with whether it may end (promise 16)."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from sandboxer.errors import Conflict, Invalid, NotFound, Unavailable
from sandboxer.locks import Leases
from sandboxer.locks.byte_locks import GUARD, LockFile
from tests.locks.children import eventually, line, running, start

ID = "k3v9x2m7q4ta"
HOLD = "with Leases(data).hold(sys.argv[2], holder='exec', check=lambda: 0): tell('there'); sys.stdin.read()"


def fine() -> str:
    return "the record"


def files(data: Path) -> set[str]:
    return {path.name for path in (data / "leases" / ID).iterdir()}


def lone_lease(data: Path) -> Path:
    (name,) = files(data) - {".active"}
    return data / "leases" / ID / name


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_held_lease_is_active_for_the_length_of_the_block(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    assert leases.active(ID) == []
    with leases.hold(ID, holder="exec", check=fine) as answer:
        assert answer == "the record"
        (lease,) = leases.active(ID)
        assert (lease.sandbox_id, lease.holder, lease.expires_at) == (ID, "exec", None)
        assert lease.acquired_at == pytest.approx(time.time(), abs=5)
    assert leases.active(ID) == []
    assert files(tmp_path) == {".active"}


def test_a_lease_that_check_refuses_never_was(tmp_path: Path) -> None:
    def ended() -> None:
        raise NotFound("it ended meanwhile")

    leases = Leases(tmp_path)
    with pytest.raises(NotFound, match="ended meanwhile"), leases.hold(ID, holder="exec", check=ended):
        pytest.fail("the block must not run")
    with pytest.raises(NotFound, match="ended meanwhile"):
        leases.grant(ID, holder="api", seconds=60, check=ended)
    assert leases.active(ID) == []
    assert leases.last_active(ID) is None
    assert list((tmp_path / "leases").iterdir()) == []


def test_the_lease_of_a_killed_process_ends_by_itself(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    with running(HOLD, tmp_path, ID) as child:
        assert [lease.holder for lease in leases.active(ID)] == ["exec"]
        started = leases.last_active(ID)
        child.kill()
        child.wait()
        assert leases.active(ID) == []
    assert files(tmp_path) == {".active"}
    noticed = leases.last_active(ID)
    assert started is not None
    assert noticed is not None
    assert noticed > started


def test_children_of_a_holder_do_not_keep_its_lease(tmp_path: Path) -> None:
    code = """
import subprocess
with Leases(data).hold(sys.argv[2], holder="exec", check=lambda: 0):
    subprocess.Popen(["sleep", "3"], close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    tell("there")
    sys.stdin.read()
"""
    with running(code, tmp_path, ID) as child:
        assert len(Leases(tmp_path).active(ID)) == 1
        child.kill()
        child.wait()
        assert Leases(tmp_path).active(ID) == []


def test_activity_is_noted_at_the_start_and_at_the_end(tmp_path: Path) -> None:
    clock = Clock()
    leases = Leases(tmp_path, clock=clock)
    assert leases.last_active(ID) is None
    with leases.hold(ID, holder="exec", check=fine):
        assert leases.last_active(ID) == clock.now
        clock.now += 500
    assert leases.last_active(ID) == clock.now


def test_several_hold_at_once_and_are_listed_oldest_first(tmp_path: Path) -> None:
    clock = Clock()
    leases = Leases(tmp_path, clock=clock)
    with leases.hold(ID, holder="first", check=fine):
        clock.now += 1
        with leases.hold(ID, holder="second", check=fine):
            clock.now += 1
            leases.grant(ID, holder="third", seconds=10, check=fine)
            assert [lease.holder for lease in leases.active(ID)] == ["first", "second", "third"]
        assert [lease.holder for lease in leases.active(ID)] == ["first", "third"]
    assert leases.known() == {ID}


def test_a_granted_lease_ends_at_its_time_which_counts_as_activity(tmp_path: Path) -> None:
    clock = Clock()
    leases = Leases(tmp_path, clock=clock)
    lease = leases.grant(ID, holder="api", seconds=60, check=fine)
    assert lease.expires_at == clock.now + 60
    assert list(leases.active(ID)) == [lease]
    clock.now += 3600
    assert leases.active(ID) == []
    assert leases.last_active(ID) == lease.expires_at
    assert files(tmp_path) == {".active"}


def test_a_granted_lease_is_renewed_and_released(tmp_path: Path) -> None:
    clock = Clock()
    leases = Leases(tmp_path, clock=clock)
    lease = leases.grant(ID, holder="api", seconds=60, check=fine)
    clock.now += 59
    renewed = leases.renew(ID, lease.lease_id, 60)
    clock.now += 59
    assert list(leases.active(ID)) == [renewed]
    assert (renewed.lease_id, renewed.acquired_at) == (lease.lease_id, lease.acquired_at)
    leases.release(ID, lease.lease_id)
    assert leases.active(ID) == []
    assert leases.last_active(ID) == clock.now
    with pytest.raises(NotFound):
        leases.release(ID, lease.lease_id)


def test_a_lease_that_ran_out_is_not_renewed(tmp_path: Path) -> None:
    clock = Clock()
    leases = Leases(tmp_path, clock=clock)
    lease = leases.grant(ID, holder="api", seconds=60, check=fine)
    clock.now += 60
    with pytest.raises(NotFound) as caught:
        leases.renew(ID, lease.lease_id, 60)
    assert caught.value.sandbox_id == ID
    assert leases.active(ID) == []


def test_a_held_lease_is_not_ended_by_its_id(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    with leases.hold(ID, holder="exec", check=fine):
        (lease,) = leases.active(ID)
        for end in (leases.release, lambda sandbox, name: leases.renew(sandbox, name, 1)):
            with pytest.raises(NotFound):
                end(ID, lease.lease_id)
        assert list(leases.active(ID)) == [lease]


@pytest.mark.parametrize("name", ["", ".active", "../../.locks", "x" * 12, "A" * 12, "x" * 300])
def test_a_lease_that_is_not_there_is_not_found(tmp_path: Path, name: str) -> None:
    leases = Leases(tmp_path)
    leases.grant(ID, holder="api", seconds=60, check=fine)
    with pytest.raises(NotFound):
        leases.release(ID, name)


@pytest.mark.parametrize("text", ["", "..", "K3V9X2M7Q4TA", "../../../etc", "k3v9x2m7q4t/"])
def test_what_is_no_id_has_no_leases(tmp_path: Path, text: str) -> None:
    leases = Leases(tmp_path)
    with pytest.raises(Invalid):
        leases.active(text)
    with pytest.raises(Invalid):
        leases.forget(text)


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    granted = leases.grant(ID, holder="api", seconds=60, check=fine)
    directory = tmp_path / "leases" / ID
    (directory / "README").write_text("not ours")
    (directory / "abcdefabcdef").write_text("{not json")
    (directory / "abcdefabcdeg").write_text(json.dumps({"lease_id": "another"}))
    (directory / "abcdefabcdeh").mkdir()
    (directory / "abcdefabcdei").symlink_to("/etc/passwd")
    os.mkfifo(directory / "abcdefabcdej")
    (directory / "abcdefabcdek").write_text((directory / granted.lease_id).read_text())
    assert list(leases.active(ID)) == [granted]
    leases.release(ID, granted.lease_id)
    with leases.guard(ID):
        assert leases.active(ID) == []
    assert len(files(tmp_path)) == 8


def test_a_lease_cut_short_by_death_before_it_began_is_swept(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    leases.grant(ID, holder="api", seconds=60, check=fine)
    left = tmp_path / "leases" / ID / ".new-abcdefabcdef"
    left.write_text("")
    assert len(leases.active(ID)) == 1
    with leases.guard(ID):
        assert not left.exists()


def test_an_ended_sandbox_is_forgotten(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    leases.forget(ID)
    assert not (tmp_path / "leases").exists()
    leases.grant(ID, holder="api", seconds=60, check=fine)
    with leases.hold(ID, holder="exec", check=fine):
        leases.forget(ID)
        assert leases.active(ID) == []
    assert list((tmp_path / "leases").iterdir()) == []
    assert leases.known() == frozenset()


def test_nobody_begins_while_somebody_decides(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    began = threading.Event()

    def use() -> None:
        with leases.hold(ID, holder="exec", check=fine):
            began.set()

    with leases.guard(ID):
        thread = threading.Thread(target=use)
        thread.start()
        assert not began.wait(0.1)
        assert leases.active(ID) == []
    assert began.wait(5)
    thread.join()


def test_a_guard_that_is_never_free_is_a_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandboxer.locks.leases._GUARD_WAIT", 0.05)
    leases = Leases(tmp_path)
    with leases.guard(ID), pytest.raises(Conflict) as caught, leases.hold(ID, holder="exec", check=fine):
        pytest.fail("the block must not run")
    assert caught.value.retryable
    assert caught.value.sandbox_id == ID


def test_a_decider_that_is_killed_blocks_nobody(tmp_path: Path) -> None:
    with running("with Leases(data).guard(sys.argv[2]): tell('there'); sys.stdin.read()", tmp_path, ID) as child:
        child.kill()
        child.wait()
        with Leases(tmp_path).hold(ID, holder="exec", check=fine):
            pass


def test_files_are_private(tmp_path: Path) -> None:
    leases = Leases(tmp_path / "data")
    with leases.hold(ID, holder="exec", check=fine):
        found = list((tmp_path / "data").rglob("*"))
        assert len(found) == 5
        for path in found:
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_full_disk_is_unavailable_and_leaves_no_lease(tmp_path: Path) -> None:
    """On a real file system without a free block; deciding that the sandbox ends still works there."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting needs root")
    try:
        leases = Leases(disk)
        with leases.guard(ID):
            pass
        with pytest.raises(OSError, match="No space"):
            (disk / "ballast").write_bytes(bytes(1024 * 1024))
        with pytest.raises(Unavailable) as caught:
            leases.grant(ID, holder="api", seconds=60, check=fine)
        assert "No space" in caught.value.message
        assert caught.value.hint
        with leases.guard(ID):
            assert leases.active(ID) == []
        (disk / "ballast").unlink()
        with leases.hold(ID, holder="exec", check=fine):
            assert len(leases.active(ID)) == 1
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_data_directory_that_refuses_is_unavailable(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    (tmp_path / "leases").write_text("a file where the directory should be")
    with pytest.raises(Unavailable):
        leases.active(ID)
    with pytest.raises(Unavailable):
        leases.grant(ID, holder="api", seconds=60, check=fine)


USERS = """
import time
leases, record, ended = Leases(data), data / "record", 0
class Ended(Exception): pass
def check():
    if record.read_text() != "ready":
        raise Ended
while not (data / "stop").exists():
    try:
        with leases.hold(sys.argv[2], holder="exec", check=check):
            # the record as it is while the lease is held: a decider that overlooked us shows here
            if record.read_text() != "ready":
                tell("BROKEN")
            uses = open(data / "uses", "a"); uses.write("."); uses.close()
    except Ended:
        time.sleep(0.0005)
tell("there")
"""


def race(data: Path, *, decisions: int, guarded: bool, at_least: int = 0) -> tuple[int, int]:
    """Processes that use a sandbox against one that ends it whenever it sees no lease; how often it ended, and how
    often a user found itself in an ended sandbox. It goes on for a moment, on a busy machine until it has ended
    `at_least` so often."""
    leases, record = Leases(data), data / "record"
    record.write_text("ready")
    users = [start(USERS, data, ID) for _ in range(2)]
    ended, begun = 0, time.monotonic()
    assert eventually(lambda: (data / "uses").exists(), seconds=10)

    def replace(text: str) -> None:
        (data / "record.new").write_text(text)
        (data / "record.new").replace(record)

    while ended < decisions and time.monotonic() - begun < (2.5 if ended >= at_least else 60):
        if guarded:
            with leases.guard(ID):
                unused = not leases.active(ID)
                if unused:
                    replace("expired")
        else:
            unused = not leases.active(ID)
            if unused:
                replace("expired")
        if unused:
            ended += 1
            replace("ready")
    (data / "stop").write_text("")
    broken = 0
    for user in users:
        while (word := line(user)) == "BROKEN":
            broken += 1
        assert word == "there"
        user.communicate()
        assert user.returncode == 0
    return ended, broken


def test_a_sandbox_never_ends_under_a_lease_that_began(tmp_path: Path) -> None:
    ended, broken = race(tmp_path, decisions=250, guarded=True, at_least=20)
    assert ended >= 20
    assert broken == 0


def test_without_the_guard_the_race_is_seen(tmp_path: Path) -> None:
    """The harness above can fail: the same decider without the guard ends sandboxes that are in use."""
    for attempt in range(5):
        data = tmp_path / str(attempt)
        data.mkdir()
        if race(data, decisions=400, guarded=False)[1]:
            return
    pytest.fail("two users and an unguarded decider never met")


def test_the_guard_of_one_sandbox_is_not_the_lock_of_its_work(tmp_path: Path) -> None:
    from sandboxer.locks import SandboxLocks
    from sandboxer.timing import Deadline

    with SandboxLocks(tmp_path).acquire(ID, Deadline(1), "destroying it"), Leases(tmp_path).guard(ID):
        assert LockFile(tmp_path).try_take(ID, first=GUARD) is None
