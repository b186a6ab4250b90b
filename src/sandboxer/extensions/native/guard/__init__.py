"""The guard: our one program on hosts, built from guard.c by `build`, and what is put behind its image."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Final

from sandboxer.errors import NotConfigured

MACHINES: Final = ("x86_64", "aarch64")
"""As `uname -m` says it."""
DESCRIPTOR: Final = 9
"""SELF of guard.c: where the sealed image travels to the first process inside."""
FILE: Final = "run/guard"
"""Its path in a sandbox's directory."""
_MAGIC: Final = b"SBXSEBG1"
_HERE: Final = Path(__file__).parent


def check(machine: str) -> None:
    """Raise NotConfigured for a machine that there is no guard for."""
    if machine not in MACHINES:
        raise NotConfigured(
            f"ext.native has no program for a machine of kind {machine!r}",
            hint=f"use a host of kind {' or '.join(MACHINES)}, or a profile of another extension",
        )


@cache
def bundle(machine: str, program: bytes) -> bytes:
    """The guard of one sandbox: the image, its seccomp program (none: empty), and the trailer that guard.c reads."""
    check(machine)
    image = (_HERE / f"guard-{machine}").read_bytes()
    return image + program + struct.pack("<Q", len(program)) + _MAGIC
