"""What a fake E2B knows: accounts, templates, sandboxes, snapshots; who may see which, and when they end."""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from tests.fakes.e2b.processes import RunningProcess
from tests.fakes.sandbox_fs import SandboxFS

ENVD_VERSION: Final = "0.6.7"
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True, kw_only=True)
class Template:
    """What sandboxes are made of. `files` is the box that a snapshot kept; `account` None is everybody's."""

    id: str
    names: tuple[str, ...] = ()
    vcpu: int = 2
    memory_mb: int = 512
    disk_mb: int = 10240
    account: str | None = None
    files: SandboxFS | None = None
    source: str | None = None


@dataclass(kw_only=True)
class E2BSandbox:
    """One sandbox. `runs` are the times for which it is billed: begin, and end once it is known."""

    id: str
    account: str
    template: Template
    alias: str | None
    metadata: Mapping[str, str]
    env: Mapping[str, str]
    internet: bool | None
    secured: bool
    auto_pause: bool
    end_at: float
    box: SandboxFS
    started_at: float = field(default_factory=time.time)
    paused: bool = False
    runs: list[tuple[float, float | None]] = field(default_factory=list)
    logs: list[dict[str, Any]] = field(default_factory=list)
    processes: dict[int, RunningProcess] = field(default_factory=dict)

    def log(self, message: str, *, level: str = "info", **fields: str) -> None:
        """Write an entry to its log."""
        self.logs.append({"timestamp": stamp(time.time()), "level": level, "message": message, "fields": fields})

    @property
    def billed(self) -> float:
        """Seconds for which it has run."""
        now = time.time()
        return sum((now if end is None else end) - begin for begin, end in self.runs)


class E2BState:
    """Everything, under one lock. Sandboxes whose time is over are ended when anybody looks, and by `sweep`."""

    def __init__(self, *, keys: Mapping[str, str], templates: Iterable[Template], envd_version: str) -> None:
        self.keys = dict(keys)
        self.envd_version = envd_version
        self.lock = threading.RLock()
        self.sandboxes: dict[str, E2BSandbox] = {}
        self.ended: dict[str, E2BSandbox] = {}
        self.templates = {template.id: template for template in templates}
        self.answers: dict[tuple[str, str], tuple[str, dict[str, Any] | None]] = {}
        """(account, idempotency key) -> fingerprint of the request, answer once there is one."""
        self.before: list[E2BSandbox] = []
        """What a stale list shows: the sandboxes before the last one came or went."""
        self._secret = os.urandom(16)

    def envd_is(self, *version: int) -> bool:
        """Whether the envds are of this version or a later one."""
        return tuple(int(part) for part in self.envd_version.split(".")) >= version

    def template(self, name: str, account: str) -> Template | None:
        """By id or name, as this account sees it."""
        plain = name.split(":", 1)[0].rsplit("/", 1)[-1]
        for template in self.templates.values():
            if template.account in (None, account) and plain in (template.id, *template.names):
                return template
        return None

    def add(self, sandbox: E2BSandbox) -> None:
        """It runs from now on."""
        with self.lock:
            self.before = list(self.sandboxes.values())
            sandbox.runs.append((time.time(), None))
            self.sandboxes[sandbox.id] = sandbox
            sandbox.log("Sandbox was created")

    def seen(self, sandbox_id: str, account: str) -> E2BSandbox | None:
        """A sandbox of this account that has not ended."""
        self.sweep()
        sandbox = self.sandboxes.get(sandbox_id)
        return sandbox if sandbox is not None and sandbox.account == account else None

    def running(self, sandbox_id: str) -> E2BSandbox | None:
        """A sandbox of any account that runs now."""
        self.sweep()
        sandbox = self.sandboxes.get(sandbox_id)
        return None if sandbox is None or sandbox.paused else sandbox

    def of(self, account: str) -> list[E2BSandbox]:
        """All of an account that have not ended."""
        self.sweep()
        with self.lock:
            return [sandbox for sandbox in self.sandboxes.values() if sandbox.account == account]

    def end(self, sandbox: E2BSandbox) -> None:
        """It is gone, with all that it holds."""
        with self.lock:
            if self.sandboxes.get(sandbox.id) is not sandbox:
                return
            self.before = list(self.sandboxes.values())
            del self.sandboxes[sandbox.id]
            self._stop_clock(sandbox)
            self.ended[sandbox.id] = sandbox
        with suppress(OSError):
            sandbox.box.close()

    def pause(self, sandbox: E2BSandbox) -> None:
        """It stands still, and costs nothing."""
        with self.lock:
            sandbox.paused = True
            self._stop_clock(sandbox)
        _signal_all(sandbox.box, "STOP")

    def resume(self, sandbox: E2BSandbox, end_at: float) -> bool:
        """It runs on; whether it was paused. Its end only moves away."""
        with self.lock:
            was = sandbox.paused
            sandbox.paused = False
            sandbox.end_at = end_at if was else max(sandbox.end_at, end_at)
            if was:
                sandbox.runs.append((time.time(), None))
        if was:
            _signal_all(sandbox.box, "CONT")
        return was

    def sweep(self) -> None:
        """End (or pause, where that was asked for) what is over."""
        now = time.time()
        for sandbox in list(self.sandboxes.values()):
            if sandbox.paused or sandbox.end_at > now:
                continue
            if sandbox.auto_pause:
                self.pause(sandbox)
            else:
                self.end(sandbox)

    def clear(self) -> None:
        """Nothing is left."""
        for sandbox in list(self.sandboxes.values()):
            self.end(sandbox)
        for template in list(self.templates.values()):
            if template.files is not None:
                del self.templates[template.id]
                template.files.close()

    def token(self, sandbox_id: str) -> str:
        """What its envd wants to be shown."""
        return hmac.new(self._secret, sandbox_id.encode(), hashlib.sha256).hexdigest()

    def _stop_clock(self, sandbox: E2BSandbox) -> None:
        if sandbox.runs and sandbox.runs[-1][1] is None:
            sandbox.runs[-1] = (sandbox.runs[-1][0], time.time())


def _signal_all(box: SandboxFS, name: str) -> None:
    """To every process but the first and the one that sends it."""
    if box.running():
        with suppress(TimeoutError, OSError, RuntimeError):
            box.run(["/bin/sh", "-c", f"kill -{name} -1"], timeout=5)


def new_id(prefix: str = "i") -> str:
    """An id as E2B makes them: 20 characters."""
    return prefix + "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in os.urandom(20 - len(prefix)))


def stamp(instant: float) -> str:
    """RFC 3339 with microseconds and Z."""
    return datetime.fromtimestamp(instant, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
