"""A faulty network on loopback: a TCP proxy whose behaviour is switched while connections are open."""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self, TypeVar

T = TypeVar("T")
CHUNK = 64 * 1024
_LINGER_NOT = struct.pack("ii", 1, 0)  # close() then sends a reset


class Mode(Enum):
    """What happens to bytes and to new connections; all modes but REFUSE apply to open connections as well."""

    PASS = "pass"  # forward all, also what was held back
    BLACKHOLE = "blackhole"  # accept and hold everything back, in both directions
    BLACKHOLE_AFTER = (
        "blackhole-after"  # forward `amount` bytes of each connection (both directions added up), then hold back
    )
    RESET = "reset"  # cut open connections, and new ones as soon as they are accepted, with a TCP reset
    REFUSE = "refuse"  # nobody listens; open connections go on
    DELAY = "delay"  # forward each chunk `amount` seconds late


@dataclass(eq=False)
class _Connection:
    forwarded: int
    writers: tuple[asyncio.StreamWriter, ...]


class FaultProxy:
    """Listens on `host`:`port` and forwards to the target, as the mode allows."""

    host = "127.0.0.1"

    def __init__(
        self, target_port: int, target_host: str = "127.0.0.1", *, mode: Mode = Mode.PASS, amount: float = 0
    ) -> None:
        self._target = (target_host, target_port)
        self.mode, self.amount = mode, amount
        self.accepted = 0
        self._connections = set[_Connection]()
        self._tasks = set[asyncio.Task[None]]()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        # bound from now on, so that the port stays ours while nobody listens on it
        self._socket = self._bind(0)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"faults:{self.port}", daemon=True)
        self._thread.start()
        self._call(self._switch(mode, amount))

    def set(self, mode: Mode, amount: float = 0) -> None:
        """Behave like this from now on; when it returns, the change is in force."""
        self._call(self._switch(mode, amount))

    @property
    def open_connections(self) -> int:
        """Connections that neither side nor the proxy has ended."""
        return len(self._connections)

    def close(self) -> None:
        """Cut everything and stop. Twice is once."""
        if self._loop.is_closed():
            return
        self._call(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _bind(self, port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, port))
        return listener

    async def _switch(self, mode: Mode, amount: float) -> None:
        self.mode, self.amount = mode, amount
        if mode is Mode.REFUSE:
            await self._stop_listening()
        elif self._server is None:
            self._server = await asyncio.start_server(self._serve, sock=self._socket, backlog=200)
        for connection in self._connections:
            connection.forwarded = 0
        if mode is Mode.RESET:
            self._reset_all()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _stop_listening(self) -> None:
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self._socket = self._bind(self.port)

    async def _finish(self) -> None:
        if self._server:
            self._server.close()
        self._reset_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _reset_all(self) -> None:
        for connection in self._connections:
            for writer in connection.writers:
                _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        connection = _Connection(0, (writer,))
        self._connections.add(connection)
        try:
            with suppress(OSError, asyncio.CancelledError):
                if self.mode is Mode.RESET:
                    _reset(writer)
                    return
                await self._join(connection, reader, writer)
        finally:
            self._connections.discard(connection)
            self._tasks.discard(task)
            for one in connection.writers:
                one.close()

    async def _join(self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, target = await asyncio.open_connection(*self._target)
        connection.writers = (writer, target)
        pumps = [
            asyncio.ensure_future(self._pump(connection, reader, target)),
            asyncio.ensure_future(self._pump(connection, there, writer)),
        ]
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            while data:
                allowed = await self._permit(connection, len(data))
                connection.forwarded += allowed
                writer.write(data[:allowed])
                await writer.drain()
                data = data[allowed:]
        await self._permit(connection, 1)  # in a black hole the end does not arrive either
        with suppress(OSError):
            writer.write_eof()

    async def _permit(self, connection: _Connection, wanted: int) -> int:
        """How many of these bytes may pass; waits until at least one may."""
        while True:
            if self.mode is Mode.BLACKHOLE:
                await self._changed.wait()
            elif self.mode is Mode.BLACKHOLE_AFTER:
                left = int(self.amount) - connection.forwarded
                if left > 0:
                    return min(left, wanted)
                await self._changed.wait()
            elif self.mode is Mode.DELAY:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), self.amount)
                    continue
                return wanted
            else:
                return wanted


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    with suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()
