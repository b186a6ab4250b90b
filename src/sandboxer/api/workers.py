"""Run calls that wait in pools of threads, with a bounded queue before them.

One pool for each kind of work, and in each a share for every caller: none starves another.

The threads are daemons: a process that is told to end does not wait for a sandbox that takes minutes to come up. What
is cut off then is settled by `reconcile`, like any other crash.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sandboxer.errors import OverQuota, Unavailable
from sandboxer.timing import Deadline

T = TypeVar("T")
Job = tuple[Future[Any], Callable[[], Any]]
SHARE_SECONDS = 2
"""When to try again for whoever has its share."""


class Slot:
    """The right to give one job to a pool. Taken before the first effect, so that what was begun is never refused."""

    def __init__(self, pool: WorkerPool, caller: str) -> None:
        self._pool: WorkerPool | None = pool
        self._caller = caller

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Hand the work over; the slot is used up."""
        pool, self._pool = self._pool, None
        if pool is None:
            raise RuntimeError("this slot was used before")
        return pool._start(work, self._caller)

    def close(self) -> None:
        """Give the slot back, if it was not used."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool._leave(self._caller)


class WorkerPool:
    """At most `threads` jobs at once, and `waiting` more in the queue.

    Of one caller at most `each` run at once and `share` are there at all; callers that wait are served in turn, one job
    each. Who names no caller has no share of its own to keep to."""

    def __init__(
        self, name: str, *, threads: int, waiting: int, each: int | None = None, share: int | None = None
    ) -> None:
        self._name = name
        self._threads = threads
        self._room = threads + waiting
        self._each = threads if each is None else each
        self._share = self._room if share is None else share
        self._jobs: dict[str, deque[Job]] = {}  # by caller; the first is served next
        self._running: Counter[str] = Counter()
        self._by_caller: Counter[str] = Counter()  # slots taken, as `_present`
        self._changed = threading.Condition()
        self._present = 0  # slots taken: jobs that wait or run, and those that are about to be given
        self._started = 0
        self._closed = False

    def reserve(self, caller: str = "") -> Slot:
        """Room for one job; raises Unavailable (retryable) when the queue is full, OverQuota when the caller has its
        share."""
        with self._changed:
            if self._closed:
                raise Unavailable("the server is stopping", hint="try again in a moment")
            if caller and self._by_caller[caller] >= self._share:
                raise OverQuota(
                    f"your share is taken: {self._by_caller[caller]} of your {self._name} run or wait",
                    retry_after=SHARE_SECONDS,
                )
            if self._present >= self._room:
                raise Unavailable(
                    f"the server is busy: {self._present} {self._name} wait", hint="try again in a moment"
                )
            self._present += 1
            self._by_caller[caller] += 1
        return Slot(self, caller)

    def submit(self, work: Callable[[], T], caller: str = "") -> Future[T]:
        """Give a job; raises Unavailable when the queue is full, OverQuota when the caller has its share."""
        return self.reserve(caller).submit(work)

    async def run(self, work: Callable[[], T], caller: str = "") -> T:
        """Give a job and wait for it without holding a thread."""
        return await asyncio.wrap_future(self.submit(work, caller))

    def of(self, caller: str) -> CallerShare:
        """The pool as one caller has it."""
        return CallerShare(self, caller)

    def close(self, deadline: Deadline) -> int:
        """Take no more jobs; wait for those that run until the deadline. How many did not end."""
        with self._changed:
            self._closed = True
        while not deadline.passed:
            with self._changed:
                if not self._present:
                    return 0
            time.sleep(0.02)
        return self._present

    def _start(self, work: Callable[[], T], caller: str) -> Future[T]:
        future: Future[T] = Future()
        with self._changed:
            fresh = self._started < min(self._threads, self._present)
            if fresh:
                self._started += 1
                number = self._started
            self._jobs.setdefault(caller, deque()).append((future, work))
            self._changed.notify()
        if fresh:
            threading.Thread(target=self._serve, name=f"{self._name}-{number}", daemon=True).start()
        return future

    def _leave(self, caller: str) -> None:
        with self._changed:
            self._present -= 1
            self._by_caller[caller] -= 1
            if not self._by_caller[caller]:
                del self._by_caller[caller]

    def _serve(self) -> None:
        while True:
            with self._changed:
                while (caller := self._next()) is None:
                    self._changed.wait()
                future, work = self._taken(caller)
            self._do(future, work, caller)
            del future, work  # an idle thread must not keep the last answer alive

    def _next(self) -> str | None:
        """The caller whose turn it is; None while nobody may have one more at work."""
        return next((caller for caller in self._jobs if not caller or self._running[caller] < self._each), None)

    def _taken(self, caller: str) -> Job:
        """The caller's next job; then it is the others' turn."""
        jobs = self._jobs.pop(caller)
        job = jobs.popleft()
        if jobs:
            self._jobs[caller] = jobs
        self._running[caller] += 1
        return job

    def _ended(self, caller: str) -> None:
        with self._changed:
            self._running[caller] -= 1
            if not self._running[caller]:
                del self._running[caller]
            self._changed.notify()
        self._leave(caller)

    def _do(self, future: Future[Any], work: Callable[[], Any], caller: str) -> None:
        if not future.set_running_or_notify_cancel():
            self._ended(caller)
            return
        try:
            answer = work()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the answer
            self._ended(caller)
            future.set_exception(error)
        else:
            self._ended(caller)
            future.set_result(answer)


class CallerShare:
    """What one caller has of a pool: the same ways in, without a way round the share."""

    def __init__(self, pool: WorkerPool, caller: str) -> None:
        self._pool = pool
        self._caller = caller

    def reserve(self) -> Slot:
        """As the pool's."""
        return self._pool.reserve(self._caller)

    async def run(self, work: Callable[[], T]) -> T:
        """As the pool's."""
        return await self._pool.run(work, self._caller)
