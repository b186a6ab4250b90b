"""Tries to read the kernel key with serial number $1, which is in the keyring with number $2 of the host's user."""

import ctypes
import os
import sys
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
KEYCTL = 250 if os.uname().machine == "x86_64" else 219
READ, LINK, JOIN = 11, 8, 1
key, ring = int(sys.argv[1]), int(sys.argv[2])


def read() -> bytes:
    text = ctypes.create_string_buffer(16)
    return text.value if libc.syscall(KEYCTL, READ, key, text, 16) > 0 else b""


found = [read()]
libc.syscall(KEYCTL, JOIN, None)
libc.syscall(KEYCTL, LINK, ring, -3)  # who has the ring in the session's possesses what is in it
found.append(read())
try:
    found.append(Path("/proc/keys").read_bytes())
except OSError:
    found.append(b"")
sys.stdout.buffer.write(b"|".join(found))
