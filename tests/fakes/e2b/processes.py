"""Processes of a fake sandbox as envd keeps them: read by one thread, listened to by any number of streams."""

from __future__ import annotations

import base64
import os
import queue
import select
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from tests.fakes.sandbox_fs import Process, SandboxFS

_CHUNK: Final = 32 * 1024
_NAMES: Final = {
    1: "hangup", 2: "interrupt", 3: "quit", 4: "illegal instruction", 5: "trace/breakpoint trap", 6: "aborted",
    7: "bus error", 8: "floating point exception", 9: "killed", 10: "user defined signal 1", 11: "segmentation fault",
    12: "user defined signal 2", 13: "broken pipe", 14: "alarm clock", 15: "terminated",
}  # fmt: skip
_TELLS_PID: Final = 'printf "%s\\n" "$$"; exec "$@"'
"""Says its number inside the sandbox, then becomes the program, as envd's own wrapper does (with `nice`)."""
_TERMINAL: Final = 'exec script -qefc "stty cols $1 rows $2; exec $3" /dev/null'

Event = dict[str, Any]


class RunningProcess:
    """One process. `pid` is its number inside. `done` is called with it once it has ended."""

    def __init__(
        self,
        box: SandboxFS,
        words: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | None,
        uid: int | None,
        stdin: bool,
        size: tuple[int, int] | None,
        tag: str | None,
        done: Callable[[RunningProcess], None],
        wrote: Callable[[str, bytes], None],
    ) -> None:
        self.config = {"cmd": words[0], "args": list(words[1:]), "envs": dict(env), **({"cwd": cwd} if cwd else {})}
        self.tag = tag
        self.terminal = size is not None
        self._done, self._wrote = done, wrote
        if size is not None:
            words = ["/bin/sh", "-c", _TERMINAL, "sh", str(size[0]), str(size[1]), shlex.join(words)]
        self._box = box
        self._process = box.start(
            ["/bin/sh", "-c", _TELLS_PID, "sh", *words],
            env=env,
            cwd=cwd,
            uid=uid,
            stdin=stdin or self.terminal,
            merged=self.terminal,
        )
        self.pid = int(_line(self._process) or 0)
        self._lock = threading.Lock()
        self._listeners: list[queue.SimpleQueue[Event]] = []
        self._end: Event | None = None
        self._writing = threading.Lock()

    def begin(self) -> None:
        """Read from now on."""
        threading.Thread(target=self._pump, name=f"fake-process-{self.pid}", daemon=True).start()

    def listen(self) -> queue.SimpleQueue[Event]:
        """Events from now on; the last is the end."""
        heard: queue.SimpleQueue[Event] = queue.SimpleQueue()
        with self._lock:
            if self._end is not None:
                heard.put(self._end)
            else:
                self._listeners.append(heard)
        return heard

    def leave(self, heard: queue.SimpleQueue[Event]) -> None:
        """Nobody listens there any more."""
        with self._lock, suppress(ValueError):
            self._listeners.remove(heard)

    def write(self, data: bytes) -> None:
        """To its input. Raises OSError when it takes no more."""
        with self._writing:
            pipe = self._process.stdin
            if pipe is None or pipe.closed:
                raise BrokenPipeError(32, "stdin not enabled or closed")
            left = memoryview(data)
            while left:
                left = left[os.write(pipe.fileno(), left) :]

    def close_input(self) -> None:
        """Its input ends."""
        with self._writing:
            if self._process.stdin is not None:
                self._process.stdin.close()

    def signal(self, number: int) -> None:
        """To this process alone, as envd does; what it has started goes on."""
        self._box.run(["/bin/sh", "-c", 'kill -"$1" "$2"', "sh", str(number), str(self.pid)], timeout=5)

    def _pump(self) -> None:
        process = self._process
        pipes = {process.stdout.fileno(): "pty" if self.terminal else "stdout"}
        if process.stderr is not None:
            pipes[process.stderr.fileno()] = "stderr"
        try:
            ended = os.pidfd_open(process.pid)
        except ProcessLookupError:
            ended = -1
        poller = select.poll()
        for descriptor in (*pipes, ended):
            if descriptor >= 0:
                poller.register(descriptor, select.POLLIN)
        over = ended < 0
        try:
            # when the process has ended, what is in the pipes is taken; who still holds them open is not waited for
            while pipes and (ready := poller.poll(0 if over else None)):
                for descriptor, _ in ready:
                    if descriptor == ended:
                        over = True
                        poller.unregister(ended)
                        continue
                    data = os.read(descriptor, _CHUNK)
                    if not data:
                        poller.unregister(descriptor)
                        del pipes[descriptor]
                        continue
                    self._wrote(pipes[descriptor], data)
                    self._tell({"data": {pipes[descriptor]: base64.b64encode(data).decode()}})
            code = process.wait()
        finally:
            if ended >= 0:
                os.close(ended)
        self._tell({"end": _ended(process, code)}, last=True)
        self._done(self)
        process.close()

    def _tell(self, event: Event, *, last: bool = False) -> None:
        with self._lock:
            if last:
                self._end = event
            for listener in self._listeners:
                listener.put(event)


def _ended(process: Process, code: int) -> Event:
    """As Go tells it, in the JSON of protocol buffers: zeros are left out."""
    number = process.killed_by
    if number is not None:
        words = f"signal: {_NAMES.get(number, f'signal {number}')}"
        return {"exitCode": -1, "status": words, "error": words}
    told: Event = {"exited": True, "status": f"exit status {code}"}
    return {**told, "exitCode": code, "error": f"exit status {code}"} if code else told


def _line(process: Process) -> bytes:
    """The first line of what it writes, and not a byte more."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(process.stdout.fileno(), 1)):
        line += byte
    return line.strip()


def stream(running: RunningProcess, *, keepalive: float, until: float | None, started: bool) -> Iterator[Event | None]:
    """The events for one client; None when its time is over, by which envd ends the process too."""
    heard = running.listen()
    try:
        if started:
            running.begin()
        yield {"start": {"pid": running.pid}}
        while True:
            left = keepalive if until is None else min(keepalive, until - time.monotonic())
            try:
                event = heard.get(timeout=max(0.0, left))
            except queue.Empty:
                if until is not None and time.monotonic() >= until:
                    # at once, while the process is being killed: clients give up at the same moment
                    threading.Thread(target=running.signal, args=(signal.SIGKILL,), daemon=True).start()
                    yield None
                    return
                event = {"keepalive": {}}
            yield event
            if "end" in event:
                return
    finally:
        running.leave(heard)
