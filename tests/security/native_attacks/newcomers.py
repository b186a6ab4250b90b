"""Watches for new processes until /workspace/stop is there, and tries to get at each before it is the program that was
asked for (/workspace/wanted). Prints what was got at, as a JSON list. With `hold`, every one is traced and kept."""

import contextlib
import ctypes
import json
import os
import sys
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
ATTACH, DETACH, SEIZE, INTERRUPT = 16, 17, 0x4206, 0x4207
known = {name for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208 - speed is what it is about
hold = "hold" in sys.argv
got: set[str] = set()


def whose(pid: str) -> str:
    try:
        return Path("/proc", pid, "exe").readlink().name
    except FileNotFoundError:
        return "wanted"  # it is over: there is nothing in it any more
    except OSError:
        return "unknown"


def look(pid: str) -> None:
    """The image is looked at before and after: only what was something else all the time counts."""
    for name in ("fd", "environ", "mem", "root"):
        before = whose(pid)
        try:
            if name == "fd":
                found = [str(Path("/proc", pid, name, fd).readlink()) for fd in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH208
            else:
                os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))
                found = []
        except OSError:
            continue
        if before == whose(pid) != "wanted":
            got.add(f"{name} of {before} {found}")
    before = whose(pid)
    if libc.ptrace(SEIZE, int(pid), None, None) == 0:  # it does not stop by that
        if before == whose(pid) != "wanted":
            got.add(f"trace of {before}")
        libc.ptrace(INTERRUPT, int(pid), None, None)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(int(pid), 0x40000000)
        libc.ptrace(DETACH, int(pid), None, None)


Path("/workspace/watching").touch()
while not Path("/workspace/stop").exists():
    new = {name for name in os.listdir("/proc") if name.isdigit()} - known  # noqa: PTH208
    for pid in new:
        if hold:
            known.add(pid)
            libc.ptrace(ATTACH, int(pid), None, None)
            continue
        look(pid)
sys.stdout.write(json.dumps(sorted(got)))
