"""One command at a time works on a sandbox."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType

from sandboxer.errors import Conflict, Invalid
from sandboxer.locks.byte_locks import WORK, LockFile, is_lock
from sandboxer.timing import Deadline

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05


class SandboxLock:
    """A lock that is held. Closing releases it, unless a child process was given the descriptor and still has it.

    To hand it over: start the child with `pass_fds=[lock.fileno()]`, let it call `Lock.adopt`, and close it here.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def adopt(cls, fd: int) -> SandboxLock:
        """Take over a lock from the parent process, by the number of the descriptor. Raises Invalid when `fd` is not
        an open descriptor of a lock file."""
        if fd <= 2 or not is_lock(fd):
            raise Invalid(f"descriptor {fd} is not a lock", hint="this number is given by the process that starts us")
        os.set_inheritable(fd, False)  # our own children have no part in it
        return cls(fd)

    def fileno(self) -> int:
        """The descriptor that holds it; -1 once closed."""
        return self._fd

    def close(self) -> None:
        """Let go. No explicit unlock: that would take it from a child that shares the description."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> SandboxLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class SandboxLocks:
    """The exclusive locks of one data directory. They also exclude one another between threads of one process.

    Every method raises Unavailable or Denied when the data directory refuses, and Invalid for what is no sandbox id."""

    def __init__(self, directory: Path) -> None:
        self._file = LockFile(directory)

    def try_acquire(self, sandbox_id: str) -> SandboxLock | None:
        """The lock of a sandbox, or None when another holds it."""
        fd = self._file.try_take(sandbox_id, first=WORK)
        return None if fd is None else SandboxLock(fd)

    def acquire(self, sandbox_id: str, deadline: Deadline, doing: str) -> SandboxLock:
        """The lock of a sandbox; waits for it until the deadline. `doing` says what for, as in "destroying it".

        Raises Conflict when another command has it all that time."""
        pause = _FIRST_PAUSE
        while True:
            lock = self.try_acquire(sandbox_id)
            if lock is not None:
                return lock
            if deadline.passed:
                raise Conflict(
                    f"sandbox {sandbox_id} is being worked on by another command, so {doing} has to wait",
                    hint=f"see `sandboxer get {sandbox_id}`, and try again when the other command is through",
                    retryable=True,
                    sandbox_id=sandbox_id,
                )
            time.sleep(deadline.seconds(pause))
            pause = min(pause * 1.5, _LONGEST_PAUSE)
