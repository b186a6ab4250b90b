"""Starts a child of its own parent, which is outside, that ends with 99; ends itself with 5 later."""

import ctypes
import os
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
CLONE, PARENT, SIGCHLD = (56 if os.uname().machine == "x86_64" else 220), 0x8000, 17
made = libc.syscall(CLONE, PARENT | SIGCHLD, 0, 0, 0, 0)
if made == 0:
    os._exit(99)
time.sleep(0.3)
sys.exit(5 if made > 0 else 6)
