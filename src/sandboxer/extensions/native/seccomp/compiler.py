"""From the table to a seccomp program. Pure.

It reads the machine, then finds the call's number by halving. A path that only allows by number loads no argument: the
kernel (5.11 and later) sees that and no longer runs the program for such calls.
"""

from __future__ import annotations

import errno
from functools import cache
from typing import Final

from sandboxer.errors import Unsupported
from sandboxer.extensions.native.seccomp import bpf, table
from sandboxer.extensions.native.seccomp.bpf import Instruction

MACHINES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Machine to AUDIT_ARCH_* of its 64-bit entry (linux/audit.h)."""
_NUMBER: Final = 0
_MACHINE: Final = 4
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_DENIED: Final = bpf.answer(_ERRNO | errno.EPERM)
_MISSING: Final = bpf.answer(_ERRNO | errno.ENOSYS)
_ALLOWED: Final = bpf.answer(_ALLOW)

NAMESPACES: Final = 0x7E020000
"""Flags of clone that make a namespace: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
CLOSED_FAMILIES: Final = (38, 40)
"""AF_ALG; AF_VSOCK, whose sockets belong to no network namespace."""
PERSONALITIES: Final = (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""PER_LINUX, PER_LINUX32, UNAME26, both; and asking which one it is."""
CLOSED_IOCTLS: Final = (0x5412, 0x541C)
"""TIOCSTI, TIOCLINUX: what is typed there is read by whoever shares the terminal. Docker leaves them open."""


@cache
def program(machine: str) -> bytes:
    """The filter for a host (`machine` as `uname -m` says it): an array of `struct sock_filter`."""
    if machine not in MACHINES:
        raise Unsupported(
            f"there is no system call filter for {machine[:80]!r} machines",
            hint=f"native sandboxes need {' or '.join(MACHINES)} (`uname -m`): use another host or profile",
        )
    # ENOSYS for another entry (i386, arm): what a kernel without that entry says, so that probes fall back
    entry = bpf.branch(bpf.JUMP_EQUAL, MACHINES[machine], over=[_MISSING])
    return bpf.encode([bpf.load(_MACHINE), *entry, bpf.load(_NUMBER), *_search(table.spans(machine))])


def _search(spans: list[table.Span]) -> list[Instruction]:
    if len(spans) == 1:
        return _BY_ANSWER[spans[0].answer]
    middle = len(spans) // 2
    low, high = _search(spans[:middle]), _search(spans[middle:])
    return [*bpf.branch(bpf.JUMP_GREATER_OR_EQUAL, spans[middle].first, over=low), *high]


def _low(argument: int) -> Instruction:
    """The half that the kernel looks at where its parameter has 32 bits."""
    return bpf.load(16 + 8 * argument)


def _high(argument: int) -> Instruction:
    return bpf.load(20 + 8 * argument)


def _unless_any(values: tuple[int, ...], *, closed: Instruction, otherwise: Instruction) -> list[Instruction]:
    """`closed` when the loaded value is one of `values`."""
    # each jumps over the tests that follow and over `otherwise`
    tests = [Instruction(bpf.JUMP_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [*tests, otherwise, closed]


# The kernel cuts the family, the request and clone's flags to 32 bits. Docker's profile compares 64: by its "greater
# than 40" it lets 2**32 + 40 through, which then becomes AF_VSOCK. A personality with a bit in the upper half is none
# of those that Docker allows, so it is none of ours.
_BY_ANSWER: Final[dict[str, list[Instruction]]] = {
    "allow": [_ALLOWED],
    "deny": [_DENIED],
    "missing": [_MISSING],
    "clone": [_low(0), *bpf.branch(bpf.JUMP_ANY_BIT, NAMESPACES, over=[_ALLOWED]), _DENIED],
    "ioctl": [_low(1), *_unless_any(CLOSED_IOCTLS, closed=_DENIED, otherwise=_ALLOWED)],
    "socket": [_low(0), *_unless_any(CLOSED_FAMILIES, closed=_DENIED, otherwise=_ALLOWED)],
    "personality": [
        _high(0),
        *bpf.branch(bpf.JUMP_EQUAL, 0, over=[_DENIED]),
        _low(0),
        *_unless_any(PERSONALITIES, closed=_ALLOWED, otherwise=_DENIED),
    ],
}
