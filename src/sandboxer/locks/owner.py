"""Which process works on a record, told so that it can be proved dead from another process, on another day."""

from __future__ import annotations

import errno
import os
from functools import lru_cache
from pathlib import Path
from typing import Literal

from sandboxer.models import Owner

OwnerState = Literal["alive", "dead", "unknown"]


def this_owner() -> Owner:
    """This process: its pid, its start time in clock ticks since boot (/proc/self/stat), and where the pid counts:
    the kernel's boot id (/proc/sys/kernel/random/boot_id) with the pid namespace, because a container that shares our
    data directory has the same boot id and other pids. Without /proc the latter is empty: never to be proved dead."""
    return _owner(os.getpid())


@lru_cache(maxsize=1)  # of a process it never changes; a forked child asks with another pid
def _owner(pid: int) -> Owner:
    boot = _boot()
    found = _stat("self") if boot else None
    return Owner(pid=pid, start=found[1] if found else 0, boot_id=boot if found else "")


def owner_state(owner: Owner) -> OwnerState:
    """Whether the process still lives. `unknown` where it cannot be proved here: another boot or another machine
    (they look the same), another container, or a /proc that hides it."""
    if not owner.boot_id or owner.boot_id != _boot():
        return "unknown"
    found = _stat(str(owner.pid))
    if found is None:
        return "dead" if _no_such_process(owner.pid) else "unknown"
    ended, start = found
    return "dead" if ended or start != owner.start else "alive"


def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}" if boot else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _stat(pid: str) -> tuple[bool, int] | None:
    """Whether a process has ended (but was not waited for), and when it started; None when /proc does not show it."""
    try:
        text = Path("/proc", pid, "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # the program's name is in parentheses and may hold spaces and parentheses itself
    fields = text[text.rindex(b")") + 2 :].split()
    state, threads, start = fields[0], int(fields[17]), int(fields[19])
    # a leader that is through while other threads run on is shown as a zombie, too
    return state in (b"Z", b"X", b"x") and threads <= 1, start


def _no_such_process(pid: int) -> bool:
    if pid <= 0:
        return True  # 0 and negative numbers name groups; no process of ours ever had one
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError as error:
        return error.errno == errno.ESRCH
    return False
