"""Several changes to a write: nobody is told too early, a failed write fails as one, an interrupt harms its own."""

from __future__ import annotations

import ctypes
import gc
import random
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxer.errors import Conflict, StoreCorrupt, Unavailable
from sandboxer.store import group_commit
from sandboxer.store.document import AtomicDocument, VersionStamp
from sandboxer.store.group_commit import GroupCommit
from sandboxer.store.json_store import JsonStore
from tests.store.faulty import Hasty, Stubborn
from tests.store.neighbours import outcome_of, together
from tests.store.records import ID, OTHER, count, event, number, put, sandbox
from tests.testbed.waiting import eventually

State = tuple[str, ...]


class Paper(AtomicDocument):
    """A document that is nowhere: only its lock is asked for."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        yield


class Register:
    """A state with its changes; `failures` are raised by its next writes, one each (None: that one succeeds)."""

    def __init__(self, kind: type[GroupCommit[State]] = GroupCommit, *, lock_seconds: float = 30.0) -> None:
        self.state: State = ()
        self.written: list[State] = []
        self.reserve_used: list[bool] = []
        self.failures: list[BaseException | None] = []
        self.before_write: Callable[[], None] = lambda: None
        document = Paper(Path("nowhere"), lock_seconds=lock_seconds)
        self.commits = kind(document, read=lambda: self.state, write=self._write)

    def _write(self, _before: State, after: State, must_succeed: bool) -> None:
        self.before_write()
        self.reserve_used.append(must_succeed)
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        self.written.append(after)
        self.state = after

    def add(self, word: str, *, must_succeed: bool = False) -> State:
        """Add a word; the state after it. Refuses one that is there, and what starts with '-'; '=' changes nothing."""

        def decide(state: State) -> tuple[State, State]:
            if word in state or word.startswith("-"):
                raise Conflict(word)
            after = state if word.startswith("=") else (*state, word)
            return after, after

        return self.commits.change(decide, must_succeed=must_succeed)

    def gathered(self, number: int) -> None:
        eventually(lambda: self.commits.waiting == number, within=30, what="they wait", every=0.0005)

    def together(self, *words: str) -> list[State | BaseException]:
        """Add words at once; one that ends in '!' must succeed."""
        acts = [partial(self.add, word.rstrip("!"), must_succeed=word.endswith("!")) for word in words]
        return together(acts, hold=self.hold, gathered=self.gathered)

    def hold(self, middle: Callable[[], None]) -> None:
        def nothing(state: State) -> tuple[State, None]:
            middle()
            return state, None

        self.commits.change(nothing)


def full() -> Unavailable:
    return Unavailable("no space left", hint="free some")


# -- one write --------------------------------------------------------------------------------------------------------


def test_what_comes_at_once_is_written_once_in_the_order_it_came() -> None:
    register = Register()
    found = register.together("a", "b", "-", "c", "a", "=")
    assert found[0] == ("a",)
    assert found[1] == ("a", "b")
    assert found[3] == ("a", "b", "c")
    assert [type(one) for one in (found[2], found[4])] == [Conflict, Conflict]
    assert found[5] == ("a", "b", "c")
    assert register.written == [("a", "b", "c")]


def test_one_that_comes_alone_is_written_by_its_own_thread() -> None:
    """The command line has one thread, and is not to pay for a second."""
    register = Register()
    before = threading.active_count()
    seen: list[int] = []
    register.before_write = lambda: seen.extend((threading.get_ident(), threading.active_count()))
    register.add("a")
    assert seen == [threading.get_ident(), before]


def test_a_write_carries_so_many_and_no_more() -> None:
    """Nobody waits for ever behind others: the first to come is in the first write."""
    register = Register()
    words = [f"{n:03d}" for n in range(2 * group_commit.LARGEST + 5)]
    found = register.together(*words)
    assert not [one for one in found if isinstance(one, BaseException)]
    assert [len(state) for state in register.written] == [
        group_commit.LARGEST,
        2 * group_commit.LARGEST,
        2 * group_commit.LARGEST + 5,
    ]
    assert register.state == tuple(words)


def told_early(kind: type[GroupCommit[State]], *, patience: float) -> bool:
    """Whether somebody is told of a change within so many seconds although it is not written."""
    register = Register(kind)
    told = threading.Event()
    early: list[bool] = []
    register.before_write = lambda: early.append(told.wait(patience))

    def add(word: str) -> None:
        register.add(word)
        told.set()

    together([partial(add, word) for word in "abc"], hold=register.hold, gathered=register.gathered)
    # who was told early is back before the write is through
    eventually(lambda: register.state == ("a", "b", "c"), within=30, what="the write")
    return any(early)


def test_nobody_is_told_before_the_write_is_through() -> None:
    """Promise 11, for those who share a write."""
    assert not told_early(GroupCommit, patience=0.2)


def test_that_is_seen_of_one_that_tells_first() -> None:
    assert told_early(Hasty, patience=30)  # as soon as the told thread has its turn


# -- a write that fails -----------------------------------------------------------------------------------------------


def test_a_failed_write_fails_all_that_were_part_of_it_each_with_an_error_of_its_own() -> None:
    """Promise 14: the state is as before, and what one caller notes on its error is not seen by another."""
    register = Register()
    failure = full()
    failure.__cause__ = OSError(28, "no space left on device")
    register.failures = [failure]
    found = register.together("a", "b", "c")
    assert [type(one) for one in found] == [Unavailable] * 3
    assert len({id(one) for one in found}) == 3
    for number_, one in enumerate(found):
        assert isinstance(one, Unavailable)
        assert (one.message, one.hint, one.outcome, one.retryable) == ("no space left", "free some", "failed", True)
        assert isinstance(one.__cause__, OSError)
        assert one.sandbox_id is None
        one.sandbox_id = f"of {number_}"
    assert register.state == ()
    assert register.written == []
    assert register.add("a") == ("a",), "and on again"


def undone(kind: type[GroupCommit[State]]) -> list[State | BaseException]:
    register = Register(kind)
    register.failures = [full()]
    return register.together("=before", "a", "=after", "a", "-no")


def test_what_was_decided_by_a_change_that_failed_is_decided_again() -> None:
    """An idempotency key that was used by a record which never came to be gives no such record."""
    found = undone(GroupCommit)
    assert found[0] == ()
    assert isinstance(found[1], Unavailable)
    assert found[2] == (), "not the state with 'a'"
    assert isinstance(found[3], Unavailable), "it is not taken, there is no space for it"
    assert isinstance(found[4], Conflict)


def test_that_is_seen_of_one_that_lets_the_first_decision_stand() -> None:
    assert undone(Stubborn)[2] == ("a",)


def test_what_must_succeed_is_written_alone_when_the_disk_is_full() -> None:
    """Promise 14: the reserve is for recording what was destroyed, not for what came along with it."""
    register = Register()
    register.failures = [full()]
    found = register.together("a", "gone1!", "b", "gone2!", "=")
    assert [type(one) for one in (found[0], found[2])] == [Unavailable, Unavailable]
    assert (found[1], found[3]) == (("gone1",), ("gone1", "gone2"))
    assert found[4] == ("gone1", "gone2")
    assert register.reserve_used == [False, True]
    assert register.written == [("gone1", "gone2")]


def test_what_all_must_succeed_may_use_the_reserve_at_once_and_fails_when_that_does() -> None:
    register = Register()
    register.failures = [full()]
    found = register.together("gone1!", "gone2!", "=")
    assert [type(one) for one in found[:2]] == [Unavailable, Unavailable]
    assert found[2] == ()
    assert register.reserve_used == [True]
    register.failures = [full(), full()]
    found = register.together("a", "gone1!", "gone1!")
    assert [type(one) for one in found] == [Unavailable, Unavailable, tuple]
    assert register.reserve_used == [True, False, True, True], "the third was not there before, once the second failed"
    assert register.state == ("gone1",)


def test_a_write_of_which_nobody_knows_is_told_to_all_as_unknown() -> None:
    register = Register()
    register.failures = [Unavailable("it broke on the way back", outcome="unknown")]
    found = register.together("a", "gone!", "=", "-no")
    assert [one.outcome for one in found if isinstance(one, Unavailable)] == ["unknown"] * 4
    assert len(register.reserve_used) == 1


def test_a_state_that_cannot_be_read_is_told_to_all() -> None:
    register = Register()
    good = register.commits._read
    corrupt = StoreCorrupt("not ours")

    def read() -> State:
        raise corrupt

    def spoiled(middle: Callable[[], None]) -> None:
        register.hold(middle)

    def act(word: str) -> State:
        register.commits._read = read
        return register.add(word)

    found = together([partial(act, word) for word in "abc"], hold=spoiled, gathered=register.gathered)
    assert [type(one) for one in found] == [StoreCorrupt] * 3
    register.commits._read = good
    assert register.add("a") == ("a",)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "c", "d!", "e!", "-", "="]), min_size=1, max_size=7),
    st.lists(st.sampled_from(["fails", "succeeds", "unknown"]), max_size=3),
)
def test_whatever_fails_who_was_told_of_a_change_finds_it_and_the_others_left_none(
    words: Sequence[str], fates: Sequence[str]
) -> None:
    """Promises 12 and 14: an answer is of a state that was written; an error changed nothing."""
    register = Register()
    unknown = Unavailable("?", outcome="unknown")
    register.failures = [{"fails": full(), "unknown": unknown, "succeeds": None}[fate] for fate in fates]
    found = register.together(*words)
    assert len(register.written) <= 1
    told = [word.rstrip("!") for word, one in zip(words, found, strict=True) if not isinstance(one, BaseException)]
    assert [word for word in told if word != "="] == list(register.state)
    for word, answer in zip(words, found, strict=True):
        if isinstance(answer, tuple):
            assert answer == register.state[: len(answer)]
            assert word == "=" or answer[-1] == word.rstrip("!")
        elif isinstance(answer, Conflict):
            assert word == "-" or word.rstrip("!") in register.state
        else:
            assert isinstance(answer, Unavailable)
            assert register.reserve_used


# -- interrupts -------------------------------------------------------------------------------------------------------


class Interrupted(BaseException):
    """A signal came."""


def interrupt(thread: int) -> None:
    """As a signal would, but to any thread: it is raised before that thread's next step."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Interrupted))


class Signal:
    """What sends the main thread a signal, which ends its waits; `came` once it has been raised there."""

    def __init__(self) -> None:
        self.came = threading.Event()

    def send(self) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.came.set()
        raise Interrupted


@contextmanager
def signals() -> Iterator[Signal]:
    made = Signal()
    before = signal.signal(signal.SIGUSR1, made.on_signal)
    try:
        yield made
    finally:
        signal.signal(signal.SIGUSR1, before)


@contextmanager
def held(register: Register, pool: ThreadPoolExecutor) -> Iterator[threading.Event]:
    """Somebody is at work until the event is set; it is at the end."""
    inside, go_on = threading.Event(), threading.Event()

    def middle() -> None:
        inside.set()
        assert go_on.wait(60)

    holding = pool.submit(register.hold, middle)
    assert inside.wait(30)
    try:
        yield go_on
    finally:
        go_on.set()
        holding.result(30)


def test_who_is_interrupted_while_waiting_to_be_decided_changes_nothing() -> None:
    """And at once, although the one at work is not through: nothing of it happens later."""
    register = Register()
    with signals() as one, ThreadPoolExecutor(3) as pool, held(register, pool):
        before = pool.submit(register.add, "before")
        register.gathered(1)

        def interrupt_the_second() -> None:
            register.gathered(2)
            one.send()

        sending = pool.submit(interrupt_the_second)
        with pytest.raises(Interrupted):
            register.add("mine")
        assert register.commits.waiting == 1
        assert not before.done()
    sending.result(30)
    assert before.result(30) == ("before",)
    assert register.add("after") == ("before", "after")


def test_who_is_interrupted_while_its_change_is_written_is_through_when_it_hears_of_it() -> None:
    """So that it can look for what became of it: `begin` takes back what is there, and would miss what came later."""
    register = Register()
    with signals() as one, ThreadPoolExecutor(3) as pool, held(register, pool) as go_on:

        def interrupt_and_wait() -> None:
            one.send()
            assert one.came.wait(30)

        def release() -> None:
            register.gathered(1)
            go_on.set()

        register.before_write = interrupt_and_wait
        releasing = pool.submit(release)
        with pytest.raises(Interrupted):
            register.add("mine")
        assert register.state == ("mine",)
        releasing.result(30)


@pytest.mark.parametrize("when", ["before", "after"])
def test_who_writes_for_itself_and_is_interrupted_harms_nobody_that_waits(tmp_path: Path, when: str) -> None:
    """The change of its own is there or not; the others' are, and nobody hangs."""
    inside, go_on = threading.Event(), threading.Event()

    class Slow(AtomicDocument):
        def replace(self, data: bytes, *, must_succeed: bool = False) -> VersionStamp | None:
            stamp = super().replace(data, must_succeed=must_succeed) if when == "after" else None
            if not inside.is_set():
                inside.set()
                while not go_on.wait(0.01):
                    pass
            return stamp or super().replace(data, must_succeed=must_succeed)

    JsonStore(tmp_path).update(ID, put(sandbox()))
    store = JsonStore(tmp_path, document=Slow(tmp_path / "sandboxes.json"))
    idents: list[int] = []

    def mine() -> None:
        idents.append(threading.get_ident())
        store.update(ID, put(sandbox(), event("mine")))

    with ThreadPoolExecutor(9) as pool:
        leading = pool.submit(outcome_of, mine)
        assert inside.wait(30)
        others = [pool.submit(store.update, ID, count) for _ in range(8)]
        eventually(lambda: store._commits.waiting == 8, within=30, what="the others wait")
        interrupt(idents[0])
        assert isinstance(leading.result(30), Interrupted)
        go_on.set()
        seqs = [record.seq for record in (one.result(30) for one in others) if record is not None]
    assert sorted(seqs) == list(range(1, 9))
    record = JsonStore(tmp_path).get(ID)
    assert record is not None
    assert record.seq == 8
    assert [told.event_id for told in JsonStore(tmp_path).events()] == (["mine"] if when == "after" else [])


@pytest.mark.parametrize("others", [0, 4])
def test_interrupts_at_any_moment_lose_nothing_and_leave_nobody_waiting(
    tmp_path: Path, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 12: one thread that counts is interrupted again and again; what was told is there, and all go on.

    By signals: what Python can raise in other threads may hit a thread that is just being born instead."""
    store = JsonStore(tmp_path)
    store.update(ID, put(sandbox(seq=0)))
    finished, exposed = threading.Event(), threading.Event()
    begun = told = stopped = last = 0
    counts = [0] * others

    def work(me: int) -> None:
        while not finished.is_set():
            store.update(ID, count)
            counts[me] += 1

    def torment() -> None:
        chance = random.Random(7)  # noqa: S311 - for moments, not for secrets
        while not finished.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            time.sleep(
                chance.random() * 0.01 * (1 + stopped / (1 + 4 * told))
            )  # the moment of the interrupt, not a wait for anything

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if exposed.is_set():
            exposed.clear()
            raise Interrupted

    def dropped(what: sys.UnraisableHookArgs) -> None:
        """An interrupt in a finaliser interrupts nothing, and one follows it."""
        assert what.exc_type is Interrupted

    monkeypatch.setattr(sys, "unraisablehook", dropped)
    before = signal.signal(signal.SIGUSR1, on_signal)
    threads = [threading.Thread(target=work, args=(me,), daemon=True) for me in range(others)]
    threads.append(threading.Thread(target=torment, daemon=True))
    try:
        for thread in threads:
            thread.start()
        started = time.monotonic()
        # for two seconds, on a busy machine until enough was told and enough interrupted
        while time.monotonic() - started < (2 if stopped > 20 and told + sum(counts) > 20 else 60):
            try:
                exposed.set()
                begun += 1
                store.update(OTHER, put(sandbox(OTHER, seq=begun)))
                last = begun
                store.update(ID, count)
                told += 1
                exposed.clear()
            except Interrupted:
                stopped += 1
        finished.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    finally:
        finished.set()
        signal.signal(signal.SIGUSR1, before)
    assert stopped > 20
    assert told + sum(counts) > 20
    counted, mine = JsonStore(tmp_path).get(ID), JsonStore(tmp_path).get(OTHER)
    assert counted is not None
    assert mine is not None
    assert told + sum(counts) <= counted.seq <= begun + sum(counts)
    assert last <= mine.seq <= begun
    started = time.monotonic()
    assert store.update(ID, count) == JsonStore(tmp_path).get(ID)
    assert time.monotonic() - started < 10, "nothing is left locked"


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_who_waits_too_long_is_told_so_and_changes_nothing_later() -> None:
    register = Register(lock_seconds=0.1)
    found = outcome_of(partial(_nested, register))
    assert isinstance(found, Unavailable)
    assert "in use for more than 0.1 s" in found.message
    assert register.state == ()
    assert register.add("a") == ("a",)


def _nested(register: Register) -> State:
    """A change within a change: the mistake that would wait for itself."""
    return register.commits.change(lambda state: (state, register.add("inner")))


def test_a_lock_that_another_process_keeps_is_told_to_all_that_wait(tmp_path: Path) -> None:
    JsonStore(tmp_path).update(ID, put(sandbox()))
    mine = JsonStore(tmp_path, document=AtomicDocument(tmp_path / "sandboxes.json", lock_seconds=0.3))
    with AtomicDocument(tmp_path / "sandboxes.json").locked(), ThreadPoolExecutor(6) as pool:
        started = time.monotonic()
        found = list(pool.map(lambda _: outcome_of(partial(mine.update, ID, count)), range(6)))
        assert time.monotonic() - started < 10
    assert [type(one) for one in found] == [Unavailable] * 6
    assert mine.update(ID, count) == sandbox(seq=1)


def test_without_a_further_thread_everybody_writes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    register = Register()
    inside, go_on = threading.Event(), threading.Event()

    def middle() -> None:
        inside.set()
        assert go_on.wait(30)

    def no_more(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = [threading.Thread(target=register.add, args=(word,)) for word in "abc"]
    holder = threading.Thread(target=register.hold, args=(middle,))
    holder.start()
    assert inside.wait(30)
    start = threading.Thread.start
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda self: start(self) if self in threads else no_more(self))
        for thread in threads:
            thread.start()
        go_on.set()
        for thread in (*threads, holder):
            thread.join(30)
    assert sorted(register.state) == ["a", "b", "c"]
    assert len(register.written) == 3


def test_another_process_gets_its_turn_while_many_threads_write(tmp_path: Path) -> None:
    """Promise 12: a command is not shut out by a busy server."""
    store, other = JsonStore(tmp_path), JsonStore(tmp_path)  # two instances: only the file's lock is between them
    store.update(ID, put(sandbox(seq=0)))
    finished = threading.Event()

    def work(_: int) -> None:
        while not finished.is_set():
            store.update(ID, count)

    with ThreadPoolExecutor(16) as pool:
        working = [pool.submit(work, n) for n in range(16)]
        try:
            eventually(lambda: store._commits.waiting > 4, within=30, what="they are at it")
            took = []
            for n in range(20):
                started = time.monotonic()
                other.update(number(n), put(sandbox(number(n))))
                took.append(time.monotonic() - started)
        finally:
            finished.set()
        for one in working:
            one.result(30)
    assert max(took) < 5, took
    assert len(other.list()) == 21


def test_nothing_of_a_change_is_kept_once_it_is_told() -> None:
    """A server lives for months: neither answers nor errors wait for the garbage collector."""
    register = Register()
    gc.disable()
    try:
        answer = register.commits.change(lambda state: (state, Conflict("an answer")))
        seen = [weakref.ref(answer)]
        del answer

        def refused() -> None:
            try:
                register.add("-no")
            except Conflict as error:
                seen.append(weakref.ref(error))

        refused()
        in_company = threading.Thread(target=refused)
        with ThreadPoolExecutor(1) as pool, held(register, pool):
            in_company.start()
            register.gathered(1)
        in_company.join(30)
        assert [one() for one in seen] == [None] * 3
    finally:
        gc.enable()
