"""Programs that outlive us: they have nothing of ours, and leave nothing with us."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxer.errors import NotConfigured
from sandboxer.hosts.process.detach import detach
from sandboxer.locks import SandboxLocks
from sandboxer.timing import Deadline

ID = "k3v9x2m7q4ta"


def eventually(condition: Callable[[], bool], *, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def written(path: Path) -> str:
    """What a detached script wrote: it writes beside and renames."""
    assert eventually(path.exists), f"{path} was never written"
    return path.read_text()


def script(path: Path, body: str) -> list[str]:
    return ["sh", "-c", f'{{ {body}; }} > "$1.new"; mv "$1.new" "$1"', "sh", str(path)]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_it_has_a_session_of_its_own_and_starts_at_the_root(tmp_path: Path) -> None:
    pid = detach(script(tmp_path / "out", "pwd; cut -d' ' -f1,6 /proc/$$/stat; readlink /proc/$$/fd/0 /proc/$$/fd/2"))
    where, ids, stdin, stderr = written(tmp_path / "out").splitlines()
    assert where == "/"
    assert ids == f"{pid} {pid}"
    assert (stdin, stderr) == ("/dev/null", "/dev/null")
    assert os.getsid(0) != pid


def test_it_gets_no_descriptor_of_ours_but_those_passed(tmp_path: Path) -> None:
    leaky = os.open(tmp_path, os.O_RDONLY)
    passed = os.open(tmp_path, os.O_RDONLY)
    kept = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(leaky, True)
    os.set_inheritable(kept, True)
    try:
        listing = f"{sys.executable!r} -c 'import os; print(*sorted(map(int, os.listdir(\"/proc/self/fd\"))))'"
        detach(script(tmp_path / "out", listing), pass_fds=[passed, kept])
        numbers = set(map(int, written(tmp_path / "out").split()))
        assert {0, 1, 2, passed, kept} <= numbers
        assert leaky not in numbers
        assert len(numbers) == 6  # and the listing's own
        assert not os.get_inheritable(passed)
    finally:
        for fd in (leaky, passed, kept):
            os.close(fd)


@pytest.mark.parametrize("data", [b"", b"one line\n", bytes(range(256)) * 4096], ids=["nothing", "a line", "1 MiB"])
def test_it_reads_what_it_was_given_and_then_the_end(tmp_path: Path, data: bytes) -> None:
    detach(script(tmp_path / "out", "cat"), stdin=data)
    assert eventually((tmp_path / "out").exists)
    assert (tmp_path / "out").read_bytes() == data


def test_its_environment_is_the_one_that_was_given(tmp_path: Path) -> None:
    detach(["/usr/bin/env", *script(tmp_path / "out", "env")], env={"PATH": os.defpath, "GIVEN": "a b\nc"})
    text = written(tmp_path / "out")
    assert "GIVEN=a b\nc" in text
    assert "HOME=" not in text


def test_words_are_passed_on_byte_for_byte(tmp_path: Path) -> None:
    words = ["", "a b", "'\"`$(touch x)", "-n", "--", "new\nline", "ünï", "\udcff"]
    code = "import os,sys; p=sys.argv[1]; open(p+'.new','wb').write(b'|'.join(map(os.fsencode,sys.argv[2:])));"
    detach([sys.executable, "-c", code + "os.rename(p+'.new',p)", str(tmp_path / "out"), *words])
    assert eventually((tmp_path / "out").exists)
    assert (tmp_path / "out").read_bytes() == b"|".join(map(os.fsencode, words))


def test_it_outlives_us_and_our_terminal_signals(tmp_path: Path) -> None:
    code = "import sys; from sandboxer.hosts.process.detach import detach; print(detach(['sleep', '20']), flush=True)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=5)
    pid = int(ended.stdout)
    try:
        assert not is_gone(pid)
        assert os.getsid(pid) == pid
    finally:
        os.kill(pid, 9)


def test_it_leaves_no_zombie_with_a_parent_that_lives_on() -> None:
    pids = [detach(["true"]) for _ in range(5)]
    assert eventually(lambda: all(is_gone(pid) for pid in pids))


def test_interruption_has_its_default_meaning_in_it_again(tmp_path: Path) -> None:
    code = f"""
import signal
from sandboxer.hosts.process.detach import detach
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
detach({script(tmp_path / "out", "grep -E ^Sig[BI] /proc/self/status")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=5)
    blocked, ignored = written(tmp_path / "out").splitlines()
    assert int(blocked.split()[1], 16) == 0
    assert int(ignored.split()[1], 16) & (2**31 - 1) == 0  # above are the C library's own


def test_a_program_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    for name in ("no-such-program", str(tmp_path), str(tmp_path / "absent")):
        with pytest.raises(NotConfigured, match="there is no program"):
            detach([name])


def test_streams_are_not_to_be_passed() -> None:
    with pytest.raises(ValueError, match="streams"):
        detach(["true"], pass_fds=[1])


def test_a_parent_without_streams_can_start_one_too(tmp_path: Path) -> None:
    code = f"""
import os
from sandboxer.hosts.process.detach import detach
for fd in (0, 1, 2):
    os.close(fd)
detach({script(tmp_path / "out", "cat")!r}, stdin=b"given")
"""
    subprocess.run([sys.executable, "-c", code], timeout=5, check=True)
    assert written(tmp_path / "out") == "given"


def test_a_lock_is_handed_over_without_a_gap(tmp_path: Path) -> None:
    locks = SandboxLocks(tmp_path)
    lock = locks.acquire(ID, Deadline(1), "creating it")
    code = "import sys,os,time; from sandboxer.locks import SandboxLock; SandboxLock.adopt(int(sys.argv[1]));"
    code += "sys.stdin.read();"
    code += "[time.sleep(.005) for _ in iter(lambda: os.path.exists(sys.argv[2]), True)]"
    # Lock.adopt's answer is dropped: an unreferenced lock must stay, the number was given away by the parent
    pid = detach(
        [sys.executable, "-c", code, str(lock.fileno()), str(tmp_path / "stop")], pass_fds=[lock.fileno()], stdin=b"x"
    )
    lock.close()
    assert locks.try_acquire(ID) is None
    (tmp_path / "stop").write_text("")
    locks.acquire(ID, Deadline(10), "destroying it").close()
    assert eventually(lambda: is_gone(pid))


@pytest.mark.alone
def test_starting_costs_a_command_less_than_50_ms() -> None:
    """Promise 21's bound, with room for a busy machine: the best of several is near 1 ms."""
    costs = []
    for _ in range(10):
        start = time.perf_counter()
        detach(["true"])
        costs.append(time.perf_counter() - start)
    assert sorted(costs)[5] < 0.05
    assert min(costs) < 0.01
