"""Threads for calls that wait, with a bounded queue before them. One crew a kind of work: none starves another.

The threads are daemons: a process that is told to end does not wait for a sandbox that takes minutes to come up. What
is cut off then is settled by `reconcile`, like any other crash.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sandboxer.errors import Unavailable
from sandboxer.timing import Deadline

T = TypeVar("T")
Job = tuple[Future[Any], Callable[[], Any]]


class Slot:
    """The right to give one job to a crew. Taken before the first effect, so that what was begun is never refused."""

    def __init__(self, crew: Crew) -> None:
        self._crew: Crew | None = crew

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Hand the work over; the slot is used up."""
        crew, self._crew = self._crew, None
        if crew is None:
            raise RuntimeError("this slot was used before")
        return crew._start(work)

    def close(self) -> None:
        """Give the slot back, if it was not used."""
        crew, self._crew = self._crew, None
        if crew is not None:
            crew._leave()


class Crew:
    """At most `threads` jobs at once, and `waiting` more in the queue."""

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        self._name = name
        self._threads = threads
        self._room = threads + waiting
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._present = 0  # slots taken: jobs that wait or run, and those that are about to be given
        self._started = 0
        self._closed = False

    def reserve(self) -> Slot:
        """Room for one job; raises Unavailable (retryable) when the queue is full."""
        with self._lock:
            if self._closed:
                raise Unavailable("the server is stopping", hint="try again in a moment")
            if self._present >= self._room:
                raise Unavailable(
                    f"the server is busy: {self._present} {self._name} wait", hint="try again in a moment"
                )
            self._present += 1
        return Slot(self)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Give a job; raises Unavailable when the queue is full."""
        return self.reserve().submit(work)

    async def run(self, work: Callable[[], T]) -> T:
        """Give a job and wait for it without holding a thread."""
        return await asyncio.wrap_future(self.submit(work))

    def close(self, deadline: Deadline) -> int:
        """Take no more jobs; wait for those that run until the deadline. How many did not end."""
        with self._lock:
            self._closed = True
        while not deadline.passed:
            with self._lock:
                if not self._present:
                    return 0
            time.sleep(0.02)
        return self._present

    def _start(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            fresh = self._started < min(self._threads, self._present)
            if fresh:
                self._started += 1
                number = self._started
        self._jobs.put((future, work))
        if fresh:
            threading.Thread(target=self._serve, name=f"{self._name}-{number}", daemon=True).start()
        return future

    def _leave(self) -> None:
        with self._lock:
            self._present -= 1

    def _serve(self) -> None:
        while True:
            future, work = self._jobs.get()
            self._do(future, work)
            del future, work  # an idle thread must not keep the last answer alive

    def _do(self, future: Future[Any], work: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            self._leave()
            return
        try:
            answer = work()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the answer
            self._leave()
            future.set_exception(error)
        else:
            self._leave()
            future.set_result(answer)
