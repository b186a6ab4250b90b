"""Running something inside a sandbox, and telling "it could not be entered" from what the program itself said."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from sandboxer.errors import BackendError, Conflict, Invalid, Timeout
from sandboxer.extensions.base import Context
from sandboxer.extensions.native import scripts
from sandboxer.extensions.native.options import WORKSPACE
from sandboxer.extensions.native.plan import NativeHandleData, environment
from sandboxer.hosts.base import Command, Result, Sink, Streams
from sandboxer.hosts.process.capture import CAPPED_BYTES, CappedOutput
from sandboxer.hosts.process.launch import check_argv, check_env

_FAILED = 125
_NOT_EXECUTED = 126
_CHANGED = "is not what it was when the sandbox was made"
"""What enter.sh, start.sh and the guard say of a file that a restart would run."""
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


class _Gate:
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
    remembered: NativeHandleData,
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
    if not remembered.mode:
        raise Conflict("this sandbox was never started", hint="destroy it, and create another")
    if not remembered.start:
        raise Conflict(
            "this sandbox was made by a version of sandboxer that guarded it less, and is not entered any more",
            hint=f"save what you need of {remembered.place.workspace}, then run "
            f"`sandboxer recreate {remembered.place.sandbox_id}`",
        )
    place, program = remembered.place, argv[0]
    token = f"{os.urandom(8).hex()} "
    check_argv(argv)
    variables = {**environment(remembered), **(env or {})}
    check_env(variables)
    if tty:
        typed = streams.stdin is not None and streams.stdin.isatty()
        argv = ["sh", "-c", _TERMINAL, shlex.join(argv), "typed" if typed else "", *argv]
    first = header(argv, env=variables, cwd=cwd)
    file = "-"
    if tty:
        file = place.path(f"run/{token.strip()}")
        ctx.host.write_file(file, first, ctx.deadline)
    out, err = _Gate(token.encode(), streams.stdout), _Gate(token.encode(), streams.stderr)
    entered = Command(
        argv=scripts.enter(remembered, token=token, header=file),
        clean_env=True,
        track=place.track,
        prelude=b"" if tty else first,
        tty=tty,
    )
    try:
        code = ctx.host.stream(entered, Streams(stdin=streams.stdin, stdout=out, stderr=err), ctx.deadline)
    except Timeout as error:
        # who asked knows nothing of our launcher
        raise error.reworded(error.message.replace(entered.argv[0], program, 1)) from error
    reason = [said for said in (out.close(), err.close()) if said is not None]
    entered_not = code == _FAILED and bool(reason)
    # 126 is also what a session says that finds no place for its record: then nothing was run
    if (entered_not or code == _NOT_EXECUTED) and ctx.host.read_file(place.marker, ctx.deadline) is None:
        raise BackendError(
            f"the sandbox {place.name} could not be entered: its directory {place.directory} is gone",
            hint="run `sandboxer reconcile --apply`, or destroy it",
            sandbox_id=place.sandbox_id,
        )
    if entered_not and _CHANGED in reason[0]:
        raise Conflict(
            f"the sandbox {place.name} is not started again: {reason[0]}",
            hint=f"run `sandboxer recreate {place.sandbox_id}`; what is in the workspace is still there",
            sandbox_id=place.sandbox_id,
        )
    if entered_not:
        raise BackendError(
            f"the sandbox {place.name} could not be entered: {reason[0]}",
            hint="run `sandboxer doctor`; what is in the workspace is still there",
            sandbox_id=place.sandbox_id,
        )
    return code


def capture(
    remembered: NativeHandleData,
    argv: Sequence[str],
    ctx: Context,
    *,
    stdin: BinaryIO | None = None,
    sink: Sink | None = None,
) -> Result:
    """Run one of our own small scripts inside; what it wrote, up to 64 KiB a stream. stdout goes to `sink` if given."""
    kept = CappedOutput()
    code = run(remembered, argv, Streams(stdin=stdin, stdout=sink or kept.stdout, stderr=kept.stderr), ctx)
    return kept.result(code)
