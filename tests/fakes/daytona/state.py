"""What there is at the fake Daytona, and what time does to it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.sandbox_fs import SandboxFS

LASTING = frozenset({"started", "stopped", "archived", "paused", "error", "build_failed"})
"""States that stay; the others are on their way."""
BILLED = frozenset({"creating", "starting", "started", "stopping", "resizing", "snapshotting", "restoring", "resuming"})


@dataclass(frozen=True, kw_only=True)
class Quota:
    """What an organization may have at once; None is no limit. And what one sandbox may have without a GPU."""

    cpu: int | None = None
    memory: int | None = None
    disk: int | None = None
    per_cpu: int = 4
    per_memory: int = 8
    per_disk: int = 10


@dataclass(kw_only=True)
class FakeMachine:
    """One sandbox. `then` is the state that it comes to at `due`. Times are unix seconds by the fake's clock."""

    id: str
    organization: str
    name: str
    box: SandboxFS
    asked: Mapping[str, Any]
    labels: dict[str, str]
    cpu: int
    memory: int
    disk: int
    gpu: int
    created: float
    state: str
    then: str | None = None
    due: float = 0.0
    error: str | None = None
    changed: float = 0.0
    active: float = 0.0
    ends: float | None = None
    auto_stop: int = 15
    auto_archive: int = 7 * 24 * 60
    auto_delete: int = -1
    auto_pause: int = 0
    public: bool = False
    blocked: bool = False
    allow_list: str | None = None
    billed: float = 0.0
    billed_since: float | None = None
    preview: str = ""
    logs: bytes = b""
    build_logs: bytes = b""


@dataclass(kw_only=True)
class StoredSnapshot:
    """One snapshot. `box` has its files; None for one that Daytona offers to everybody."""

    id: str
    organization: str | None
    name: str
    created: float
    due: float
    box: SandboxFS | None = None
    source: str | None = None
    cpu: int = 1
    memory: int = 1
    disk: int = 3


class NameTaken(Exception):
    """The name is taken."""


@dataclass
class DaytonaState:
    """Everything, under one lock. `index` is what listings are made of; `before` what it was before the last change.

    `clock` gives unix seconds; `change_seconds` is how long a change of state takes."""

    clock: Callable[[], float]
    change_seconds: float = 0.0
    machines: dict[str, FakeMachine] = field(default_factory=dict)
    snapshots: dict[str, StoredSnapshot] = field(default_factory=dict)
    creates: int = 0
    ended: dict[str, float] = field(default_factory=dict)
    index: tuple[FakeMachine, ...] = ()
    before: tuple[FakeMachine, ...] = ()
    doomed: list[SandboxFS] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._clearing: list[threading.Thread] = []

    @contextmanager
    def held(self) -> Iterator[float]:
        """The lock, with everything as it is by now; the time."""
        try:
            with self._lock:
                now = self.clock()
                for machine in list(self.machines.values()):
                    self._advance(machine, now)
                yield now
        finally:
            self._clear()

    def find(self, organization: str, id_or_name: str) -> FakeMachine | None:
        """One of an organization's sandboxes that still exist, by id or name."""
        machine = self.machines.get(id_or_name)
        if machine is None:
            machine = next(
                (m for m in self.machines.values() if m.name == id_or_name and m.organization == organization), None
            )
        return machine if machine is not None and machine.organization == organization else None

    def add(self, machine: FakeMachine) -> None:
        """A new sandbox. Raises Taken."""
        if self.find(machine.organization, machine.name) is not None:
            raise NameTaken(machine.name)
        self.creates += 1
        self.machines[machine.id] = machine
        self._bill(machine, machine.created)
        self._reindex()

    def go(self, machine: FakeMachine, through: str, to: str, *, seconds: float | None = None) -> None:
        """Let a change begin."""
        now = self.clock()
        machine.state, machine.then, machine.changed = through, to, now
        machine.due = now + (self.change_seconds if seconds is None else seconds)
        if through == "stopping":
            machine.box.stop()
        self._bill(machine, now)

    def snapshot(self, organization: str, name: str) -> StoredSnapshot | None:
        """A snapshot that an organization may use, by id or name."""
        for kept in self.snapshots.values():
            if name in (kept.id, kept.name) and kept.organization in (None, organization):
                return kept
        return None

    def billed(self, machine_id: str) -> float:
        """Seconds for which one has cost as a running one."""
        with self.held() as now:
            machine = self.machines.get(machine_id)
            if machine is None:
                return self.ended.get(machine_id, 0.0)
            return machine.billed + (now - machine.billed_since if machine.billed_since is not None else 0.0)

    def close(self) -> None:
        """End and remove everything."""
        with self._lock:
            for machine in list(self.machines.values()):
                self._remove(machine, self.clock())
            self.doomed += [kept.box for kept in self.snapshots.values() if kept.box is not None]
            self.snapshots.clear()
        self._clear()
        for thread in list(self._clearing):
            thread.join()

    def _clear(self) -> None:
        """Remove the insides of what has gone, which takes a moment, without holding anybody up."""
        while self.doomed:
            try:
                box = self.doomed.pop()
            except IndexError:
                return
            thread = threading.Thread(target=box.close, name="fake-daytona-clears", daemon=True)
            with self._lock:
                self._clearing = [one for one in self._clearing if one.is_alive()]
                self._clearing.append(thread)
            thread.start()

    def _advance(self, machine: FakeMachine, now: float) -> None:
        if machine.ends is not None and now >= machine.ends:
            self._remove(machine, machine.ends)
            return
        if machine.then is not None and now >= machine.due:
            machine.state, machine.then, machine.changed = machine.then, None, machine.due
            self._bill(machine, machine.due)
            if machine.state in ("error", "build_failed"):
                machine.box.stop()
        if machine.state == "destroyed":
            self._remove(machine, now)
        elif machine.state == "started" and machine.auto_stop > 0 and now - machine.active >= machine.auto_stop * 60:
            self.go(machine, "stopping", "stopped")
            self._advance(machine, now)
        elif (
            machine.state == "stopped"
            and machine.auto_delete >= 0
            and now - machine.changed >= machine.auto_delete * 60
        ):
            self._remove(machine, now)

    def _remove(self, machine: FakeMachine, at: float) -> None:
        machine.state, machine.then = "destroyed", None
        self._bill(machine, at)
        self.ended[machine.id] = machine.billed
        del self.machines[machine.id]
        self.doomed.append(machine.box)
        self._reindex()

    def _bill(self, machine: FakeMachine, at: float) -> None:
        runs = machine.state in BILLED
        if runs and machine.billed_since is None:
            machine.billed_since = at
        elif not runs and machine.billed_since is not None:
            machine.billed += max(0.0, at - machine.billed_since)
            machine.billed_since = None

    def _reindex(self) -> None:
        self.before, self.index = self.index, tuple(self.machines.values())


def new_id() -> str:
    """As Daytona makes them."""
    return str(uuid.uuid4())
