"""Putting programs under a system call filter, as a launcher would: load it, then become the program.

`LOADER` is a Python program: `python3 -c LOADER FILTER PROGRAM ARG...`, where FILTER is the bytes in hexadecimal, or
`-` for none. `ATTEMPTS` makes calls, each in a child of its own, and tells what came of each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

LOADER = """\
import ctypes, os, sys

def load(text):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
        raise OSError(ctypes.get_errno(), "no new privileges")
    if text == "-":
        return
    code = bytes.fromhex(text)
    held = ctypes.create_string_buffer(code, len(code))
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
    program = Program(len(code) // 8, ctypes.addressof(held))
    if libc.prctl(22, 2, ctypes.byref(program), 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), "the kernel does not take the filter")

if __name__ == "__main__" and sys.argv[1:]:
    load(sys.argv[1])
    os.execvp(sys.argv[2], sys.argv[2:])
"""

ATTEMPTS = """\
import ctypes, json, mmap, os, platform, signal, sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def call(number, arguments):
    ctypes.set_errno(0)
    if libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) for a in arguments)) == -1:
        return ctypes.get_errno()
    return 0

def call_i386(number):
    # mov eax, NUMBER; int 0x80; ret
    code = b"\\xb8" + number.to_bytes(4, "little") + b"\\xcd\\x80\\xc3"
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    answer = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    return -answer if answer < 0 else 0

def in_child(make):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # some calls sleep where they are made
        os._exit(make())
    status = os.waitpid(child, 0)[1]
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)

def attempt(wanted):
    told = {}
    for name, number, arguments in wanted:
        if name.startswith("i386 "):
            told[name] = in_child(lambda: call_i386(number))
        else:
            told[name] = in_child(lambda: call(number, arguments))
    return told

if __name__ == "__main__":
    if sys.argv[2:] == ["drop"]:
        os.setgroups([]); os.setresgid(61234, 61234, 61234); os.setresuid(61234, 61234, 61234)
    load(sys.argv[1])
    json.dump(attempt(json.load(sys.stdin)), sys.stdout)
"""

Attempt = tuple[str, int, Sequence[int]]
"""Name, number, arguments."""


def program_of_attempts() -> str:
    """The text of a program: `python3 -c TEXT FILTER [drop]`, attempts as JSON on its input."""
    return LOADER.partition("if __name__")[0] + ATTEMPTS


def attempts(wanted: Sequence[Attempt], *, filtered_by: bytes | None) -> Mapping[str, int]:
    """Make the calls here, as an ordinary user: the errno of each, 0 for success, -N for death by signal N."""
    words = [sys.executable, "-c", program_of_attempts(), filtered_by.hex() if filtered_by else "-"]
    words += ["drop"] if os.geteuid() == 0 else []
    done = subprocess.run(words, input=json.dumps(wanted), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, int] = json.loads(done.stdout)
    return told
