"""Classic BPF as the kernel checks and runs it for seccomp, written from the kernel's description, not from our
compiler."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

ALLOW = 0x7FFF0000
ERRNO = 0x00050000


class Ran(NamedTuple):
    """How a run ended: the action, how many instructions it took, and which offsets were read."""

    action: int
    steps: int
    read: frozenset[int]

    @property
    def allowed(self) -> bool:
        """Whether the call is made."""
        return self.action == ALLOW

    @property
    def errno(self) -> int:
        """What the caller is told instead."""
        assert self.action & 0xFFFF0000 == ERRNO, hex(self.action)
        return self.action & 0xFFFF


def decode(program: bytes) -> list[tuple[int, int, int, int]]:
    """The instructions."""
    return list(struct.iter_unpack("<HBBI", program))


def complaints(program: bytes) -> list[str]:
    """Why the kernel would not take it."""
    code = decode(program)
    found = [] if 0 < len(code) <= 4096 else [f"{len(code)} instructions"]
    for at, (op, jt, jf, k) in enumerate(code):
        if op == 0x20:
            if k % 4 or k >= 64:
                found.append(f"{at}: loads from {k}")
        elif op in (0x15, 0x25, 0x35, 0x45):
            if at + 1 + max(jt, jf) >= len(code):
                found.append(f"{at}: jumps out")
        elif op == 0x05:
            if at + 1 + k >= len(code):
                found.append(f"{at}: jumps out")
        elif op != 0x06:
            found.append(f"{at}: instruction {op:#x}")
    if code and code[-1][0] != 0x06:
        found.append("does not end with an answer")
    return found


def run(program: bytes, *, machine: int, number: int, arguments: Sequence[int] = ()) -> Ran:
    """What the program says of a call."""
    padded = [*arguments, *([0] * (6 - len(arguments)))]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, machine, 0, *(each & (2**64 - 1) for each in padded))
    code = decode(program)
    at, held, steps, read = 0, 0, 0, set()
    while True:
        op, jt, jf, k = code[at]
        at, steps = at + 1, steps + 1
        match op:
            case 0x20:
                held = struct.unpack_from("<I", data, k)[0]
                read.add(k)
            case 0x05:
                at += k
            case 0x15:
                at += jt if held == k else jf
            case 0x25:
                at += jt if held > k else jf
            case 0x35:
                at += jt if held >= k else jf
            case 0x45:
                at += jt if held & k else jf
            case 0x06:
                return Ran(k, steps, frozenset(read))
            case _:
                raise AssertionError(hex(op))
