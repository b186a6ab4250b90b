"""Running something inside a sandbox, and telling "it could not be entered" from what the program itself said."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from sandboxer.errors import BackendError, Conflict
from sandboxer.extensions.base import Context
from sandboxer.extensions.native import scripts
from sandboxer.extensions.native.options import WORKSPACE
from sandboxer.extensions.native.plan import Remembered, environment
from sandboxer.hosts.base import Command, Result, Sink, Streams
from sandboxer.hosts.capture import SHORT, Kept
from sandboxer.hosts.launch import BOOT_FD3, command, header

_FAILED = 125


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
        if len(self._held) < SHORT:
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
    remembered: Remembered,
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
    killed then."""
    if not remembered.mode:
        raise Conflict("this sandbox was never started", hint="destroy it, and create another")
    place = remembered.place
    token = f"{os.urandom(8).hex()} "
    words = {**environment(remembered), **(env or {})}
    if tty:
        # the program's stdin is the terminal, so the header comes by descriptor 3, which it must not inherit
        argv = ["sh", "-c", 'exec "$@" 3<&-', "sh", *argv]
    first = header(argv, env=words, cwd=cwd, clean_env=not tty)
    file = ""
    if tty:
        file = place.path(f"run/{token.strip()}")
        ctx.host.write_file(file, first, ctx.deadline)
    launcher = ["sh", "-c", BOOT_FD3] if tty else command()
    out, err = _Gate(token.encode(), streams.stdout), _Gate(token.encode(), streams.stderr)
    code = ctx.host.stream(
        Command(
            argv=scripts.enter(remembered, launcher, token=token, header=file),
            clean_env=True,
            track=place.track,
            prelude=b"" if tty else first,
            tty=tty,
        ),
        Streams(stdin=streams.stdin, stdout=out, stderr=err),
        ctx.deadline,
    )
    reason = [said for said in (out.close(), err.close()) if said is not None]
    if code == _FAILED and reason:
        raise BackendError(
            f"the sandbox {place.name} could not be entered: {reason[0]}",
            hint="run `sandboxer doctor`; what is in the workspace is still there",
            sandbox_id=place.sandbox_id,
        )
    return code


def capture(
    remembered: Remembered,
    argv: Sequence[str],
    ctx: Context,
    *,
    stdin: BinaryIO | None = None,
    sink: Sink | None = None,
) -> Result:
    """Run one of our own small scripts inside; what it wrote, up to 64 KiB a stream. stdout goes to `sink` if given."""
    kept = Kept()
    code = run(remembered, argv, Streams(stdin=stdin, stdout=sink or kept.stdout, stderr=kept.stderr), ctx)
    return kept.result(code)
