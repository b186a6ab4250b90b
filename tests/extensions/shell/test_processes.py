"""Everything that a command started is killed with it, whatever it did to get away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxer.extensions.shell import processes
from tests.testbed.components import need
from tests.testbed.waiting import eventually

SHELLS = [["dash"], ["busybox", "sh"], ["bash"]]


def kill(pid: int, shell: list[str]) -> int:
    done = subprocess.run([*shell, "-c", processes.KILL_TREE, "sh", str(pid)], timeout=60, check=False)
    return done.returncode


def over(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_a_command_is_killed_with_what_has_a_session_or_a_strange_name_of_its_own(
    shell: list[str], tmp_path: Path
) -> None:
    need(shell[0])
    nasty = tmp_path / "a) R 1\n1 (b"
    shutil.copy(shutil.which("sleep") or "", nasty)
    script = (
        'sleep 611 & echo $! >>"$1"; setsid sh -c \'echo $$ >>"$0"; sleep 612 & echo $! >>"$0"; wait\' "$1" & '
        '"$2" 613 & echo $! >>"$1"; (exec setsid "$2" 614) & echo $! >>"$1"; wait'
    )
    pids = tmp_path / "pids"
    started = subprocess.Popen(["sh", "-c", script, "sh", str(pids), str(nasty)], start_new_session=True)
    bystander = subprocess.Popen(["sleep", "615"], start_new_session=True)
    try:
        eventually(lambda: pids.exists() and len(pids.read_text().split()) == 5, within=20, what="the tree to grow")
        assert kill(started.pid, shell) == 0
        assert [pid for pid in map(int, pids.read_text().split()) if not over(pid)] == []
        assert started.wait(20) == -9
        assert not over(bystander.pid)
    finally:
        bystander.kill()
        bystander.wait()


def test_a_tree_that_grows_while_it_is_killed_ends_too(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    bomb = 'echo $$ >>"$1"; n=0; while :; do n=$((n + 1)); setsid sleep 616 & echo $! >>"$1"; sleep 0.01; done'
    words = ["sh", "-c", 'sh -c "$0" sh "$1" & wait', bomb, str(pids)]
    started = subprocess.Popen(words, start_new_session=True)
    eventually(lambda: pids.exists() and len(pids.read_text().split()) > 10, within=20, what="the tree to grow")
    assert kill(started.pid, ["sh"]) == 0
    started.wait(20)
    assert [pid for pid in map(int, pids.read_text().split()) if not over(pid)] == []


@pytest.mark.parametrize("pid", ["0", "1", "-1", "x"])
def test_numbers_that_stand_for_everything_are_refused(pid: str) -> None:
    done = subprocess.run(["sh", "-c", processes.KILL_TREE, "sh", pid], capture_output=True, timeout=60, check=False)
    assert done.returncode == 2


def test_what_is_gone_already_is_success() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert kill(gone.pid, ["sh"]) == 0


def test_a_program_whose_name_begins_with_a_dash_is_not_taken_for_an_option() -> None:
    words = processes.command(["-c", "echo no"])
    done = subprocess.run(
        ["sh", "-c", f'{processes.ENTER}exec "$@"', "sh", "", *words], capture_output=True, check=False
    )
    assert done.returncode == 127
    assert processes.command(["ls", "-l"]) == ["ls", "-l"]


def test_a_directory_that_cannot_be_entered_is_126(tmp_path: Path) -> None:
    text = processes.ENTER + 'exec "$@"'
    assert (
        subprocess.run(["sh", "-c", text, "sh", str(tmp_path / "no"), "true"], stderr=-3, check=False).returncode == 126
    )
    done = subprocess.run(["sh", "-c", text, "sh", str(tmp_path), "pwd"], capture_output=True, check=False)
    assert done.stdout == f"{os.path.realpath(tmp_path)}\n".encode()
