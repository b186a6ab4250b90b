"""The seccomp program for a host."""

from __future__ import annotations

from sandboxer.errors import Unsupported
from sandboxer.extensions.native import seccomp


def program(machine: str) -> bytes:
    """The filter of a machine (as `uname -m` says it); empty where there is no table for it."""
    try:
        return seccomp.program(machine)
    except Unsupported:
        return b""
