"""Make the three streams of the process usable, whatever they were when it was started."""

from __future__ import annotations

import io
import os
import sys
from typing import IO, Any


def prepare() -> None:
    """Let closed streams be /dev/null, so that no file of ours gets their numbers, and let characters that a terminal's
    encoding lacks be written as escapes."""
    for number in (0, 1, 2):
        _fill(number)
    sys.stdin = sys.stdin or os.fdopen(0, "r", encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fill(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)
        os.set_inheritable(number, True)


def discard(stream: IO[Any]) -> None:
    """Forget what is not written yet: nobody reads it, and the interpreter must not complain when it flushes."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
