"""Read the log of a sandbox's own program."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from typing import Any, Final

from sandboxer.errors import BackendError
from sandboxer.extensions.modal.errors import translated
from sandboxer.extensions.modal.event_loop import TICK, bridge
from sandboxer.hosts.base import Streams
from sandboxer.timing import Deadline

ALL: Final = 10_000
"""So many of the latest entries are "everything": Modal gives no more than 20,000 at once."""
"""Chunks are handed over in a queue: a slow reader holds up nobody else."""


def show(find: Callable[[], Any], streams: Streams, deadline: Deadline, *, follow: bool, tail: int | None) -> None:
    """Write the latest entries; with `follow`, go on until the sandbox ends or this thread is interrupted."""
    entries: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    async def latest() -> None:
        sandbox = await find()
        if tail == 0:
            return
        async for entry in sandbox.logs.tail.aio(min(tail or ALL, ALL)):
            entries.put((entry.source, entry.message.encode()))

    async def stream(sandbox: Any, name: str) -> None:
        async for text in getattr(sandbox, name):
            entries.put((name, text.encode()))

    async def work() -> None:
        try:
            if follow:
                sandbox = await find()
                await asyncio.gather(stream(sandbox, "stdout"), stream(sandbox, "stderr"))
            else:
                await latest()
        except UnicodeDecodeError:
            entries.put(("error", BackendError("the log is not text", hint="see it at modal.com")))
        except Exception as error:  # noqa: BLE001 - it belongs to the thread that waits
            entries.put(("error", translated(error, "reading the logs") or error))
        else:
            entries.put(("end", None))

    future = asyncio.run_coroutine_threadsafe(work(), bridge().loop)
    try:
        while True:
            try:
                kind, value = entries.get(timeout=deadline.seconds(TICK))
            except queue.Empty:
                deadline.check("reading the logs")
                continue
            if kind == "end":
                return
            if kind == "error":
                raise value
            (streams.stderr if kind == "stderr" else streams.stdout)(value)
    finally:
        future.cancel()
