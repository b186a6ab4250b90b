"""Real processes for the tests of locks: a child runs a piece of code, tells when it is there, and can be killed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PRELUDE = """
import os, sys
from pathlib import Path
from sandboxer.locks import Leases, SandboxLock, SandboxLocks
data = Path(sys.argv[1])
def tell(word):
    sys.stdout.write(word + "\\n"); sys.stdout.flush()
"""


def start(code: str, data: Path, *args: str, pass_fds: Sequence[int] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, str(data), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=tuple(pass_fds),
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextmanager
def running(code: str, data: Path, *args: str, pass_fds: Sequence[int] = ()) -> Iterator[subprocess.Popen[str]]:
    """A child that has said its first word."""
    process = start(code, data, *args, pass_fds=pass_fds)
    try:
        assert line(process) == "there"
        yield process
    finally:
        process.kill()
        process.communicate()


def eventually(condition: Callable[[], bool], *, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
