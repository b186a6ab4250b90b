"""The numbers of system calls as this machine's kernel headers have them."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

from tests.testbed.components import need

_X86 = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
_GENERIC = Path("/usr/include/asm-generic/unistd.h")
# what arm64's own asm/unistd.h asks of the generic table
_ARM64 = ("RENAMEAT", "NEW_STAT", "SET_GET_RLIMIT", "TIME32_SYSCALLS", "SYS_CLONE3", "MEMFD_SECRET")


@cache
def numbers(machine: str) -> dict[str, int]:
    """Name to number."""
    need("cc", "linux-libc-dev")
    if machine == "x86_64":
        return _defined(_X86.read_text())
    wanted = "".join(f"#define __ARCH_WANT_{each}\n" for each in _ARM64)
    text = _GENERIC.read_text().replace("#include <asm/bitsperlong.h>", "#define __BITS_PER_LONG 64")
    return _defined(wanted + text)


def _defined(text: str) -> dict[str, int]:
    words = ["cc", "-E", "-dM", "-x", "c", "-"]
    output = subprocess.run(words, input=text, capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"^#define (__NR\w+) (\w+)$", output, re.MULTILINE))

    def number(value: str) -> int:
        return int(value) if value.isdigit() else number(found[value])

    names = {key.removeprefix("__NR_"): number(value) for key, value in found.items() if key.startswith("__NR_")}
    return {name: value for name, value in names.items() if name not in ("syscalls", "arch_specific_syscall")}
