"""The filter in the kernel of this machine: each closed call is tried, with it and without."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from sandboxer.extensions.native.seccomp import MACHINES, program, table
from tests.testbed.filtering import Attempt, attempts

MACHINE = os.uname().machine
AF_ALG, AF_VSOCK, SOCK_STREAM, SOCK_SEQPACKET = 38, 40, 1, 5
pytestmark = pytest.mark.skipif(MACHINE not in MACHINES, reason=f"no filter for {MACHINE}")

# Arguments with which a call does no harm, and says something else than "not permitted" to an ordinary user. All others
# are called with -1 everywhere.
HARMLESS: Mapping[str, tuple[int, ...]] = {
    "keyctl": (0, -3, 0),  # the id of the session's keyring
    "unshare": (0,),
    "personality": (0x40000,),  # ADDR_NO_RANDOMIZE
    "socket AF_VSOCK": (AF_VSOCK, SOCK_STREAM, 0),
    "socket AF_VSOCK beyond 32 bits": (2**32 + AF_VSOCK, SOCK_STREAM, 0),
    "socket AF_ALG": (AF_ALG, SOCK_SEQPACKET, 0),
    "clone CLONE_NEWUSER": (0x10000000 | 17, 0, 0, 0, 0),  # a fork, with SIGCHLD at its end
    "get_mempolicy": (0, 0, 0, 0, 0),
    "set_mempolicy": (0, 0, 0),
    "userfaultfd": (1,),  # UFFD_USER_MODE_ONLY
    "io_uring_setup": (0, 0),
    "perf_event_open": (0, 0, -1, -1, 0),
    "kcmp": (-1, -1, 0, 0, 0),
}
SEEN_OPEN = ("keyctl", "add_key", "request_key", "pidfd_getfd", "process_madvise", "personality", "unshare", "setns")
"""Calls that every kernel of a distribution offers to an ordinary user, unless the tests run under a filter already."""


def wanted() -> list[Attempt]:
    """What the table closes, and the ways around it."""
    numbers = {call.name: call.number for call in table.calls(MACHINE)}
    closed = [call.name for call in table.calls(MACHINE) if call.answer in ("deny", "missing")]
    # uprobe: only the kernel's own trampolines can make it, so newer kernels do not ask a filter about it
    names = [name for name in closed if name != "uprobe"]
    names += [name for name in HARMLESS if name not in names]
    return [(name, numbers[name.split(" ")[0]], HARMLESS.get(name, (-1,) * 6)) for name in names]


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
    ways: list[Attempt] = [
        ("i386 getpid", 20, ()),
        ("i386 keyctl", 288, ()),
        ("x32 getpid", 0x40000000 | 39, ()),
        ("x32 keyctl", 0x40000000 | 250, ()),
        ("newer", 467, ()),
        ("much newer", 2000, ()),
    ]
    assert attempts(ways, filtered_by=program(MACHINE)) == dict.fromkeys([name for name, _, _ in ways], errno.ENOSYS)


def test_an_allowed_call_is_made() -> None:
    numbers = {call.name: call.number for call in table.calls(MACHINE)}
    ways: list[Attempt] = [
        ("getpid", numbers["getpid"], ()),
        ("personality", numbers["personality"], (0xFFFFFFFF,)),
        ("socket", numbers["socket"], (1, SOCK_STREAM, 0)),
    ]
    assert attempts(ways, filtered_by=program(MACHINE)) == {"getpid": 0, "personality": 0, "socket": 0}
