"""A host and a store that kill their own process, for real, at the n-th thing that it does to the world."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sandboxer.hosts.base import MAX_OUTPUT, Command, Host, HostAddress, Progress, Result, Streams, SyncReport
from sandboxer.models import Sandbox, Snapshot
from sandboxer.payments.credits import Credits
from sandboxer.payments.ledger import Book
from sandboxer.store.base import UpdateFn
from sandboxer.store.json_store import JsonStore
from sandboxer.store.snapshot_records import SnapshotEdit, SnapshotRecords
from sandboxer.timing import Deadline


class Doom:
    """Counts the steps, before and after each outside call and each store write; at step `at` comes SIGKILL."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.steps = 0

    def step(self, what: str) -> None:
        """One step; `what` is written to stderr, so that a sweep can say where it struck."""
        if self.steps == self.at:
            sys.stderr.write(f"killed at step {self.steps}: {what}\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        self.steps += 1


class MortalStore(JsonStore):
    """Every write is two steps."""

    def __init__(self, directory: Path, doom: Doom) -> None:
        super().__init__(directory)
        self._doom = doom

    def update(self, sandbox_id: str, fn: UpdateFn, *, must_succeed: bool = False) -> Sandbox | None:
        self._doom.step("before a store write")
        stored = super().update(sandbox_id, fn, must_succeed=must_succeed)
        self._doom.step("after a store write")
        return stored


class MortalPurse(Credits):
    """Every change of the credits is two steps."""

    doom: Doom

    def _change(self, change: Callable[[Book, float], Book], *, must_succeed: bool = False) -> None:
        self.doom.step("before a change of the credits")
        super()._change(change, must_succeed=must_succeed)
        self.doom.step("after a change of the credits")


class MortalSnapshots(SnapshotRecords):
    """Every change of the records of snapshots is two steps."""

    doom: Doom

    def update(self, snapshot_id: str, edit: SnapshotEdit, *, must_succeed: bool = False) -> Snapshot | None:
        self.doom.step("before a change of the snapshots")
        stored = super().update(snapshot_id, edit, must_succeed=must_succeed)
        self.doom.step("after a change of the snapshots")
        return stored


class MortalHost(Host):
    """Every call that starts or writes something is two steps."""

    def __init__(self, inner: Host, doom: Doom) -> None:
        self._inner = inner
        self._doom = doom
        self.name, self.compose, self.env = inner.name, inner.compose, inner.env

    def connect(self, deadline: Deadline) -> None:
        self._inner.connect(deadline)

    def address(self) -> HostAddress:
        return self._inner.address()

    def work_dir(self, deadline: Deadline) -> str:
        return self._inner.work_dir(deadline)

    def stream(self, command: Command, streams: Streams, deadline: Deadline) -> int:
        self._doom.step(f"before {_brief(command.argv)}")
        code = self._inner.stream(command, streams, deadline)
        self._doom.step(f"after {_brief(command.argv)}")
        return code

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        track: str | None = None,
        limit: int = MAX_OUTPUT,
    ) -> Result:
        self._doom.step(f"before {_brief(argv)}")
        result = self._inner.run(argv, deadline, stdin=stdin, env=env, cwd=cwd, track=track, limit=limit)
        self._doom.step(f"after {_brief(argv)}")
        return result

    def start(self, argv: Sequence[str], deadline: Deadline, *, stdin: bytes = b"", log: str | None = None) -> None:
        self._doom.step(f"before starting {_brief(argv)}")
        self._inner.start(argv, deadline, stdin=stdin, log=log)
        self._doom.step(f"after starting {_brief(argv)}")

    def end_tracked(self, track: str, deadline: Deadline) -> int:
        self._doom.step("before end_tracked")
        ended = self._inner.end_tracked(track, deadline)
        self._doom.step("after end_tracked")
        return ended

    def write_file(self, path: str, data: bytes, deadline: Deadline, *, mode: int = 0o600) -> None:
        self._doom.step("before write_file")
        self._inner.write_file(path, data, deadline, mode=mode)
        self._doom.step("after write_file")

    def read_file(self, path: str, deadline: Deadline, *, limit: int = MAX_OUTPUT) -> bytes | None:
        return self._inner.read_file(path, deadline, limit=limit)

    def sync(
        self,
        source: Path,
        target: str,
        deadline: Deadline,
        *,
        exclude: Sequence[str] = (),
        gitignore: bool = False,
        progress: Progress | None = None,
    ) -> SyncReport:
        self._doom.step("before sync")
        report = self._inner.sync(source, target, deadline, exclude=exclude, gitignore=gitignore, progress=progress)
        self._doom.step("after sync")
        return report

    def close(self) -> None:
        self._inner.close()


def _brief(argv: Sequence[str]) -> str:
    return " ".join(argv)[:60].replace("\n", " ")
