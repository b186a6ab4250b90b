"""Locks: one command at a time works on a sandbox."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from sandboxer.errors import Conflict, Denied, Invalid, Unavailable, Unsupported
from sandboxer.locks import SandboxLock, SandboxLocks
from sandboxer.locks.byte_locks import GUARD, WORK, LockFile
from sandboxer.timing import Deadline
from tests.locks.children import eventually, line, running, start
from tests.store.children import Child
from tests.testbed.components import need

ID = "k3v9x2m7q4ta"
OTHER = "k3v9x2m7q4tb"

HOLD = "lock = SandboxLocks(data).try_acquire(sys.argv[2]); tell('there' if lock else 'busy'); sys.stdin.read()"


def test_a_sandbox_is_locked_for_one_and_others_stay_free(tmp_path: Path) -> None:
    locks = SandboxLocks(tmp_path)
    with locks.acquire(ID, Deadline(1), "destroying it"):
        assert locks.try_acquire(ID) is None
        other = locks.try_acquire(OTHER)
        assert other is not None
        other.close()
    again = locks.try_acquire(ID)
    assert again is not None
    again.close()
    again.close()


def test_a_lock_excludes_other_processes_and_ends_with_a_killed_one(tmp_path: Path) -> None:
    with running(HOLD, tmp_path, ID) as child:
        assert SandboxLocks(tmp_path).try_acquire(ID) is None
        child.kill()
        child.wait()
        with SandboxLocks(tmp_path).acquire(ID, Deadline(0), "destroying it") as lock:
            assert lock.fileno() > 2


def test_a_lock_that_is_not_got_by_the_deadline_is_a_conflict_that_says_for_what(tmp_path: Path) -> None:
    locks = SandboxLocks(tmp_path)
    with locks.acquire(ID, Deadline(1), "creating it"), pytest.raises(Conflict) as caught:
        locks.acquire(ID, Deadline(0.02), "destroying it")
    assert caught.value.sandbox_id == ID
    assert "being worked on by another command" in caught.value.message
    assert "destroying it" in caught.value.message
    assert caught.value.hint


def test_whoever_waits_gets_the_lock_when_it_is_let_go(tmp_path: Path) -> None:
    locks = SandboxLocks(tmp_path)
    held = locks.acquire(ID, Deadline(1), "creating it")
    got = threading.Event()

    def wait() -> None:
        with locks.acquire(ID, Deadline(10), "destroying it"):
            got.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not got.wait(0.05)
    held.close()
    assert got.wait(5)
    thread.join()


def test_a_lock_that_was_handed_to_a_child_lives_until_the_child_lets_go(tmp_path: Path) -> None:
    locks = SandboxLocks(tmp_path)
    lock = locks.acquire(ID, Deadline(1), "creating it")
    code = "lock = SandboxLock.adopt(int(sys.argv[2])); tell('there'); sys.stdin.readline(); lock.close(); "
    code += "tell('gone'); "
    with running(code + "sys.stdin.read()", tmp_path, str(lock.fileno()), pass_fds=[lock.fileno()]) as child:
        lock.close()
        assert locks.try_acquire(ID) is None
        assert child.stdin is not None
        child.stdin.write("let go\n")
        child.stdin.flush()
        assert line(child) == "gone"
        with locks.acquire(ID, Deadline(1), "destroying it"):
            pass


def test_an_adopted_lock_is_not_passed_on_to_grandchildren(tmp_path: Path) -> None:
    locks = SandboxLocks(tmp_path)
    lock = locks.acquire(ID, Deadline(1), "creating it")
    code = """
import subprocess
lock = SandboxLock.adopt(int(sys.argv[2]))
subprocess.Popen(["sleep", "3"], close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
tell("there")
sys.stdin.read()
"""
    with running(code, tmp_path, str(lock.fileno()), pass_fds=[lock.fileno()]) as child:
        lock.close()
        child.kill()
        child.wait()
        with locks.acquire(ID, Deadline(1), "destroying it"):
            pass


@pytest.mark.parametrize("what", ["closed", "a file", "a stream", "negative"])
def test_what_is_no_lock_is_not_adopted(tmp_path: Path, what: str) -> None:
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        with pytest.raises(Invalid):
            SandboxLock.adopt({"closed": 987, "a file": file, "a stream": 1, "negative": -1}[what])
    finally:
        os.close(file)


def test_many_processes_never_work_on_a_sandbox_at_once(tmp_path: Path) -> None:
    code = """
from sandboxer.timing import Deadline
locks, counter = SandboxLocks(data), data / "counter"
for _ in range(50):
    with locks.acquire(sys.argv[2], Deadline(30), "counting"):
        counter.write_text(str(int(counter.read_text()) + 1))
"""
    (tmp_path / "counter").write_text("0")
    children = [start(code, tmp_path, ID) for _ in range(4)]
    assert [child.wait(60) for child in children] == [0] * 4
    for child in children:
        child.communicate()
    assert (tmp_path / "counter").read_text() == "200"


def test_the_lock_file_is_private_and_made_with_its_directory(tmp_path: Path) -> None:
    data = tmp_path / "some" / "data"
    with SandboxLocks(data).acquire(ID, Deadline(1), "creating it"):
        pass
    assert (data / ".locks").stat().st_mode & 0o777 == 0o600
    assert data.stat().st_mode & 0o777 == 0o700
    assert (data / ".locks").stat().st_size == 0


def test_a_lock_file_that_somebody_removed_is_not_trusted(tmp_path: Path) -> None:
    locks = SandboxLocks(tmp_path)
    with locks.acquire(ID, Deadline(1), "creating it"):
        (tmp_path / ".locks").unlink()
    with locks.acquire(ID, Deadline(1), "creating it"):
        assert locks.try_acquire(ID) is None


def test_the_first_and_the_last_id_have_bytes_of_their_own(tmp_path: Path) -> None:
    file, held = LockFile(tmp_path), []
    for sandbox_id in ("a00000000000", "zzzzzzzzzzzz"):
        for first in (WORK, GUARD):
            held.append(file.try_take(sandbox_id, first=first))
    assert None not in held
    for fd in held:
        os.close(fd or -1)


@pytest.mark.parametrize("text", ["", "k3v9", "K3V9X2M7Q4TA", "../../../etc", "k3v9x2m7q4t_", "1234567890ab", "k" * 13])
def test_what_is_no_id_is_not_locked(tmp_path: Path, text: str) -> None:
    with pytest.raises(Invalid):
        SandboxLocks(tmp_path).try_acquire(text)


def test_a_data_directory_that_refuses_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the directory should be")
    with pytest.raises(Unavailable) as caught:
        SandboxLocks(tmp_path / "data").try_acquire(ID)
    assert caught.value.hint


def test_a_data_directory_that_may_not_be_used_is_denied_as_the_store_says_it(tmp_path: Path) -> None:
    """Trying again would be no use; and it is told alike, whichever part comes first."""
    need("root")
    tmp_path.chmod(0o755)
    closed = tmp_path / "data"
    closed.mkdir(mode=0o500)

    def refused() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        with pytest.raises(Denied) as caught:
            SandboxLocks(Path("data")).try_acquire(ID)
        assert "SANDBOXER_DATA_DIR" in caught.value.hint

    def entered() -> None:
        os.chdir(tmp_path)
        refused()

    assert Child(entered).wait() == 0


def test_a_system_without_such_locks_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fcntl, "F_OFD_SETLK")
    with pytest.raises(Unsupported):
        SandboxLocks(tmp_path).try_acquire(ID)


def test_no_descriptor_is_lost(tmp_path: Path) -> None:
    locks = SandboxLocks(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with locks.acquire(ID, Deadline(1), "creating it"):
        for _ in range(20):
            assert locks.try_acquire(ID) is None
    assert eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)
