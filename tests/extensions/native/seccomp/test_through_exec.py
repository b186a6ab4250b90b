"""Each closed call, tried through `exec` in a native sandbox, by root's sandboxes and by an ordinary user's."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest

from sandboxer.extensions.native.seccomp import MACHINES
from tests.extensions.native.other_users import run_tests
from tests.extensions.native.seccomp.closed_calls import AROUND, MACHINE, wanted
from tests.extensions.native.seccomp.filtered import Desk
from tests.testbed.syscall_filter import Attempt, program_of_attempts

pytestmark = pytest.mark.skipif(MACHINE not in MACHINES, reason=f"no filter for {MACHINE}")


def tried(desk: Desk, calls: list[Attempt]) -> dict[str, int]:
    """The error of each call."""
    told: dict[str, int] = json.loads(
        desk.run("python3", "-c", program_of_attempts(), "-", stdin=json.dumps(calls).encode())
    )
    return told


def test_no_closed_call_is_made(desk: Desk) -> None:
    told = tried(desk, wanted())
    assert len(told) > 60
    assert {
        name: code for name, code in told.items() if code != (errno.ENOSYS if name == "clone3" else errno.EPERM)
    } == {}


@pytest.mark.skipif(MACHINE != "x86_64", reason="entries of x86-64")
def test_no_other_entry_leads_in(desk: Desk) -> None:
    assert set(tried(desk, AROUND).values()) == {errno.ENOSYS}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others; an ordinary user is tested by itself")
def test_the_same_holds_for_an_ordinary_user(tmp_path: Path) -> None:
    day = ["stops_a_program_of_ones_own", "strace_follows", "pythons_threads"]
    names = re.findall(r"^def (test_\w+)", (Path(__file__).parent / "test_programs.py").read_text(), re.MULTILINE)
    chosen = [f"seccomp/test_programs.py::{name}" for name in names if any(word in name for word in day)]
    assert len(chosen) == len(day)
    mine = ["test_no_closed_call_is_made", "test_no_other_entry_leads_in"]
    done = run_tests([*chosen, *(f"seccomp/{Path(__file__).name}::{name}" for name in mine)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(day) + len(mine)} passed" in done.stdout
