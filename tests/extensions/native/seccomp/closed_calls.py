"""Calls that the filter closes, with arguments that do no harm, and the ways around it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from sandboxer.extensions.native.seccomp import table
from tests.testbed.syscall_filter import Attempt

MACHINE = os.uname().machine
AF_ALG, AF_VSOCK, SOCK_STREAM, SOCK_SEQPACKET = 38, 40, 1, 5

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
AROUND: list[Attempt] = [
    ("i386 getpid", 20, ()),
    ("i386 keyctl", 288, ()),
    ("x32 getpid", 0x40000000 | 39, ()),
    ("x32 keyctl", 0x40000000 | 250, ()),
    ("newer", 467, ()),
    ("much newer", 2000, ()),
]
"""Other entries of x86-64, and numbers that the table does not have."""


def wanted() -> list[Attempt]:
    """What the table closes, and the ways around it."""
    numbers = {call.name: call.number for call in table.calls(MACHINE)}
    closed = [call.name for call in table.calls(MACHINE) if call.answer in ("deny", "missing")]
    # uprobe: only the kernel's own trampolines can make it, so newer kernels do not ask a filter about it
    names = [name for name in closed if name != "uprobe"]
    names += [name for name in HARMLESS if name not in names]
    return [(name, numbers[name.split(" ")[0]], HARMLESS.get(name, (-1,) * 6)) for name in names]
