"""One look-up for all that ask for the same thing at the same time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class AsyncCache(Generic[T]):
    """What was looked up, by key; the `most` used last are kept. Failures are not. Only used on one event loop.

    A look-up goes on when one of those who wait for it gives up, and is cancelled when the last one does."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._running: dict[Hashable, asyncio.Task[T]] = {}
        self._waiting: dict[Hashable, int] = {}

    async def get(self, key: Hashable, look: Callable[[], Awaitable[T]]) -> T:
        """What is kept for a key, else what `look` finds."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.ensure_future(_awaited(look))
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            found = await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._waiting[key] == 1 and not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task
            raise
        finally:
            self._waiting[key] -= 1
            if task.done() or not self._waiting[key]:
                self._running.pop(key, None)
            if not self._waiting[key]:
                del self._waiting[key]
        self.keep(key, found)
        return found

    def keep(self, key: Hashable, value: T) -> None:
        """Keep what is known already."""
        self._kept[key] = value
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def forget(self, key: Hashable) -> None:
        """Look it up again next time."""
        self._kept.pop(key, None)


async def _awaited(look: Callable[[], Awaitable[Any]]) -> Any:
    return await look()
