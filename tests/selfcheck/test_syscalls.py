"""The calls that the probe makes: the right ones, without harm, and closed is what the kernel or a filter refuses."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxer.extensions.native import seccomp
from sandboxer.extensions.native.seccomp import bpf, table
from sandboxer.selfcheck import syscalls
from tests.testbed.syscall_filter import LOADER

SOURCES = Path(__file__).parents[2] / "src"
ASK = (
    "import json, sys; sys.path.insert(0, sys.argv[1]); from sandboxer.selfcheck import syscalls; "
    "print(json.dumps(syscalls.open_calls()))"
)
MACHINE = os.uname().machine
pytestmark = pytest.mark.skipif(MACHINE not in seccomp.MACHINES, reason=f"no numbers for {MACHINE}")


def open_under(program: bytes) -> list[str]:
    """What is open under a filter."""
    words = [sys.executable, "-c", LOADER, program.hex(), sys.executable, "-I", "-S", "-c", ASK, str(SOURCES)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_numbers_are_those_of_the_table_and_each_call_is_closed_there() -> None:
    names = {call.name for call in table.calls(MACHINE)}
    for place, machine in enumerate(("x86_64", "aarch64")):
        theirs = {call.name: call for call in table.calls(machine)}
        for name, numbers, _ in syscalls.CALLS:
            call = theirs[name.split(" ")[0]]
            assert call.number == numbers[place], (machine, name)
            assert call.answer != "allow", name
    assert {name.split(" ")[0] for name, _, _ in syscalls.CALLS} <= names


def test_under_our_filter_none_is_open() -> None:
    assert open_under(seccomp.program(MACHINE)) == []


def test_a_filter_that_closes_nothing_is_told_by_what_is_open() -> None:
    assert {"pidfd_getfd", "process_madvise", "personality"} <= set(open_under(bpf.encode([bpf.answer(0x7FFF0000)])))


def test_a_call_at_which_a_filter_kills_is_closed_and_the_rest_is_asked_all_the_same() -> None:
    numbers = {call.name: call.number for call in table.calls(MACHINE)}
    kill = bpf.answer(0x80000000)
    closed = numbers["process_madvise"]
    deadly = [bpf.load(0), bpf.Instruction(bpf.JUMP_EQUAL, 1, 0, closed), bpf.answer(0x7FFF0000), kill]
    assert struct.calcsize("<HBBI") * len(deadly) == len(bpf.encode(deadly))
    found = open_under(bpf.encode(deadly))
    assert "process_madvise" not in found
    assert {"pidfd_getfd", "personality"} <= set(found)
