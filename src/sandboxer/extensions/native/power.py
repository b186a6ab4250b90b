"""Stop a sandbox, so that nothing but a start lets it run again, and start it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from sandboxer.errors import BackendError, SandboxerError
from sandboxer.extensions.base import Context
from sandboxer.extensions.native import logs, scripts
from sandboxer.extensions.native.errors import foreign, not_started_again
from sandboxer.extensions.native.exec import check_started, header
from sandboxer.extensions.native.handle import PATH, NativeHandleData, SandboxPaths
from sandboxer.hosts.base import Command
from sandboxer.hosts.process.capture import capture_output

GRACE: Final = 10.0
"""How long what runs inside has to end once it was asked to, in seconds; as Docker gives it."""
_REST: Final = 5.0
"""What is kept of the caller's time for the end by force and the look that follows."""
_SAID: Final = 65536


def stop(sandbox: NativeHandleData, ctx: Context) -> None:
    """End what runs inside: what is asked to (TERM) has GRACE for it, and less where the caller has less time. Raises
    Conflict for a directory of another installation, BackendError when something is left."""
    check_started(sandbox)
    left = ctx.deadline.left()
    grace = GRACE if left is None else min(GRACE, max(0.0, left - _REST))
    asking = header(scripts.ask_to_end(grace), env={"PATH": PATH}, cwd="/")
    said = _said(sandbox.paths, scripts.stop(sandbox, token=f"{os.urandom(8).hex()} ", grace=grace), ctx, asking)
    if said:
        raise _left(sandbox.paths, "stopped", said)


def start(sandbox: NativeHandleData, ctx: Context) -> None:
    """Start it, and wait until its services have settled; one that runs is success. Raises Conflict, BackendError."""
    check_started(sandbox)
    said = _said(sandbox.paths, scripts.again(sandbox), ctx)
    refused = "\n".join(said).partition("refused ")
    if refused[1]:
        raise not_started_again(sandbox.paths, refused[2])
    if said:
        raise _left(sandbox.paths, "started", said)
    if sandbox.services:
        logs.settle(sandbox, ctx)


def _said(paths: SandboxPaths, words: Sequence[str], ctx: Context, stdin: bytes = b"") -> list[str]:
    """What a script says is wrong, in lines. Its session is recorded, so that a destroy ends it when we are killed."""
    command = Command(argv=words, clean_env=True, track=paths.track)
    done = capture_output(ctx.host.stream, command, ctx.deadline, stdin=stdin, limit=_SAID)
    lines = done.text.splitlines()
    if any(line.startswith("foreign ") for line in lines):
        raise foreign(paths)
    # without the directory there is no place for the record of a session either, and nothing was run
    missing = done.code != 0 and ctx.host.read_file(paths.marker, ctx.deadline) is None
    if missing or any(line.startswith("gone ") for line in lines):
        raise BackendError(
            f"the directory {paths.directory} is gone", hint="run `sandboxer reconcile --apply`, or destroy it"
        )
    return lines or ([] if done.code == 0 else [done.complaint])


def _left(paths: SandboxPaths, what: str, said: Sequence[str]) -> SandboxerError:
    return BackendError(
        f"the sandbox {paths.name} is not {what} in full: {'; '.join(said)}",
        hint=f"look at {paths.directory}, then try again",
        retryable=True,
        sandbox_id=paths.sandbox_id,
    )
