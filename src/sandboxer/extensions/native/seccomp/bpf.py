"""Instructions of classic BPF, as many as a seccomp filter needs (linux/filter.h, linux/bpf_common.h). Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_GREATER_OR_EQUAL: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
JUMP_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
RETURN: Final = 0x06  # BPF_RET | BPF_K
MAX_JUMP: Final = 255
"""A conditional jump counts in one byte."""


class Instruction(NamedTuple):
    """One `struct sock_filter`."""

    code: int
    if_true: int
    if_false: int
    value: int


def load(offset: int) -> Instruction:
    """Read 32 bits of `struct seccomp_data`."""
    return Instruction(LOAD, 0, 0, offset)


def answer(value: int) -> Instruction:
    """End with a SECCOMP_RET_* value."""
    return Instruction(RETURN, 0, 0, value)


def branch(code: int, value: int, *, over: Sequence[Instruction]) -> list[Instruction]:
    """`over`, which is skipped when the comparison holds."""
    if len(over) > MAX_JUMP:
        message = f"a jump over {len(over)} instructions does not fit"
        raise ValueError(message)
    return [Instruction(code, len(over), 0, value), *over]


def encode(instructions: Sequence[Instruction]) -> bytes:
    """The array as the kernel takes it; both machines are little-endian."""
    return b"".join(struct.pack("<HBBI", *each) for each in instructions)
