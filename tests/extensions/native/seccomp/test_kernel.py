"""The filter in the kernel of this machine: each closed call is tried, with it and without."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from sandboxer.extensions.native.seccomp import MACHINES, program, table
from tests.extensions.native.seccomp.closed_calls import AROUND, MACHINE, SOCK_STREAM, wanted
from tests.testbed.syscall_filter import Attempt, attempts

pytestmark = pytest.mark.skipif(MACHINE not in MACHINES, reason=f"no filter for {MACHINE}")
SEEN_OPEN = ("keyctl", "add_key", "request_key", "pidfd_getfd", "process_madvise", "personality", "unshare", "setns")
"""Calls that every kernel of a distribution offers to an ordinary user, unless the tests run under a filter already."""


def test_each_closed_call_is_refused_and_was_open_before() -> None:
    refused = attempts(wanted(), filtered_by=program(MACHINE))
    assert len(refused) > 60
    assert {name: code for name, code in refused.items() if name != "clone3" and code != errno.EPERM} == {}
    assert refused["clone3"] == errno.ENOSYS
    if "\nSeccomp:\t0\n" not in Path("/proc/self/status").read_text():
        return
    before = attempts(wanted(), filtered_by=None)
    assert {name for name in SEEN_OPEN if before[name] in (errno.EPERM, errno.ENOSYS)} == set()


@pytest.mark.skipif(MACHINE != "x86_64", reason="entries of x86-64")
def test_the_entries_of_i386_and_x32_do_not_lead_around_it() -> None:
    assert attempts(AROUND, filtered_by=program(MACHINE)) == dict.fromkeys([each[0] for each in AROUND], errno.ENOSYS)


def test_an_allowed_call_is_made() -> None:
    numbers = {call.name: call.number for call in table.calls(MACHINE)}
    ways: list[Attempt] = [
        ("getpid", numbers["getpid"], ()),
        ("personality", numbers["personality"], (0xFFFFFFFF,)),
        ("socket", numbers["socket"], (1, SOCK_STREAM, 0)),
    ]
    assert attempts(ways, filtered_by=program(MACHINE)) == {"getpid": 0, "personality": 0, "socket": 0}
