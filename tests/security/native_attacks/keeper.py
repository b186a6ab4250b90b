"""Waits for the first process that has become /workspace/wanted. With `trace` it is traced and its end is never taken;
with `stop` it is stopped by a signal, until /workspace/enough is there. Ends when /workspace/stop is there."""

import ctypes
import os
import signal
import sys
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
SEIZE = 0x4206


def wanted() -> int:
    while True:
        for name in os.listdir("/proc"):  # noqa: PTH208 - speed is what it is about
            try:
                if name.isdigit() and Path("/proc", name, "exe").readlink().name == "wanted":
                    return int(name)
            except OSError:
                continue


Path("/workspace/watching").touch()
pid = wanted()
if "trace" in sys.argv:
    assert libc.ptrace(SEIZE, pid, None, None) == 0
    Path("/workspace/go").touch()
    while not Path("/workspace/stop").exists():
        signal.sigtimedwait([signal.SIGUSR1], 0.1)
os.kill(pid, signal.SIGSTOP)
while not Path("/workspace/enough").exists():
    signal.sigtimedwait([signal.SIGUSR1], 0.1)
os.kill(pid, signal.SIGCONT)
