"""Run a command inside a sandbox to its end, and end everything that it started when its time is over."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import BinaryIO, Final

from sandboxer.errors import BackendError, SandboxerError, Timeout
from sandboxer.extensions.e2b import scripts
from sandboxer.extensions.e2b.envd import Envd
from sandboxer.extensions.provider.command_bytes import check
from sandboxer.extensions.shell import processes
from sandboxer.hosts.base import Result, Sink, Streams
from sandboxer.hosts.process.capture import CappedOutput
from sandboxer.hosts.process.stdin import StdinFeeder, complete_input
from sandboxer.timing import Deadline

END_SECONDS: Final = 4.0
"""How long ending a command may take after its time is over."""
_INLINE: Final = 64 * 1024


def run(
    envd: Envd,
    root: Envd,
    argv: Sequence[str],
    streams: Streams,
    deadline: Deadline,
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    tty: bool = False,
) -> int:
    """Run a command; its exit code. `root` is the same sandbox as its superuser, who can end whatever it starts.

    Raises Timeout at the deadline, and what envd says when it could not be run. When we are interrupted, or lose the
    connection, what was started is ended too, as far as that can be done in a few seconds."""
    check(argv, env=env or {}, cwd=cwd)
    words = _words(argv, streams.stdin, envd, deadline, cwd=cwd, tty=tty)
    wants_input = streams.stdin is not None and (tty or envd.closes_stdin)
    running = _Running(envd, root, tty=tty)
    try:
        with envd.start(words, deadline, env=env, stdin=wants_input, size=_terminal_size() if tty else None) as events:
            for event in events:
                if event.data is not None:
                    _pass_on(event.data.stdout, streams.stdout)
                    _pass_on(event.data.stderr, streams.stderr)
                    _pass_on(event.data.pty, streams.stdout)
                elif event.start is not None:
                    running.begin(event.start.pid, streams.stdin if wants_input else None, deadline)
                elif event.end is not None:
                    running.ended()
                    return event.end.code
        raise BackendError(
            "E2B's envd ended the stream before the command ended", hint="run it again", outcome="unknown"
        )
    except BaseException as error:
        told = running.give_up(error)
        if told is not None:
            raise told from None
        raise
    finally:
        running.close()


class _Running:
    """One command that has been started, with its input."""

    def __init__(self, envd: Envd, root: Envd, *, tty: bool) -> None:
        self._envd, self._root, self._tty = envd, root, tty
        self._pid: int | None = None
        self._feeder: StdinFeeder | None = None
        self._input: Deadline | None = None

    def begin(self, pid: int, source: BinaryIO | None, deadline: Deadline) -> None:
        """It has been started: now it can be given its input."""
        if pid <= 1:
            # nothing may ever be ended by such a number: everything inside is below it
            raise BackendError(f"E2B's envd gave a command the number {pid}", hint="check E2B_SANDBOX_URL")
        self._pid = pid
        if source is None:
            return
        # an end of its own: cancelled when the command ends, while the caller's goes on
        self._input = Deadline(deadline.left())
        outlet = _Outlet(self._envd, pid, self._input, tty=self._tty)
        known = None if self._tty else complete_input(b"", source, limit=_INLINE)
        if known is None:
            self._feeder = StdinFeeder(b"", source, outlet)
            self._feeder.start()
            return
        try:
            if known:
                outlet.write(known, -1)
            outlet.end()
        except BrokenPipeError:
            return  # it does not want it

    def ended(self) -> None:
        """It has ended by itself; raises what went wrong with its input."""
        self._pid = None
        if self._feeder is not None and self._feeder.error is not None:
            raise self._feeder.error

    def give_up(self, error: BaseException) -> SandboxerError | None:
        """End it, because of `error`; the error that tells it better."""
        pid, self._pid = self._pid, None
        if pid is not None:
            try:
                end(self._root, self._envd, pid)
            except SandboxerError as rest:
                if isinstance(error, Timeout):
                    return Timeout(
                        f"the command did not end in time, and could not be ended: {rest.message}",
                        hint="it may still run inside; E2B ends it with the sandbox",
                        outcome="unknown",
                    )
        if isinstance(error, Timeout) and pid is not None:
            return Timeout("the command did not end in time; it was ended", hint="give it longer with --timeout")
        return None

    def close(self) -> None:
        """Take no more of the input."""
        if self._feeder is not None:
            self._feeder.stop()
        if self._input is not None:
            self._input.cancel()


class _Outlet:
    """A process's input over envd, one request for each piece: an input may wait for hours between two."""

    def __init__(self, envd: Envd, pid: int, deadline: Deadline, *, tty: bool) -> None:
        self._envd, self._pid, self._deadline, self._tty = envd, pid, deadline, tty

    def write(self, data: bytes, wake: int) -> None:
        """See `hosts.feeding.Outlet`."""
        try:
            self._envd.send(self._pid, data, self._deadline, terminal=self._tty)
        except Timeout:
            raise BrokenPipeError from None  # the command's own time is over, which its reader says

    def end(self) -> None:
        """A terminal has no end; Ctrl-D is a key."""
        if self._tty:
            self.write(b"\x04", -1)
            return
        self._envd.end_input(self._pid, self._deadline)

    def close(self) -> None:
        """Nothing is held."""


def end(root: Envd, envd: Envd, pid: int) -> None:
    """End a process, its session and everything below it. Raises when it may still run."""
    deadline = Deadline(END_SECONDS)
    try:
        done = capture(root, ["/bin/sh", "-c", processes.KILL_TREE, "sh", str(pid)], deadline)
        if done.code == 0:
            return
        raise BackendError(f"it resists: {done.complaint}", hint="destroy the sandbox")
    except SandboxerError:
        envd.kill(pid, Deadline(END_SECONDS / 2))  # the process itself, at the least
        raise


def capture(
    envd: Envd, words: Sequence[str], deadline: Deadline, *, stdout: Sink | None = None, stderr: Sink | None = None
) -> Result:
    """Run one of our own scripts, without an input; up to 64 KiB of each stream is kept unless a sink takes it. What it
    leaves running is not looked after."""
    kept = CappedOutput()
    with envd.start(words, deadline) as events:
        for event in events:
            if event.data is not None:
                _pass_on(event.data.stdout, stdout or kept.stdout)
                _pass_on(event.data.stderr, stderr or kept.stderr)
            elif event.end is not None:
                return kept.result(event.end.code)
    raise BackendError("E2B's envd ended the stream too early", hint="try again", outcome="unknown")


def temporary_path() -> str:
    """Choose a path for a temporary file of ours inside."""
    return f"/tmp/.sandboxer-{os.urandom(8).hex()}"  # noqa: S108 - of the sandbox


def _words(
    argv: Sequence[str], source: BinaryIO | None, envd: Envd, deadline: Deadline, *, cwd: str | None, tty: bool
) -> list[str]:
    where = "" if not cwd else cwd if cwd.startswith("/") else f"./{cwd}"
    command = processes.command(argv)
    if tty:
        return ["/bin/sh", "-c", scripts.RUN_TERMINAL, "sh", where, *command]
    if source is None:
        return ["/bin/sh", "-c", scripts.RUN_CLOSED, "sh", where, *command]
    if envd.closes_stdin:
        return ["/bin/sh", "-c", scripts.RUN, "sh", where, *command]
    path = temporary_path()
    envd.upload(path, source, deadline)
    return ["/bin/sh", "-c", scripts.RUN_FROM, "sh", path, where, *command]


def _terminal_size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(0)
    except OSError:
        return 80, 24
    return size.columns, size.lines


def _pass_on(data: bytes | None, sink: Sink) -> None:
    if data:
        sink(data)
