"""A stateful property test over the verbs, with errors, interrupts, deaths of the process at any step, and clocks.

Promise 9: the state machine is sound. Promises 1, 2, 4, 5: nothing is lost and nothing is left, whatever happens when.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from sandboxer.config.catalog import Catalog
from sandboxer.errors import BackendError, SandboxerError, Unavailable
from sandboxer.extensions.base import CanStop, Context, Status
from sandboxer.extensions.directories.sandbox import STOPPED, existing, marker, write_marker
from sandboxer.manager import SandboxManager
from sandboxer.models import Event, Handle, Manifest, Request, Sandbox
from sandboxer.registry import Registry
from sandboxer.state import ESTABLISHED, State
from sandboxer.store.base import OtherRecords, Predicate, Store, UpdateFn, holds_name
from sandboxer.testing.fake import POINTS, FakeExtension, Faults
from sandboxer.timing import uptime
from tests.installations import installed, left_over
from tests.sizes import scaled


class Died(BaseException):
    """The process was killed: from here on it can do nothing."""


class Life(Faults):
    """One process's life: errors at named points, or death at the n-th thing it does to the world."""

    def __init__(self) -> None:
        super().__init__()
        self.dies_in: int | None = None
        self.dead = False

    def at(self, point: str) -> None:
        self.step()
        super().at(point)

    def step(self) -> None:
        """One thing done to the world."""
        if self.dead:
            raise Died
        if self.dies_in is None:
            return
        self.dies_in -= 1
        if self.dies_in < 0:
            self.dead = True
            raise Died


class MortalStore(Store):
    """A store that its process can die before or after each write of."""

    def __init__(self, inner: Store, life: Life) -> None:
        self._inner = inner
        self._life = life

    @property
    def install_id(self) -> str:
        return self._inner.install_id

    def get(self, sandbox_id: str) -> Sandbox | None:
        return self._inner.get(sandbox_id)

    def find(self, text: str) -> Sequence[Sandbox]:
        return self._inner.find(text)

    def list(
        self, *, ended: bool = False, name: str | None = None, only: Predicate | None = None, limit: int | None = None
    ) -> Sequence[Sandbox]:
        return self._inner.list(ended=ended, name=name, only=only, limit=limit)

    def others(self) -> OtherRecords:
        return self._inner.others()

    def update(self, sandbox_id: str, fn: UpdateFn, *, must_succeed: bool = False) -> Sandbox | None:
        self._life.step()
        stored = self._inner.update(sandbox_id, fn, must_succeed=must_succeed)
        self._life.step()
        return stored

    def events(self, *, limit: int | None = None) -> Sequence[Event]:
        return self._inner.events(limit=limit)

    def settle_events(self, settled: Iterable[Event]) -> None:
        self._inner.settle_events(settled)


class StoppableFake(FakeExtension, CanStop):
    """The fake, which can stop its sandboxes too."""

    def stop(self, handle: Handle, ctx: Context) -> None:
        self.at("stop")
        set_stopped(existing(handle), stopped=True)
        self.at("stop.done")

    def start(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        self.at("start")
        set_stopped(existing(handle), stopped=False)
        self.at("start.done")


def set_stopped(directory: Path, *, stopped: bool) -> None:
    """Stop or start a sandbox of the fake."""
    write_marker(directory, {**marker(directory), STOPPED: stopped})


class _FakeOnly(Registry):
    """A registry that does not look for what is installed on this machine, which is most of the time of a sweep."""

    def manifests(self) -> list[Manifest]:
        return [self.manifest("ext.fake")]


def _faults(*points: str) -> st.SearchStrategy[tuple[str, str, int]]:
    return st.one_of(
        st.just(("none", "", 0)),
        st.tuples(st.sampled_from(["refused", "silent", "interrupt"]), st.sampled_from(points), st.just(0)),
        st.tuples(st.just("death"), st.just(""), st.integers(min_value=0, max_value=12)),
    )


FAULTS = _faults(*POINTS)
CHANGE_FAULTS = _faults("stop", "stop.done", "start", "start.done", "status")
ERRORS: dict[str, Callable[[], BaseException]] = {
    "refused": lambda: BackendError("refused"),
    "silent": lambda: Unavailable("no answer"),
    "interrupt": KeyboardInterrupt,
}


class Machine(RuleBasedStateMachine):
    """Verbs in any order, each with a fault or none."""

    extension: ClassVar[type[FakeExtension]] = StoppableFake
    sandboxes = Bundle("sandboxes")

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="machine"))
        self.ahead = 0.0
        self.promised: set[str] = set()  # ids that were answered as ready, and not asked to go since
        self._restart()

    def teardown(self) -> None:
        try:
            self._restart()
            self._settle()
        finally:
            shutil.rmtree(self.root)

    def _restart(self) -> None:
        """A new process over the same files."""
        self.life = Life()
        here = installed(self.root)
        # Only the fake: asking the real backends of this machine at each step would take minutes.
        extensions = _FakeOnly(Catalog("extension", Manifest, (self.root / "config" / "extensions",)))
        extensions.add("ext.fake", lambda: self.extension(self.life))
        core = dataclasses.replace(
            here.manager.services,
            store=MortalStore(here.store, self.life),
            extensions=extensions,
            clock=lambda: _real_time() + self.ahead,
            uptime=lambda: uptime() + self.ahead,
        )
        self.manager = SandboxManager(core)

    def _do(self, fault: tuple[str, str, int], act: Callable[[], Any]) -> Any:
        """Do something under a fault; None when it failed. A dead process is replaced."""
        kind, point, steps = fault
        if kind == "death":
            self.life.dies_in = steps
        elif kind != "none":
            self.life.plan[point] = ERRORS[kind]()
        try:
            return act()
        except (SandboxerError, KeyboardInterrupt, Died):
            return None
        finally:
            self._restart()

    @rule(target=sandboxes, fault=FAULTS, name=st.sampled_from([None, "a", "b"]), keep=st.booleans())
    def create(self, fault: tuple[str, str, int], name: str | None, keep: bool) -> Any:
        before = {record.id for record in self.manager.list(ended=True)}

        def act() -> Sandbox:
            request = Request(profile="profile.fake", name=name, keep_failed=keep, ttl=600)
            return self.manager.create(self.manager.plan(request))

        made = self._do(fault, act)
        if made is not None:
            self.promised.add(made.id)
        return multiple(*({record.id for record in self.manager.list(ended=True)} - before))

    @rule(sandbox_id=sandboxes, fault=FAULTS)
    def destroy(self, sandbox_id: str, fault: tuple[str, str, int]) -> None:
        self.promised.discard(sandbox_id)
        gone = self._do(fault, lambda: self.manager.destroy(sandbox_id))
        assert gone is None or gone.state == State.DESTROYED

    @rule(sandbox_id=sandboxes, fault=FAULTS)
    def extend(self, sandbox_id: str, fault: tuple[str, str, int]) -> None:
        extended = self._do(fault, lambda: self.manager.extend_ttl(sandbox_id, 300))
        if extended is not None:
            assert extended.expires_at > _real_time() + self.ahead

    @rule(sandbox_id=sandboxes)
    def lose(self, sandbox_id: str) -> None:
        """The backend loses it behind our back."""
        self.promised.discard(sandbox_id)
        shutil.rmtree(self._directory(sandbox_id), ignore_errors=True)

    @rule(sandbox_id=sandboxes, verb=st.sampled_from(["stop", "start"]), fault=CHANGE_FAULTS)
    def stop_or_start(self, sandbox_id: str, verb: str, fault: tuple[str, str, int]) -> None:
        changed = self._do(fault, lambda: getattr(self.manager, verb)(sandbox_id))
        if changed is not None:
            assert changed.state == (State.STOPPED if verb == "stop" else State.READY)
            self._check_told_truly(changed)

    @rule(sandbox_id=sandboxes, stopped=st.booleans())
    def stop_or_start_elsewhere(self, sandbox_id: str, stopped: bool) -> None:
        """Somebody stops or starts it behind our back, and somebody asks."""
        if (directory := self._directory(sandbox_id)).is_dir():
            set_stopped(directory, stopped=stopped)
            self._check_told_truly(self.manager.get(sandbox_id, refresh=True))

    @rule(seconds=st.sampled_from([100, 700, 4000]), fault=FAULTS)
    def expire(self, seconds: int, fault: tuple[str, str, int]) -> None:
        self.ahead += seconds
        now = _real_time() + self.ahead
        over = {r.id for r in self.manager.list() if r.expires_at is not None and r.expires_at <= now}
        self.promised -= over
        self._do(fault, lambda: self.manager.expire(apply=True))

    @rule(fault=FAULTS)
    def reconcile(self, fault: tuple[str, str, int]) -> None:
        self._do(fault, lambda: self.manager.reconcile(apply=True, force=True))

    @invariant()
    def no_resource_is_without_a_record(self) -> None:
        """Promise 5."""
        for left in left_over(self.root):
            record = self.manager.services.store.get(left.rpartition("sbx-")[2])
            assert record is not None, f"{left} has no record"
            assert record.state != State.DESTROYED, f"{left} is there, and its record ended"
            assert not record.clean, f"{left} is there, and its record says that nothing is"

    @invariant()
    def what_was_promised_is_there(self) -> None:
        here = set(left_over(self.root))
        for sandbox_id in self.promised:
            assert self.manager.get(sandbox_id).state in (State.READY, State.STOPPED)
            assert f"work/fake/sbx-{sandbox_id}" in here

    @invariant()
    def names_are_unique_among_the_living(self) -> None:
        names = Counter(record.name for record in self.manager.list() if record.name and holds_name(record))
        assert all(count == 1 for count in names.values())

    @invariant()
    def events_are_in_order_and_tell_the_end_once(self) -> None:
        told = defaultdict(list)
        for event in self.manager.events():
            told[event.detail["sandbox_id"]].append(event)
        for events in told.values():
            numbers = [event.detail["seq"] for event in events]
            assert numbers == sorted(set(numbers))
            assert sum(event.event_type == "sandbox.destroyed" for event in events) <= 1

    def _directory(self, sandbox_id: str) -> Path:
        return self.root / "work" / "fake" / f"sbx-{sandbox_id}"

    def _check_told_truly(self, record: Sandbox) -> None:
        """A sandbox that is there and has not begun to end is stopped where its record says so, and nowhere else."""
        directory = self._directory(record.id)
        if record.state in ESTABLISHED and directory.is_dir():
            told = (record.state == State.STOPPED, record.intent)
            assert told == (bool(marker(directory).get(STOPPED)), None)

    def _settle(self) -> None:
        """Two runs of reconcile without faults: nothing is stuck, and what exists is what the records say."""
        for _ in range(2):
            self.manager.reconcile(apply=True, force=True, grace=0.0)
            self._restart()
        for record in self.manager.list():
            assert record.state in (*ESTABLISHED, State.FAILED), f"{record.id} is stuck in {record.state}"
            self._check_told_truly(record)
        there = {
            record.id
            for record in self.manager.list()
            if record.state in ESTABLISHED or (record.request.keep_failed and not record.clean)
        }
        assert {left.rpartition("sbx-")[2] for left in left_over(self.root)} <= there


def _real_time() -> float:
    import time

    return time.time()


SIZE = settings(
    max_examples=scaled(250, soak=20_000),
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_no_order_of_verbs_faults_and_deaths_breaks_a_promise() -> None:
    run_state_machine_as_test(Machine, settings=SIZE)


class _Lying(StoppableFake):
    def teardown(self, handle: Handle, ctx: Context) -> None:
        """Says that it is gone."""


class _Forgetful(StoppableFake):
    def find(self, sandbox_id: str, ctx: Context) -> Handle | None:
        return None


class _SaysThatItRuns(StoppableFake):
    def status(self, handle: Handle, ctx: Context) -> Status:
        shown = super().status(handle, ctx)
        return Status("running") if shown.presence == "stopped" else shown


@pytest.mark.parametrize("planted", [_Lying, _Forgetful, _SaysThatItRuns])
def test_the_machine_catches_a_backend_that_lies(planted: type[FakeExtension]) -> None:
    class Planted(Machine):
        extension = planted

    quick = settings(SIZE, max_examples=200, report_multiple_bugs=False, phases=[Phase.generate])
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Planted, settings=quick)
