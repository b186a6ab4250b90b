"""A lock on a side file, between processes and between threads: exclusive or shared, waited for with a deadline."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from sandboxer.errors import Unavailable
from sandboxer.store import private_files

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["exclusive", "shared"]
_OPERATION: Final[dict[Kind, int]] = {"exclusive": fcntl.LOCK_EX, "shared": fcntl.LOCK_SH}


@contextmanager
def locked(path: Path, *, seconds: float, kind: Kind = "exclusive") -> Iterator[None]:
    """Hold the lock on `path`; raises Unavailable when others hold it for more than `seconds`.

    The file is never deleted: a waiter would then hold a lock on a file that nobody else sees. The lock belongs to
    the descriptor opened here, so threads exclude one another too, and it ends with the process whatever ends it."""
    descriptor = -1
    try:  # before it is taken: an interrupt may come between that and the next line
        with private_files.refusals("lock", path):
            descriptor = private_files.open_private(path, os.O_RDWR)
            try:
                fcntl.flock(descriptor, _OPERATION[kind] | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting, descriptor = descriptor, -1  # `_wait` closes it, or leaves it to its thread
                _wait(waiting, path, seconds, _OPERATION[kind])
                descriptor = waiting
        yield
    finally:
        if descriptor >= 0:
            private_files.close(descriptor)


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock on `path` exclusively where nobody holds it; whether that is so. Does not wait."""
    with private_files.refusals("lock", path):
        descriptor = private_files.open_private(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        except BaseException:
            private_files.close(descriptor)
            raise
    try:
        yield free
    finally:
        private_files.close(descriptor)


def _wait(descriptor: int, path: Path, seconds: float, operation: int) -> None:
    """Wait in the kernel's queue, which is fair and costs nothing, on a thread, which can be left behind.

    A thread that is left behind closes the descriptor when its turn comes, so the lock goes on to the next."""
    import threading

    guard = threading.Lock()
    turn = threading.Event()
    left_behind = False
    failure: list[OSError] = []

    def queue() -> None:
        try:
            fcntl.flock(descriptor, operation)
        except OSError as error:
            failure.append(error)
        with guard:
            turn.set()
            if left_behind:
                private_files.close(descriptor)

    def leave() -> None:
        nonlocal left_behind
        with guard:
            left_behind = True
            if turn.is_set():
                private_files.close(descriptor)

    try:
        threading.Thread(target=queue, name="sandboxer-store-lock", daemon=True).start()
        in_time = turn.wait(seconds)
    except BaseException:  # Ctrl-C while waiting: the lock must not be taken for a caller who has gone
        leave()
        raise
    if not in_time:
        leave()
        raise Unavailable(
            f"{path} has been locked by another process for more than {seconds:g} s",
            hint=f"see who holds it with `fuser -v {path}`, then try again",
        )
    if failure:
        private_files.close(descriptor)
        raise failure[0]
