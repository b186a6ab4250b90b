"""Killing a verb at each of its steps, settling, and counting what is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path

import msgspec

from sandboxer.bootstrap import install
from sandboxer.models import Sandbox
from sandboxer.state import State
from tests.sizes import scaled

REPOSITORY = Path(__file__).parents[2]


class Sweep:
    """One backend's installation, and a census of it.

    patience  how many seconds a process may take to end that is not wanted any more
    """

    patience = 30.0

    def __init__(
        self, environment: Mapping[str, str], asked: Mapping[str, object], census: Callable[[], list[str]]
    ) -> None:
        self._environment = dict(environment)
        self._asked = json.dumps(dict(asked))
        self._census = census

    def victim(self, step: int, verb: str, argument: str) -> subprocess.CompletedProcess[str]:
        """Run a verb that dies at `step`."""
        victim = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.run_verb", str(step), verb, argument],
            env={**self._environment, "PYTHONPATH": str(REPOSITORY)},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started(victim.pid)
        try:
            out, err = victim.communicate(timeout=170)
        finally:
            victim.kill()
        return subprocess.CompletedProcess(victim.args, victim.returncode, out, err)

    def started(self, pid: int) -> None:
        """A victim runs now."""

    def steps_of(self, verb: str, argument: str) -> int:
        """How many steps a whole run takes."""
        done = self.victim(-1, verb, argument)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    def records(self, *, ended: bool = False) -> list[Sandbox]:
        """The records."""
        return list(install(self._environment, relay_in_background=False).manager.list(ended=ended))

    def settle(self) -> list[str]:
        """Two runs of reconcile; what is not settled then."""
        complaints: list[str] = []
        for _ in range(2):
            here = install(self._environment, relay_in_background=False)
            report = here.manager.reconcile(apply=True, force=True)
            complaints = [f"remaining: {msgspec.to_builtins(item)}" for item in report.remaining]
            here.close()
        stuck = [r for r in self.records() if r.state not in (State.READY, State.FAILED)]
        complaints += [f"{record.id} is stuck in {record.state}" for record in stuck]
        complaints += [
            f"{r.id} is not clean: {r.error}" for r in self.records() if r.state == State.FAILED and not r.clean
        ]
        return complaints

    def remains(self, when: str) -> list[str]:
        """What is left now. A process that is about to end, as the child of one that was killed may be on a busy
        machine, is waited for and told; what stays is wrong."""
        begun = time.monotonic()
        first = left = self._census()
        while any(item.startswith("process ") for item in left) and time.monotonic() - begun < self.patience:
            time.sleep(0.05)
            left = self._census()
        waited = time.monotonic() - begun
        for item in set(first) - set(left):
            sys.stdout.write(f"{when}, ended by itself within {waited:.2f} s: {item}\n")
        return [f"{when}, still there after {waited:.2f} s: {item}" for item in left]

    def clear(self) -> None:
        """Destroy every record."""
        here = install(self._environment, relay_in_background=False)
        for record in here.manager.list():
            here.manager.destroy(record.id)
        here.close()

    def kills_of_create(self, *, check: int) -> Iterator[tuple[str, list[str]]]:
        """Kill a create at its steps; where it struck, and what was wrong after reconcile."""
        total = self.steps_of("create", self._asked)
        self.clear()
        for step in chosen(total, check):
            dead = self._killed_in("create", step)
            wrong = self.settle()
            if not any(record.state == State.READY for record in self.records()):
                wrong += self.remains("after reconcile")
            self.clear()
            wrong += self.remains("after destroy")
            yield dead.stderr.strip().splitlines()[-1], wrong

    def _killed_in(self, verb: str, step: int) -> subprocess.CompletedProcess[str]:
        """Kill a create or a run at a step. One that waits asks more or less often: where it ended before that step, it
        is killed at the last one that it had."""
        for _ in range(5):
            dead = self.victim(step, verb, self._asked)
            if dead.returncode != 0:
                break
            step = min(step, int(dead.stdout)) - 1
            self.clear()
        assert dead.returncode == -signal.SIGKILL, (dead.returncode, dead.stderr)
        return dead

    def kills_of_destroy(self, *, check: int) -> Iterator[tuple[str, list[str]]]:
        """Kill a destroy at its steps; then the wish alone must be enough."""
        total = self.steps_of("destroy", self._ready())
        for step in chosen(total, check):
            sandbox_id = self._ready()
            dead = self.victim(step, "destroy", sandbox_id)
            assert dead.returncode == -signal.SIGKILL, (dead.returncode, dead.stderr)
            wrong = self.settle()
            if step == 0:
                self.clear()  # it died before the wish was durable
            wrong += [f"{r.id} lives" for r in self.records()]
            wrong += self.remains("after reconcile")
            ended = [r for r in self.records(ended=True) if r.id == sandbox_id]
            wrong += [] if len(ended) == 1 else [f"the record of {sandbox_id} is lost"]
            yield dead.stderr.strip().splitlines()[-1], wrong

    def kills_of_recreate(self, *, check: int) -> Iterator[tuple[str, list[str]]]:
        """Kill a recreate at its steps; after reconcile either sandbox is there as if nothing had been, or none is."""
        total = self.steps_of("recreate", self._ready())
        self.clear()
        for step in chosen(total, check):
            old = self._ready()
            dead = self.victim(step, "recreate", old)
            assert dead.returncode == -signal.SIGKILL, (dead.returncode, dead.stderr)
            wrong = self.settle()
            lives = [record for record in self.records() if record.state == State.READY]
            wrong += [f"{len(lives)} live"] if len(lives) > 1 else []
            held = {one.id: Decimal(one.metering.reserved_usd) for one in lives if one.metering is not None}
            here = install(self._environment, relay_in_background=False)
            told = {one.sandbox_id: Decimal(one.usd) for one in here.manager.credits().reservations}
            here.close()
            wrong += [] if told == held else [f"set aside: {told}, agreed: {held}"]
            self.clear()
            wrong += self.remains("after destroy")
            yield dead.stderr.strip().splitlines()[-1], wrong

    def kills_of_run(self, *, check: int) -> Iterator[tuple[str, list[str]]]:
        """Kill a run at its steps; after reconcile nothing of it is left, at whatever step that was."""
        total = self.steps_of("run", self._asked)
        for step in chosen(total, check):
            dead = self._killed_in("run", step)
            wrong = self.settle()
            wrong += [f"{record.id} is {record.state}" for record in self.records() if record.state != State.FAILED]
            wrong += self.remains("after reconcile")
            self.clear()
            yield dead.stderr.strip().splitlines()[-1], wrong

    def killed_run(self, *, share: float) -> str:
        """Kill a run when that share of its steps is done; where it struck."""
        dead = self._killed_in("run", int(self.steps_of("run", self._asked) * share))
        return dead.stderr.strip().splitlines()[-1]

    def kills_of_power(self, verb: str, *, check: int) -> Iterator[tuple[str, list[str]]]:
        """Kill a stop or a start at its steps; after `reconcile` the record says what is, and both verbs work on."""
        total = self.steps_of(verb, self._before(verb))
        self.clear()
        for step in chosen(total, check):
            sandbox_id = self._before(verb)
            dead = self.victim(step, verb, sandbox_id)
            assert dead.returncode == -signal.SIGKILL, (dead.returncode, dead.stderr)
            here = install(self._environment, relay_in_background=False)
            here.manager.reconcile(apply=True)
            wrong = [str(action) for action in here.manager.reconcile(apply=True).actions]
            settled = here.manager.get(sandbox_id)
            shown = here.manager.get(sandbox_id, refresh=True)
            if (settled.state, settled.intent) != (shown.state, None):
                wrong.append(f"{settled.state} and {settled.intent} where the backend shows {shown.state}")
            for other in (here.manager.stop, here.manager.start):
                other(sandbox_id)
            here.close()
            self.clear()
            wrong += self.remains("after destroy")
            yield dead.stderr.strip().splitlines()[-1], wrong

    def _before(self, verb: str) -> str:
        sandbox_id = self._ready()
        if verb == "start":
            self.victim(-1, "stop", sandbox_id)
        return sandbox_id

    def kills_of_reconcile(self, *, check: int) -> Iterator[tuple[str, list[str]]]:
        """Kill the reconcile that follows a killed create; two further runs converge."""
        total = self.steps_of("create", self._asked)
        self.clear()
        late = total - 3  # everything is there, `ready` is not written
        self.victim(late, "create", self._asked)
        runs = self.steps_of("reconcile", "-")
        self.clear()
        for step in chosen(runs, check):
            self.victim(late, "create", self._asked)
            dead = self.victim(step, "reconcile", "-")
            wrong = self.settle()
            self.clear()
            wrong += self.remains("after destroy")
            yield (dead.stderr.strip().splitlines() or ["not struck"])[-1], wrong

    def _ready(self) -> str:
        done = self.victim(-1, "create", self._asked)
        assert done.returncode == 0, done.stderr
        (record,) = [record for record in self.records() if record.state == State.READY]
        return record.id


def chosen(total: int, check: int) -> list[int]:
    """Which steps to strike: all in a soak, else `check` of them, evenly spread, first and last among them."""
    count = min(total, scaled(check, soak=total))
    return sorted({round(n * (total - 1) / max(1, count - 1)) for n in range(count)})
