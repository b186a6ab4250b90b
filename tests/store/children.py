"""Children that work on a store: forked (a new interpreter takes 50 times as long), traced, killed, made to fail."""

from __future__ import annotations

import os
import select
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.testbed.waiting import eventually

BROKEN = 70
"""The exit status of a child whose work raised what it should not."""
_BORN = b"."


class Child:
    """A forked process: does its work when told to `go`, and what it `say`s is read with `heard`."""

    def __init__(self, work: Callable[[], object], *, held: bool = False) -> None:
        start, self._go = os.pipe()
        self._heard, say = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = BROKEN
            try:
                waiting = select.poll()
                waiting.register(start, select.POLLIN)
                os.write(say, _BORN)
                while not waiting.poll(1):  # again and again: `Traced` sees by it that the tracer is there
                    pass
                os.read(start, 1)
                answer = work()
                os.write(say, str(answer).encode() + b"\n")
                status = 0
            except BaseException:  # noqa: BLE001 - nothing may leave a forked test process
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(start)
        os.close(say)
        assert os.read(self._heard, 1) == _BORN, "a tracer must not see, and count, how the fork itself goes on"
        if not held:
            self.go()

    def go(self) -> None:
        os.write(self._go, b".")

    def wait(self) -> int:
        """The exit status, negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def heard(self) -> str:
        """What the work answered; empty when it never came to its end."""
        try:
            return os.read(self._heard, 65536).decode().strip()
        finally:
            os.close(self._heard)
            os.close(self._go)


class Traced:
    """A child under strace, from the first call of its work on."""

    def __init__(self, work: Callable[[], object], log: Path, *options: str) -> None:
        log.unlink(missing_ok=True)
        child = Child(work, held=True)
        tracer = subprocess.Popen(
            ["strace", "-q", "-y", "-s", "64", "-o", str(log), *options, "-p", str(child.pid)],
            stderr=subprocess.DEVNULL,
        )
        try:
            # Not by TracerPid: that is set before the tracer sees the calls.
            eventually(lambda: log.exists() and log.stat().st_size, within=20, what="strace attaching", every=0.001)
        finally:
            child.go()
            self.status = child.wait()
            tracer.wait(20)
            self.answer = child.heard()
        self.calls = [line for line in log.read_text().splitlines() if not line.startswith(("poll(", "restart_"))]
