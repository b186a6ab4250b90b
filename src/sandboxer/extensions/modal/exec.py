"""Run a command inside a sandbox: its streams, its end, and the end of everything it started."""

from __future__ import annotations

import asyncio
import io
import math
import queue
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Final

from sandboxer.errors import Denied, Invalid, SandboxerError, Timeout, Unavailable
from sandboxer.extensions.base import Exec
from sandboxer.extensions.modal import client, scripts
from sandboxer.extensions.modal.errors import translated
from sandboxer.extensions.modal.event_loop import TICK, LoopRunner
from sandboxer.extensions.provider.command_bytes import carried, check
from sandboxer.extensions.shell import processes
from sandboxer.hosts.base import Result, Sink, Streams
from sandboxer.hosts.process.capture import capture_capped
from sandboxer.hosts.process.stdin import StdinFeeder
from sandboxer.timing import Deadline

CHUNK: Final = 256 * 1024
"""Bytes of input in one message; the SDK's own streams use the same."""
AHEAD: Final = 64
"""How many chunks of output may wait for whoever reads them."""
MOST_ARGUMENTS: Final = 60 * 1024
"""Bytes of all arguments together; the SDK refuses more than 64 KiB."""
DRAIN: Final = 0.5
"""How long the output of a command that has ended may be silent before it counts as complete, in seconds: what it left
running may hold it open for ever."""
KILL_SECONDS: Final = 8.0
BACKSTOP: Final = 15
"""So many seconds after our deadline Modal kills the command, should we not be there to do it."""

NO_PID: Final = "0"
"""What `processes.KILL_TREE` refuses to kill."""

CommandEvent = tuple[str, Any]


class RunningCommand:
    """One command that runs. The coroutines run on the bridge's loop; what it writes is handed to the thread that
    asked, so that a slow reader holds up nobody else."""

    def __init__(self, bridge: LoopRunner, find: Callable[[], Any], request: Exec, streams: Streams) -> None:
        self._bridge = bridge
        self._find = find
        self._request = request
        self._streams = streams
        self._source = _some(streams.stdin)
        self._events: queue.SimpleQueue[CommandEvent] = queue.SimpleQueue()
        self._ahead = asyncio.Semaphore(AHEAD)
        self._heard = self._taken = 0
        self._sandbox: Any = None
        self._process: Any = None
        self._first = b""
        self._words: list[str] = []
        self._env: dict[str, str] = {}
        self._pid: str | None = None
        self._input: _Input | None = None

    def run(self, deadline: Deadline) -> int:
        """Run to the end; the command's exit code. At the deadline, or when this thread is interrupted, the command and
        what it started are killed."""
        deadline.check("starting a command")
        check(self._request.argv, env=self._request.env, cwd=self._request.cwd)
        alone = self._source is None and not self._request.tty
        script = scripts.RUN_ALONE if alone else scripts.RUN
        words = ["sh", "-c", script, "sh", self._request.cwd or "", *processes.command(self._request.argv)]
        self._words, self._env = carried(words, self._request.env)
        if sum(len(word.encode()) for word in self._words[4:]) > MOST_ARGUMENTS:
            raise Invalid(
                f"the arguments have more than {MOST_ARGUMENTS} bytes",
                hint="pass them by stdin, or copy a file with `sandboxer cp`",
            )
        future = asyncio.run_coroutine_threadsafe(self._work(deadline), self._bridge.loop)
        try:
            return self._attend(deadline)
        except BaseException:
            future.cancel()
            if not self._ended:
                self._kill()
            raise
        finally:
            if self._input is not None:
                self._input.stop()

    _ended = False

    def _attend(self, deadline: Deadline) -> int:
        while True:
            try:
                kind, value = self._events.get(timeout=deadline.seconds(TICK))
            except queue.Empty:
                deadline.check("running a command")
                continue
            if kind == "stdout":
                self._streams.stdout(value)
            elif kind == "stderr":
                self._streams.stderr(value)
            elif kind == "code":
                self._ended = True
                if self._input is not None and self._input.error is not None:
                    raise self._input.error
                return int(value)
            else:
                self._ended = kind == "refused"
                raise value
            self._taken += 1
            if self._taken == AHEAD // 2:  # waking the loop for each would cost more than the chunk
                self._taken = 0
                self._bridge.loop.call_soon_threadsafe(self._room)

    async def _work(self, deadline: Deadline) -> None:
        try:
            code = await self._run(deadline)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - it belongs to the thread that waits
            known = translated(error, "running a command")
            started = self._pid is not None
            self._events.put(("lost" if started else "refused", known or error))
        else:
            self._events.put(("code", code))

    async def _run(self, deadline: Deadline) -> int:
        self._sandbox = await self._find()
        left = deadline.left()
        process = self._process = await self._sandbox.exec.aio(
            *self._words,
            text=False,
            timeout=None if left is None else math.ceil(left) + BACKSTOP,
            env=self._env,
            pty=self._request.tty,
        )
        self._input = _Input(self._source, process, self._bridge, tty=self._request.tty, failed=self._input_failed)
        pumps = [asyncio.ensure_future(self._stdout(process.stdout))]
        if not self._request.tty:
            pumps.append(asyncio.ensure_future(self._pump("stderr", process.stderr)))
        fed = self._source is not None or self._request.tty
        others = [asyncio.ensure_future(self._input.begin())] if fed else []
        try:
            code: int = await process.wait.aio()
            await self._drained(pumps)
            if code < 0:  # the SDK's word for a time that is over
                raise Timeout("the command did not end in time, by Modal's clock", hint="give it longer with --timeout")
            return code
        finally:
            for task in (*pumps, *others):
                task.cancel()

    async def _stdout(self, stream: Any) -> None:
        """The first line is the process id that `scripts.RUN` tells; the rest is the command's own."""
        async for chunk in stream:
            if self._pid is not None:
                await self._put("stdout", chunk)
            elif rest := self._take_pid(chunk):
                await self._put("stdout", rest)
        if self._pid is None and self._first:
            await self._put("stdout", self._first)

    def _take_pid(self, chunk: bytes) -> bytes:
        """Take the process id off the beginning; what is left. Where there is none, no shell of ours has run, and all
        of it is what somebody wants to read."""
        self._first += chunk
        line, newline, rest = self._first.partition(b"\n")
        if not newline:
            return b""
        told = line.strip()
        self._pid, rest = (told.decode(), rest) if told.isdigit() else (NO_PID, self._first)
        return rest

    async def _pump(self, kind: str, stream: Any) -> None:
        async for chunk in stream:
            await self._put(kind, chunk)

    def _input_failed(self, error: SandboxerError) -> None:
        self._events.put(("lost", error))

    def _room(self) -> None:
        for _ in range(AHEAD // 2):
            self._ahead.release()

    async def _put(self, kind: str, chunk: bytes) -> None:
        await self._ahead.acquire()
        self._heard += 1
        self._events.put((kind, chunk))

    async def _drained(self, pumps: Sequence[asyncio.Future[None]]) -> None:
        while True:
            heard = self._heard
            _, pending = await asyncio.wait(pumps, timeout=DRAIN)
            if not pending or (heard == self._heard and not self._ahead.locked()):
                break
        for pump in pumps:
            if pump.done():
                pump.result()

    def _kill(self) -> None:
        """End the command's processes. What cannot be reached is left to Modal's own time-out."""
        if self._process is None:
            return

        async def kill() -> None:
            if self._pid is None:  # interrupted before it could tell
                async for chunk in self._process.stdout:
                    self._take_pid(chunk)
                    if self._pid is not None:
                        break
            words = ("sh", "-c", processes.KILL_TREE, "sh", self._pid or NO_PID)
            killer = await self._sandbox.exec.aio(*words, text=False, timeout=int(KILL_SECONDS))
            await killer.wait.aio()

        try:
            self._bridge.run(kill, Deadline(KILL_SECONDS), "killing a command")
        except Exception as error:
            if translated(error, "killing a command") is None:
                raise


def _some(source: BinaryIO | None) -> BinaryIO | None:
    """An input that is known to be empty is none: that saves a message."""
    if isinstance(source, io.BytesIO) and source.tell() == source.getbuffer().nbytes:
        return None
    return source


class _Input:
    """Passes an input on. An input that is known is sent at once; others are read in a thread, since they may wait."""

    def __init__(
        self,
        source: BinaryIO | None,
        process: Any,
        bridge: LoopRunner,
        *,
        tty: bool,
        failed: Callable[[SandboxerError], None],
    ) -> None:
        self._source = io.BytesIO() if source is None and tty else source
        self._process = process
        self._bridge = bridge
        self._failed = failed
        self._feeder: StdinFeeder | None = None

    async def begin(self) -> None:
        """Start passing it on."""
        if self._source is None:
            return
        if isinstance(self._source, io.BytesIO):
            while chunk := self._source.read(CHUNK):
                if not await self.send(chunk, end=False):
                    return
            await self.send(b"", end=True)
            return
        self._feeder = StdinFeeder(b"", self._source, _Outlet(self, self._bridge), chunk=CHUNK)
        self._feeder.start()

    def stop(self) -> None:
        """Nobody needs it any more."""
        if self._feeder is not None:
            self._feeder.stop()

    @property
    def error(self) -> BaseException | None:
        """What went wrong with reading it."""
        return None if self._feeder is None else self._feeder.error

    async def send(self, data: bytes, *, end: bool) -> bool:
        """Write a chunk; False when the command takes no more."""
        stdin = self._process.stdin
        try:
            if data:
                stdin.write(data)
            if end:
                stdin.write_eof()
            await stdin.drain.aio()
        except ValueError:
            return False  # the SDK's word for an input that is closed
        except Exception as error:
            known = translated(error, "writing to its input")
            if known is None:
                raise
            if isinstance(known, Denied | Unavailable) or isinstance(error, client.load().exception.UnimplementedError):
                self._failed(known)  # the command lives, and would wait for its input for ever
            return False  # any other says that the command has ended, or reads no more
        return True


class _Outlet:
    """A command's input, for the thread that reads what it is given."""

    def __init__(self, target: _Input, bridge: LoopRunner) -> None:
        self._target, self._bridge = target, bridge

    def write(self, data: bytes, wake: int) -> None:
        """See `hosts.process.stdin.StdinWriter`."""
        self._send(data, end=False)

    def end(self) -> None:
        """Tell the command that there is no more."""
        self._send(b"", end=True)

    def close(self) -> None:
        """Nothing is held."""

    def _send(self, data: bytes, *, end: bool) -> None:
        future = asyncio.run_coroutine_threadsafe(self._target.send(data, end=end), self._bridge.loop)
        if not future.result():
            raise BrokenPipeError


def capture(
    bridge: LoopRunner,
    find: Callable[[], Any],
    argv: Sequence[str],
    deadline: Deadline,
    *,
    stdin: BinaryIO | None = None,
    stdout: Sink | None = None,
    stderr: Sink | None = None,
) -> Result:
    """Run one of our own small scripts inside; see `capture_capped`."""
    return capture_capped(
        lambda streams: RunningCommand(bridge, find, Exec(argv=tuple(argv)), streams).run(deadline),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
    )
