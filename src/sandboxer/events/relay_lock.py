"""Lock the relay to a neighbour: one at a time in a data directory, and at most one that waits for it to come back."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sandboxer.errors import Unavailable
from sandboxer.store import private_files
from sandboxer.timing import Deadline

RELAY_LOCK: Final = ".relay.lock"
WAITER_LOCK: Final = ".relay.wait"
_OF_FIN_HUB: Final = ".relay-fin-hub"


def lock_name(sink: str) -> str:
    """Name the lock of the relay to a neighbour: each has its own, so that a slow one does not hold up the other."""
    return RELAY_LOCK if sink == "state-hub" else f"{_OF_FIN_HUB}.lock"


def waiter_lock_name(sink: str) -> str:
    """Name the lock of the relay that waits for a neighbour to come back."""
    return WAITER_LOCK if sink == "state-hub" else f"{_OF_FIN_HUB}.wait"


@contextmanager
def acquire_relay_lock(path: Path, deadline: Deadline) -> Iterator[bool]:
    """Try to lock between processes and threads, up to the deadline; yields whether it is held. It ends with the
    process."""
    try:
        fd = _open(path)
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be opened: {error.strerror}", hint="check that the data directory is writable"
        ) from error
    try:
        while not (got := _flock(fd)) and not deadline.passed:
            time.sleep(deadline.seconds(0.02))
        yield got
    finally:
        os.close(fd)


def _flock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path) -> int:
    try:
        return private_files.open_private(path, os.O_RDWR)
    except FileNotFoundError:
        private_files.make_directories(path.parent)
        return private_files.open_private(path, os.O_RDWR)
