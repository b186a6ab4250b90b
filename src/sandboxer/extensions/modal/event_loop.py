"""Run the SDK's coroutines from our threads: one event loop in a thread, and a deadline round every call."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from sandboxer.errors import SandboxerError, Timeout
from sandboxer.extensions.modal import client
from sandboxer.extensions.modal.errors import translated
from sandboxer.timing import Deadline

T = TypeVar("T")

TICK: Final = 0.5
"""How often a wait looks whether its deadline has been cancelled, in seconds."""
GRACE: Final = 3.0
"""How long a cancelled call may take to undo what it had begun (the SDK takes back a GPU sandbox that it was waiting
for), in seconds."""


class LoopRunner:
    """An event loop that runs for as long as the process does. May be used from any number of threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, grace: float = GRACE) -> None:
        self.loop = loop
        self._grace = grace

    def run(self, work: Callable[[], Coroutine[Any, Any, T]], deadline: Deadline, doing: str) -> T:
        """The result of a coroutine, made and run on the loop. When the deadline passes or is cancelled, or this thread
        is interrupted, it is cancelled and given a moment to end; then Timeout is raised (or the interrupt)."""
        deadline.check(doing)
        ended = threading.Event()

        async def watched() -> T:
            try:
                return await work()
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(watched(), self.loop)
        try:
            while True:
                try:
                    return future.result(timeout=deadline.seconds(TICK))
                except concurrent.futures.TimeoutError:
                    if future.done():
                        raise
                    deadline.check(doing)
        except concurrent.futures.CancelledError:
            raise Timeout(f"{doing} was cancelled", hint="try again") from None
        except BaseException:
            if not future.done() and future.cancel():
                ended.wait(self._grace)
            raise


_lock = threading.Lock()
_bridge: LoopRunner | None = None


def bridge() -> LoopRunner:
    """Get the bridge of this process; raises NotConfigured without the SDK."""
    global _bridge
    with _lock:
        if _bridge is None:
            client.load()
            _bridge = LoopRunner(sdk_loop() or own_loop())
        return _bridge


def ask(work: Callable[[], Coroutine[Any, Any, T]], deadline: Deadline, doing: str) -> T:
    """Run coroutines of the SDK under a deadline; its failures as ours."""
    try:
        return bridge().run(work, deadline, doing)
    except SandboxerError:
        raise
    except Exception as error:
        known = translated(error, doing)
        if known is None:
            raise
        raise known from None


def own_loop() -> asyncio.AbstractEventLoop:
    """Start a new loop in a thread of ours."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="sandboxer-modal", daemon=True).start()
    return loop


def sdk_loop() -> asyncio.AbstractEventLoop | None:
    """Get the loop on which the SDK runs all of its coroutines, whoever calls them: on it they are plain calls, instead
    of a trip to another thread and back for each, and for each chunk of a stream (a fifth of the processor time of a
    create, exec and destroy). It has no documented name, so None when it is not where it is in 1.6."""
    try:
        from modal._utils.async_utils import synchronizer

        loop = synchronizer._get_loop(start=True)
    except (ImportError, AttributeError, TypeError):
        return None
    return loop if isinstance(loop, asyncio.AbstractEventLoop) and loop.is_running() else None
