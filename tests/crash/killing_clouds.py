"""Fake clouds that kill their client, for real, before or after they have done what it asked."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from contextlib import suppress
from typing import Any

from tests.fakes.daytona import FakeDaytona
from tests.fakes.e2b import FakeE2B
from tests.fakes.faults import Fault, Script
from tests.fakes.modal import FakeModal
from tests.fakes.server import Handler, Reply, Request

AFTERWARDS = 0.3
"""How long an answer is held back while its client is killed, in seconds."""
WEIGHTY = re.compile(r"/(Sandbox(Create|Terminate|GetFromName|Tags|List|GetTaskId)|AppGetOrCreate|ImageGetOrCreate)")
"""The calls of Modal's client that count; the others (tokens, greetings) come when they come."""


class Deadly:
    """What they share. Each request is two steps, before and after it is done; `victim` is killed at step `strike`."""

    victim: int | None = None
    strike: int | None = None
    steps = 0
    struck = ""

    def step(self, what: str) -> bool:
        """One step; whether it was the last of its client's."""
        mine, self.steps = self.steps, self.steps + 1
        if self.victim is None or mine != self.strike:
            return False
        self.struck = what
        os.kill(self.victim, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.victim, os.WEXITED | os.WNOWAIT)
        return True


def _deadly(strikes: Deadly, handler: Handler) -> Handler:
    def done(request: Request) -> Reply:
        reply = handler(request)
        strikes.step(f"after {request.method} {request.path}")
        return reply

    return done


class DeadlyE2B(Deadly, FakeE2B):
    """E2B."""

    def _answer(self, connection: socket.socket, request: Request, handler: Handler) -> Any:
        if self.step(f"before {request.method} {request.path}"):
            return False
        return super()._answer(connection, request, _deadly(self, handler))


class DeadlyDaytona(Deadly, FakeDaytona):
    """Daytona."""

    def _answer(self, connection: socket.socket, request: Request, handler: Handler) -> Any:
        if self.step(f"before {request.method} {request.path}"):
            return False
        return super()._answer(connection, request, _deadly(self, handler))


class DeadlyModal(Deadly, FakeModal):
    """Modal, which has no handlers to stand around; so its script strikes."""

    def __init__(self) -> None:
        super().__init__()
        self.script = _DeadlyScript(self)


class _DeadlyScript(Script):
    def __init__(self, cloud: Deadly) -> None:
        super().__init__()
        self._cloud = cloud

    def take(self, method: str, path: str) -> Fault | None:
        if not WEIGHTY.search(path):
            return super().take(method, path)
        if self._cloud.step(f"before {path}"):
            return Fault(kind="drop")
        if self._cloud.victim is None or self._cloud.steps != self._cloud.strike:
            self._cloud.steps += 1
            return super().take(method, path)
        threading.Timer(AFTERWARDS / 2, self._cloud.step, [f"after {path}"]).start()
        return Fault(kind="slow", seconds=AFTERWARDS)
