"""Hand the terminal of whoever typed the command through to the command inside."""

from __future__ import annotations

import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def raw(stream: TextIO) -> Iterator[None]:
    """Every key goes to the command inside, Ctrl-C too, and what was typed ahead; the terminal is as before
    afterwards."""
    descriptor = stream.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
