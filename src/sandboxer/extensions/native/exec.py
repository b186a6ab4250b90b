"""Running something inside a sandbox, and telling "it could not be entered" from what the program itself said."""

from __future__ import annotations

import io
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import msgspec

from sandboxer.errors import Conflict, Invalid, Timeout
from sandboxer.extensions.base import Context
from sandboxer.extensions.native import scripts
from sandboxer.extensions.native.errors import JUST_ENDED, not_entered
from sandboxer.extensions.native.handle import NativeHandleData
from sandboxer.extensions.native.options import WORKSPACE
from sandboxer.extensions.native.plan import environment
from sandboxer.hosts.base import Command, Result, Sink, Streams
from sandboxer.hosts.process.capture import CAPPED_BYTES, capture_capped
from sandboxer.hosts.process.launch import check_argv, check_env

_FAILED = 125
_NOT_EXECUTED = 126
_ATTEMPTS = 5
_LONGEST = 16 * 1024 * 1024
# The terminal that the host gives us belongs to a session outside, which has no number inside: a shell could not hand
# it to its jobs and take it back, and it has no name in there. So somebody who types gets one of the inside, where
# there is `script` to make it. Who is not typing does not: the end of a file reaches the outer one before it is raw.
# $0 is the command as one word for its shell, $1 whether somebody types, and then the command follows.
_TERMINAL = """if [ -n "$1" ]; then
  case $(script --version 2>/dev/null) in
    "script from util-linux"*)
      if [ -n "${SHELL+x}" ]; then set -- 'SHELL=$sbx_shell'; sbx_shell=$SHELL; else set -- 'unset SHELL'; fi
      export sbx_shell
      SHELL=/bin/sh exec script -qec "$1; unset sbx_shell; exec $0" /dev/null ;;
  esac
fi
shift
exec "$@"
"""


def header(argv: Sequence[str], *, env: Mapping[str, str], cwd: str) -> bytes:
    """What the guard reads before it runs something: the length, a newline, then the working directory, the number of
    variables, these, and the words, each ended by a NUL. Raises Invalid."""
    if "\0" in cwd:
        raise Invalid("the working directory holds a NUL character", hint="give another path")
    parts = [cwd, str(len(env)), *(f"{name}={value}" for name, value in env.items()), *argv]
    body = b"".join(part.encode("utf-8", "surrogateescape") + b"\0" for part in parts)
    if len(body) > _LONGEST:
        raise Invalid("the command is longer than any system takes", hint="pass such data by stdin or a file")
    return f"{len(body)}\n".encode() + body


class _FailureFilter:
    """Passes chunks on, unless the stream begins with the token: then it keeps what was said instead."""

    def __init__(self, token: bytes, sink: Sink) -> None:
        self._token = token
        self._sink = sink
        self._held = bytearray()
        self._open = False

    def __call__(self, chunk: bytes) -> None:
        if self._open:
            self._sink(chunk)
            return
        if len(self._held) < CAPPED_BYTES:
            self._held += chunk
        if not self._token.startswith(bytes(self._held[: len(self._token)])):
            self._open = True
            self._flush()

    def _flush(self) -> None:
        held, self._held = bytes(self._held), bytearray()
        if held:
            self._sink(held)

    def close(self) -> str | None:
        """The reason of a failure to enter; None (after passing on what was held) when the program did run."""
        if not self._open and self._held.startswith(self._token):
            return self._held[len(self._token) :].decode("utf-8", "replace").strip()
        self._flush()
        return None


def run(
    sandbox: NativeHandleData,
    argv: Sequence[str],
    streams: Streams,
    ctx: Context,
    *,
    cwd: str = WORKSPACE,
    env: Mapping[str, str] | None = None,
    tty: bool = False,
) -> int:
    """Run a program inside to its end; its exit code. Starts the sandbox again when it does not run.

    Raises BackendError when it could not be entered, Timeout at the deadline: everything of the program's session is
    killed then; on a terminal at which somebody types, it is hung up."""
    check_started(sandbox)
    check_argv(argv)
    variables = {**environment(sandbox), **(env or {})}
    check_env(variables)
    words = _on_terminal(argv, streams.stdin) if tty else argv
    first = header(words, env=variables, cwd=cwd)
    for source in _inputs(streams.stdin):
        attempt = msgspec.structs.replace(streams, stdin=source)
        code, reason = _enter(sandbox, argv[0], first, attempt, ctx, tty=tty)
        if reason is None or JUST_ENDED not in reason:
            break
    # 126 is also what a session says that finds no place for its record: then nothing was run
    if reason is None and code != _NOT_EXECUTED:
        return code
    if ctx.host.read_file(sandbox.paths.marker, ctx.deadline) is None:
        reason = f"its directory {sandbox.paths.directory} is gone"
    if reason is None:
        return code
    raise not_entered(sandbox.paths, reason)


def check_started(sandbox: NativeHandleData) -> None:
    """Raise Conflict for a sandbox that cannot be entered, nor started again, whatever becomes of it."""
    if not sandbox.mode:
        raise Conflict("this sandbox was never started", hint="destroy it, and create another")
    if not sandbox.start:
        raise Conflict(
            "this sandbox was made by a version of sandboxer that guarded it less, and is not entered any more",
            hint=f"save what you need of {sandbox.paths.workspace}, then run "
            f"`sandboxer recreate {sandbox.paths.sandbox_id}`",
        )


def _on_terminal(argv: Sequence[str], stdin: BinaryIO | None) -> list[str]:
    """The words that run a command on a terminal."""
    typed = stdin is not None and stdin.isatty()
    return ["sh", "-c", _TERMINAL, shlex.join(argv), "typed" if typed else "", *argv]


def _inputs(source: BinaryIO | None) -> Iterator[BinaryIO | None]:
    """The input for each attempt. Only one that lies in memory can be given again: of others a part may be read."""
    data = source.getvalue()[source.tell() :] if isinstance(source, io.BytesIO) else b""
    yield source
    if source is None or isinstance(source, io.BytesIO):
        for _ in range(_ATTEMPTS - 1):
            yield io.BytesIO(data) if data else None


def _enter(
    sandbox: NativeHandleData, program: str, first: bytes, streams: Streams, ctx: Context, *, tty: bool
) -> tuple[int, str | None]:
    """Enter once: the exit code, and why the sandbox could not be entered (None when the program did run)."""
    token = f"{os.urandom(8).hex()} "
    file = "-"
    if tty:
        file = sandbox.paths.path(f"run/{token.strip()}")
        ctx.host.write_file(file, first, ctx.deadline)
    out, err = _FailureFilter(token.encode(), streams.stdout), _FailureFilter(token.encode(), streams.stderr)
    entered = Command(
        argv=scripts.enter(sandbox, token=token, header=file),
        clean_env=True,
        track=sandbox.paths.track,
        prelude=b"" if tty else first,
        tty=tty,
    )
    try:
        code = ctx.host.stream(entered, Streams(stdin=streams.stdin, stdout=out, stderr=err), ctx.deadline)
    except Timeout as error:
        # who asked knows nothing of our launcher
        raise error.reworded(error.message.replace(entered.argv[0], program, 1)) from error
    reasons = [said for said in (out.close(), err.close()) if said is not None]
    return code, reasons[0] if code == _FAILED and reasons else None


def capture(
    sandbox: NativeHandleData,
    argv: Sequence[str],
    ctx: Context,
    *,
    stdin: BinaryIO | None = None,
    stdout: Sink | None = None,
    stderr: Sink | None = None,
) -> Result:
    """Run one of our own small scripts inside; see `capture_capped`."""
    return capture_capped(lambda streams: run(sandbox, argv, streams, ctx), stdin=stdin, stdout=stdout, stderr=stderr)
