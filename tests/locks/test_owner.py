"""Owners: a process is dead only when that is proved."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from sandboxer.locks import owner_state, this_owner
from sandboxer.models import Owner
from tests.locks.children import eventually

SELF = "from sandboxer.locks import this_owner; import msgspec, sys; "
TELL = "sys.stdout.write(msgspec.json.encode(this_owner()).decode() + '\\n'); sys.stdout.flush(); sys.stdin.read()"


def child() -> tuple[subprocess.Popen[str], Owner]:
    process = subprocess.Popen(
        [sys.executable, "-c", SELF + TELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, msgspec.json.decode(process.stdout.readline(), type=Owner)


def test_this_process_is_alive_and_tells_the_same_each_time() -> None:
    assert this_owner() == this_owner()
    assert this_owner().boot_id
    assert owner_state(this_owner()) == "alive"


def test_a_killed_process_is_dead_also_before_anybody_waited_for_it() -> None:
    process, owner = child()
    assert owner_state(owner) == "alive"
    process.kill()
    assert eventually(lambda: owner_state(owner) == "dead")
    process.communicate()
    assert owner_state(owner) == "dead"


def test_a_pid_that_was_given_to_another_process_is_dead() -> None:
    owner = this_owner()
    assert owner_state(msgspec.structs.replace(owner, start=owner.start - 1)) == "dead"


@pytest.mark.parametrize("boot_id", ["", "another", "00000000-0000-0000-0000-000000000000/4026531836"])
def test_another_boot_or_machine_or_container_is_unknown(boot_id: str) -> None:
    assert owner_state(msgspec.structs.replace(this_owner(), boot_id=boot_id)) == "unknown"


@pytest.mark.parametrize("pid", [0, -1, -(2**40), 2**22 + 1, 2**40])
def test_a_pid_that_cannot_be_is_dead(pid: int) -> None:
    assert owner_state(msgspec.structs.replace(this_owner(), pid=pid)) == "dead"
