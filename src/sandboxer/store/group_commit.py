"""Changes of one document by many threads, several to a write.

A write takes milliseconds, whatever is in it: the disk is flushed twice. Whoever comes while another thread writes
waits, and all who wait are decided one after the other, each seeing what those before it have changed, and made
durable by one write. Nobody is told anything before that write is through.

A thread that finds nobody at work carries its change out itself. Those who wait are served by a thread that does
nothing else, so an interrupt (Ctrl-C, a signal) comes to a thread that waits, never to one that writes for others.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from sandboxer.errors import SandboxerError, Unavailable

if TYPE_CHECKING:
    from sandboxer.store.document import AtomicDocument

S = TypeVar("S")
T = TypeVar("T")

LARGEST: Final = 64
"""How many changes one write carries at most: the first of them waits until the last is decided."""


class PendingChange(Generic[S]):
    """What one thread wants, and what becomes of it. `settled` is there for those who wait: alone, nobody needs it."""

    settled: threading.Event

    __slots__ = ("answer", "claimed", "decide", "error", "must_succeed", "settled")

    def __init__(self, decide: Callable[[S], tuple[S, Any]], *, must_succeed: bool) -> None:
        self.decide = decide
        self.must_succeed = must_succeed
        self.claimed = False
        self.answer: Any = None
        self.error: BaseException | None = None

    def outcome(self) -> Any:
        """The answer; raises what went wrong."""
        error, self.error = self.error, None  # its traceback will hold this change: no ring of the two
        if error is None:
            return self.answer
        try:
            raise error
        finally:
            del error


class GroupCommit(Generic[S]):
    """The changes of one document in this process. Other processes, and other instances, are kept out by its lock.

    `read` gives the present state, and `write` (the state before, the one after, whether the reserve may be used)
    makes another one durable, raising when it did not. Both are called under the document's lock."""

    def __init__(self, document: AtomicDocument, *, read: Callable[[], S], write: Callable[[S, S, bool], None]) -> None:
        self._document = document
        self._read = read
        self._write = write
        self._write_lock = threading.Lock()  # held by the one that decides and writes
        self._guard = threading.Lock()  # of the two below
        self._waiting: deque[PendingChange[S]] = deque()
        self._serving = False  # True whenever somebody waits

    def change(self, decide: Callable[[S], tuple[S, T]], *, must_succeed: bool = False) -> T:
        """Make what `decide` wants durable; its answer. `decide` is given the state, and gives the one after it (the
        same object for no change) and its answer; what it raises passes through and changes nothing.

        It is pure: it may run on another thread, and again after a failed write that others were part of. Raises what
        `read` and `write` raise, and Unavailable when others are at work for too long."""
        pending: PendingChange[S] = PendingChange(decide, must_succeed=must_succeed)
        # Not exact without the guard: who takes the wrong way only waits for a write that it could have been part of.
        busy = self._serving or self._write_lock.locked()
        if not (busy and self._wait_with_others(pending)):
            with (
                self._write_lock,
                self._document.locked(),
            ):  # by `with`: no interrupt comes between taking and keeping it
                self._carry_out([pending])
        answer: T = pending.outcome()
        return answer

    @property
    def waiting(self) -> int:
        """How many wait to be decided."""
        return len(self._waiting)

    # -- those who wait -------------------------------------------------------------------------------------------

    def _wait_with_others(self, pending: PendingChange[S]) -> bool:
        """Wait until a change is settled with those of others; False when nobody can be found to do it."""
        pending.settled = threading.Event()
        try:
            if not self._enqueued(pending):
                return False
            if not pending.settled.wait(self._document.lock_seconds) and self._withdrawn(pending):
                raise Unavailable(
                    f"{self._document.path} has been in use for more than {self._document.lock_seconds:g} s",
                    hint="try again in a moment",
                )
            pending.settled.wait()
        except BaseException:
            # Whoever is interrupted looks for what became of its change: by then it is durable, or never will be.
            if not self._withdrawn(pending):
                pending.settled.wait()
            raise
        return True

    def _enqueued(self, pending: PendingChange[S]) -> bool:
        with self._guard:
            self._waiting.append(pending)
            if not self._serving:
                try:
                    threading.Thread(target=self._serve, name="sandboxer-commits", daemon=True).start()
                except RuntimeError:  # as many threads as the system allows
                    self._waiting.remove(pending)
                    return False
                self._serving = True  # last: a second one does no harm
            return True

    def _withdrawn(self, pending: PendingChange[S]) -> bool:
        """Withdraw a change; False when it is too late for that."""
        with self._guard:
            if pending in self._waiting:
                self._waiting.remove(pending)
            return not pending.claimed

    # -- the one who serves them ----------------------------------------------------------------------------------

    def _serve(self) -> None:
        while self._anybody_waits():
            # Told without the locks: those who wait for them meanwhile, here or in other processes, have their chance.
            self._wake(self._served())

    def _anybody_waits(self) -> bool:
        with self._guard:
            self._serving = bool(self._waiting)
            return self._serving

    def _served(self) -> Sequence[PendingChange[S]]:
        changes: Sequence[PendingChange[S]] = ()
        try:
            with self._write_lock, self._document.locked():
                changes = self._claim(LARGEST)
                self._carry_out(changes)
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            changes = changes or self._claim(len(self._waiting))
            _fail(changes, error)
        return changes

    def _claim(self, most: int) -> Sequence[PendingChange[S]]:
        with self._guard:
            changes = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            for pending in changes:
                pending.claimed = True
        return changes

    def _wake(self, changes: Sequence[PendingChange[S]]) -> None:
        for pending in changes:
            pending.settled.set()

    # -- under the locks ------------------------------------------------------------------------------------------

    def _carry_out(self, changes: Sequence[PendingChange[S]]) -> None:
        """Decide all, and write once. When that fails, those that wanted a change fail, and the others, which may have
        been decided by what never came to be, are decided again: `must_succeed` among them by a write of their own."""
        refused: Exception | None = None
        while changes:
            before = self._read()
            after, changing = _decided(changes, before, refused)
            if not changing:
                return
            try:
                self._write(before, after, all(pending.must_succeed for pending in changing))
            except Exception as error:  # noqa: BLE001 - it goes to each of them
                failed = [pending for pending in changing if not pending.must_succeed] or changing
                if isinstance(error, SandboxerError) and error.outcome == "unknown":
                    failed = changes  # nobody can say on what state to decide again
                _fail(failed, error)
                changes = [pending for pending in changes if pending not in failed]
                refused = refused or error
            else:
                return


def _decided(
    changes: Sequence[PendingChange[S]], state: S, refused: Exception | None
) -> tuple[S, Sequence[PendingChange[S]]]:
    """The state after all changes, and those that changed it. After a `refused` write only what must succeed may."""
    changing = []
    for pending in changes:
        pending.error = None
        try:
            after, pending.answer = pending.decide(state)
        except BaseException as error:  # noqa: BLE001 - its own, and raised again by its own thread
            pending.error = error
            continue
        if after is state:
            continue
        if refused is not None and not pending.must_succeed:
            pending.error = _another(refused)
            continue
        state = after
        changing.append(pending)
    return state, changing


def _fail(changes: Sequence[PendingChange[S]], error: BaseException) -> None:
    for number, pending in enumerate(changes):
        pending.error = _another(error) if number else error


def _another(error: BaseException) -> BaseException:
    """The same error once more: callers write on theirs which sandbox it was."""
    try:
        one = copy.copy(error)
    except Exception:  # noqa: BLE001 - a class that cannot be copied is shared
        return error
    one.__cause__ = error.__cause__
    return one
