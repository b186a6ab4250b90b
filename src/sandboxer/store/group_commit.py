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

    __slots__ = ("answer", "decide", "error", "must_succeed", "settled", "taken")

    def __init__(self, decide: Callable[[S], tuple[S, Any]], *, must_succeed: bool) -> None:
        self.decide = decide
        self.must_succeed = must_succeed
        self.taken = False
        self.answer: Any = None
        self.error: BaseException | None = None

    def outcome(self) -> Any:
        """The answer; raises what went wrong."""
        error, self.error = self.error, None  # its traceback will hold this wish: no ring of the two
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
        self._turn = threading.Lock()  # held by the one that decides and writes
        self._guard = threading.Lock()  # of the two below
        self._waiting: deque[PendingChange[S]] = deque()
        self._serving = False  # True whenever somebody waits

    def change(self, decide: Callable[[S], tuple[S, T]], *, must_succeed: bool = False) -> T:
        """Make what `decide` wants durable; its answer. `decide` is given the state, and gives the one after it (the
        same object for no change) and its answer; what it raises passes through and changes nothing.

        It is pure: it may run on another thread, and again after a failed write that others were part of. Raises what
        `read` and `write` raise, and Unavailable when others are at work for too long."""
        wish: PendingChange[S] = PendingChange(decide, must_succeed=must_succeed)
        # Not exact without the guard: who takes the wrong way only waits for a write that it could have been part of.
        busy = self._serving or self._turn.locked()
        if not (busy and self._in_company(wish)):
            with self._turn, self._document.locked():  # by `with`: no interrupt comes between taking and keeping it
                self._carry_out([wish])
        answer: T = wish.outcome()
        return answer

    @property
    def waiting(self) -> int:
        """How many wait to be decided."""
        return len(self._waiting)

    # -- those who wait -------------------------------------------------------------------------------------------

    def _in_company(self, wish: PendingChange[S]) -> bool:
        """Wait until the wish is settled with those of others; False when nobody can be found to do it."""
        wish.settled = threading.Event()
        try:
            if not self._enqueued(wish):
                return False
            if not wish.settled.wait(self._document.lock_seconds) and self._withdrawn(wish):
                raise Unavailable(
                    f"{self._document.path} has been in use for more than {self._document.lock_seconds:g} s",
                    hint="try again in a moment",
                )
            wish.settled.wait()
        except BaseException:
            # Whoever is interrupted looks for what became of its change: by then it is durable, or never will be.
            if not self._withdrawn(wish):
                wish.settled.wait()
            raise
        return True

    def _enqueued(self, wish: PendingChange[S]) -> bool:
        with self._guard:
            self._waiting.append(wish)
            if not self._serving:
                try:
                    threading.Thread(target=self._serve, name="sandboxer-commits", daemon=True).start()
                except RuntimeError:  # as many threads as the system allows
                    self._waiting.remove(wish)
                    return False
                self._serving = True  # last: a second one does no harm
            return True

    def _withdrawn(self, wish: PendingChange[S]) -> bool:
        """Take a wish back; False when it is too late for that."""
        with self._guard:
            if wish in self._waiting:
                self._waiting.remove(wish)
            return not wish.taken

    # -- the one who serves them ----------------------------------------------------------------------------------

    def _serve(self) -> None:
        while self._anybody_waits():
            # Told without the locks: those who wait for them meanwhile, here or in other processes, have their chance.
            self._tell(self._served())

    def _anybody_waits(self) -> bool:
        with self._guard:
            self._serving = bool(self._waiting)
            return self._serving

    def _served(self) -> Sequence[PendingChange[S]]:
        wishes: Sequence[PendingChange[S]] = ()
        try:
            with self._turn, self._document.locked():
                wishes = self._taken(LARGEST)
                self._carry_out(wishes)
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            wishes = wishes or self._taken(len(self._waiting))
            _fail(wishes, error)
        return wishes

    def _taken(self, most: int) -> Sequence[PendingChange[S]]:
        with self._guard:
            wishes = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            for wish in wishes:
                wish.taken = True
        return wishes

    def _tell(self, wishes: Sequence[PendingChange[S]]) -> None:
        for wish in wishes:
            wish.settled.set()

    # -- under the locks ------------------------------------------------------------------------------------------

    def _carry_out(self, wishes: Sequence[PendingChange[S]]) -> None:
        """Decide all, and write once. When that fails, those that wanted a change fail, and the others, which may have
        been decided by what never came to be, are decided again: `must_succeed` among them by a write of their own."""
        refusal: Exception | None = None
        while wishes:
            before = self._read()
            after, changing = _decided(wishes, before, refusal)
            if not changing:
                return
            try:
                self._write(before, after, all(wish.must_succeed for wish in changing))
            except Exception as error:  # noqa: BLE001 - it goes to each of them
                failed = [wish for wish in changing if not wish.must_succeed] or changing
                if isinstance(error, SandboxerError) and error.outcome == "unknown":
                    failed = wishes  # nobody can say on what state to decide again
                _fail(failed, error)
                wishes = [wish for wish in wishes if wish not in failed]
                refusal = refusal or error
            else:
                return


def _decided(
    wishes: Sequence[PendingChange[S]], state: S, refusal: Exception | None
) -> tuple[S, Sequence[PendingChange[S]]]:
    """The state after all wishes, and those that changed it. With a `refusal` only what must succeed may."""
    changing = []
    for wish in wishes:
        wish.error = None
        try:
            after, wish.answer = wish.decide(state)
        except BaseException as error:  # noqa: BLE001 - its own, and raised again by its own thread
            wish.error = error
            continue
        if after is state:
            continue
        if refusal is not None and not wish.must_succeed:
            wish.error = _another(refusal)
            continue
        state = after
        changing.append(wish)
    return state, changing


def _fail(wishes: Sequence[PendingChange[S]], error: BaseException) -> None:
    for number, wish in enumerate(wishes):
        wish.error = _another(error) if number else error


def _another(error: BaseException) -> BaseException:
    """The same error once more: callers write on theirs which sandbox it was."""
    try:
        one = copy.copy(error)
    except Exception:  # noqa: BLE001 - a class that cannot be copied is shared
        return error
    one.__cause__ = error.__cause__
    return one
