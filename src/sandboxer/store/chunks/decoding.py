"""Decode a stream's chunks ahead of whoever reads it, once for all who read the same at the same time.

A batch is what one worker decodes at a time. While there are several readers, the last batches are kept: forks of one
snapshot go through it side by side, and whoever is behind finds what those ahead have decoded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

from sandboxer.store.chunks.packs import PackReader

BATCH: Final = 16
"""Chunks in a batch: about 1 MiB."""
AHEAD: Final = 4
"""Batches that a reader has decoded ahead."""
KEPT_BYTES: Final = 160 << 20
"""What is kept for others of the last batches, as long as there are several readers."""
WORKERS: Final = 2

Decode = Callable[[PackReader, bytes], bytes]
"""One chunk by its name, proved. Raises StoreCorrupt."""


class _Key(NamedTuple):
    store: str
    names: tuple[bytes, ...]


class _SharedBatches:
    """The batches that the readers of this process have decoded last, and which are being decoded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: OrderedDict[_Key, bytes] = OrderedDict()
        self._bytes = 0
        self._coming: dict[_Key, threading.Event] = {}
        self._readers = 0

    def enter(self) -> None:
        """One more reader."""
        with self._lock:
            self._readers += 1

    def leave(self) -> None:
        """One reader less; the last one takes all away."""
        with self._lock:
            self._readers -= 1
            if not self._readers:
                self._done.clear()
                self._bytes = 0

    def get(self, key: _Key, decode: Callable[[], bytes]) -> bytes:
        """A batch, decoded by us unless somebody else has or does just now. What fails is nobody else's answer."""
        while True:
            with self._lock:
                found = self._done.get(key)
                if found is not None:
                    return found
                other = self._coming.get(key)
                if other is None:
                    mine = self._coming[key] = threading.Event()
                    break
            other.wait()
        try:
            data = decode()
            with self._lock:
                if self._readers > 1:
                    self._done[key] = data
                    self._bytes += len(data)
                while self._bytes > KEPT_BYTES:
                    self._bytes -= len(self._done.popitem(last=False)[1])
            return data
        finally:
            with self._lock:
                del self._coming[key]
            mine.set()


_shared: Final = _SharedBatches()


class Decoder:
    """Decodes for one reader; `close` ends its workers. `store` is what the names are of: others' are not shared."""

    def __init__(self, store: str, make: Callable[[], PackReader], decode: Decode) -> None:
        self._store, self._make, self._decode = store, make, decode
        self._local = threading.local()
        self._opened: list[PackReader] = []
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="sandboxer-chunks")
        _shared.enter()

    def stream(self, names: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks of a stream, joined to batches, in order."""
        waiting: deque[Future[bytes]] = deque()
        batches = _batches(names)
        while True:
            while len(waiting) < AHEAD and (batch := next(batches, None)) is not None:
                waiting.append(self._pool.submit(self._batch, batch))
            if not waiting:
                return
            yield waiting.popleft().result()

    def close(self) -> None:
        """End the workers, and close what they have opened."""
        self._pool.shutdown(cancel_futures=True)
        for reader in self._opened:
            reader.close()
        _shared.leave()

    def _batch(self, names: Sequence[bytes]) -> bytes:
        return _shared.get(_Key(self._store, tuple(names)), lambda: self._decoded(names))

    def _decoded(self, names: Sequence[bytes]) -> bytes:
        reader: PackReader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = self._make()
            self._opened.append(reader)
        return b"".join(self._decode(reader, name) for name in names)


def _batches(names: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for name in names:
        batch.append(name)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
