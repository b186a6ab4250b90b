"""System calls that a filter such as Docker's closes, each made once with arguments that do no harm, and files of the
kernel that an engine masks.

Runs inside the sandbox: standard library only, and what is slow to import where it is used.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

KERNEL_FILES = ("config.gz", "interrupts", "iomem", "kcore", "keys", "latency_stats", "sched_debug", "timer_list")
"""Below /proc; what they tell is of the whole machine."""
_MACHINES = {"x86_64": 0, "aarch64": 1}
_NOBODY = 2**31 - 1  # no process has this number, and no file this descriptor
CALLS: tuple[tuple[str, tuple[int, int], tuple[int, ...]], ...] = (
    ("keyctl", (250, 219), (0, -3, 0)),  # KEYCTL_GET_KEYRING_ID of our own session, and no new one
    ("add_key", (248, 217), (0, 0, 0, 0, 0)),
    ("request_key", (249, 218), (0, 0, 0, 0)),
    ("socket AF_VSOCK", (41, 198), (40, 1, 0)),
    ("perf_event_open", (298, 241), (0, 0, -1, -1, 0)),
    ("bpf", (321, 280), (-1, 0, 0)),
    ("userfaultfd", (323, 282), (1,)),  # UFFD_USER_MODE_ONLY
    ("kcmp", (312, 272), (_NOBODY, _NOBODY, 0, 0, 0)),
    ("pidfd_getfd", (438, 438), (_NOBODY, 0, 0)),
    ("process_madvise", (440, 440), (_NOBODY, 0, 0, 0, 0)),
    ("io_uring_setup", (425, 425), (0, 0)),
    ("personality", (135, 92), (0x40000,)),  # ADDR_NO_RANDOMIZE, of a child that ends
    ("quotactl", (179, 60), (-1, 0, 0, 0)),
    ("get_mempolicy", (239, 236), (0, 0, 0, 0, 0)),
    ("unshare", (272, 97), (0,)),
    ("setns", (308, 268), (_NOBODY, 0)),
    ("mount", (165, 40), (0, 0, 0, 0, 0)),
)
"""Name, numbers on x86_64 and aarch64, arguments: an open one succeeds, or fails for its arguments."""
_PTRACE, _SEIZE = (101, 117), 0x4206


def open_calls() -> list[str] | None:
    """The calls that went through; None on a machine whose numbers we do not have."""
    column = _MACHINES.get(os.uname().machine)
    if column is None:
        return None
    wanted = [(name, numbers[column], arguments) for name, numbers, arguments in CALLS]
    told: dict[str, int] = {}
    while wanted:
        answers = _in_child(wanted)
        told.update({wanted[place][0]: code for place, code in enumerate(answers)})
        wanted = wanted[len(answers) + 1 :]  # at the next one a filter ended the child: it is closed
    return [name for name, code in told.items() if code not in (errno.EPERM, errno.ENOSYS)]


def traces_init() -> bool | None:
    """Whether we could trace process 1. Seizing does not stop it, and ends with the child that did it."""
    column = _MACHINES.get(os.uname().machine)
    if column is None or os.getpid() == 1:
        return None
    return _in_child([("ptrace", _PTRACE[column], (_SEIZE, 1, 0, 0))]) == [0]


def kernel_files() -> list[str]:
    """Those that give a byte. An engine lays an empty file over them."""
    return [path for name in KERNEL_FILES if _tells(path := f"/proc/{name}")]


def _tells(path: str) -> bool:
    try:
        with open(path, "rb", buffering=0) as file:
            return bool(file.read(1))
    except OSError:
        return False


def _in_child(wanted: Sequence[tuple[str, int, tuple[int, ...]]]) -> list[int]:
    """The error of each call, 0 for success, as far as a child came with them: a filter may kill it, and what it opens
    or changes is its own."""
    import ctypes

    libc: Any = ctypes.CDLL(None, use_errno=True)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for _, number, arguments in wanted:
                failed = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) == -1
                os.write(writer, bytes([min(ctypes.get_errno(), 255) if failed else 0]))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answers = pipe.read()
    os.waitpid(child, 0)
    return list(answers)
