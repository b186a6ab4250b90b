"""Trees in and out as tar; tar runs inside, so whatever an archive says, it stays there."""

from __future__ import annotations

from functools import partial
from typing import BinaryIO, Final

from sandboxer.errors import BackendError
from sandboxer.extensions.base import Context, KeptStreams, LeftOut, PathKind
from sandboxer.extensions.native.exec import capture
from sandboxer.extensions.native.handle import NativeHandleData
from sandboxer.extensions.native.options import WORKSPACE
from sandboxer.extensions.shell import files
from sandboxer.hosts.base import Sink

STREAM: Final = "workspace"
"""What the workspace is called in a snapshot."""
_OTHERS: Final = (
    "for it in /proc/[0-9]*; do it=${it#/proc/}; case $it in 1 | $$) continue ;; esac; "
    """case $(tr '\\0' ' ' <"/proc/$it/cmdline" 2>/dev/null) in "" | "sleep 2147483647 ") ;; """
    '*) echo "$it" ;; esac; done'
)
"""The processes that run inside besides this script, the first, and that one's sleep (host/supervise.sh)."""
_UNWRITABLE: Final = (
    "inside, only /workspace and /tmp can be written, and there as modes allow: `sandboxer exec ID -- ls -la`"
)


def kind(sandbox: NativeHandleData, path: str, ctx: Context) -> PathKind:
    """What is at a path inside. Raises Invalid, BackendError."""
    return files.path_kind(_runner(sandbox, ctx), path)


def knows_holes(sandbox: NativeHandleData, ctx: Context) -> bool:
    """Whether tar inside understands files with holes."""
    return files.knows_holes(_runner(sandbox, ctx))


def put(sandbox: NativeHandleData, directory: str, archive: BinaryIO, ctx: Context) -> None:
    """Unpack a tar stream into a directory inside, which is made when missing. Raises Invalid, BackendError."""
    files.put_archive(_runner(sandbox, ctx), directory, archive, hint=_UNWRITABLE)


def take(sandbox: NativeHandleData, path: str, sink: Sink, ctx: Context) -> LeftOut | None:
    """Send a path inside as a tar stream. Raises NotFound, Invalid, BackendError."""
    return files.get_archive(_runner(sandbox, ctx), path, sink)


def snapshot(sandbox: NativeHandleData, kept: KeptStreams, ctx: Context) -> None:
    """Give the workspace to the core, as a tar stream. Raises BackendError."""
    run = _runner(sandbox, ctx)
    busy = _busy(run)
    ctx.progress("snapshot", WORKSPACE)
    with kept.put(STREAM) as sink:
        left_out = files.pack_whole(run, WORKSPACE, sink)
    if busy or _busy(run):
        kept.inconsistent("processes ran in it meanwhile")
    if left_out is not None:
        kept.note(f"left out {left_out.count}: {'; '.join(left_out.said)}")


def restore(sandbox: NativeHandleData, kept: KeptStreams, ctx: Context) -> None:
    """Bring a workspace back from the core. Raises BackendError, StoreCorrupt."""
    ctx.progress("restore", WORKSPACE)
    files.put_archive(_runner(sandbox, ctx), WORKSPACE, kept.get(STREAM), hint=_UNWRITABLE)


def _busy(run: files.Run) -> bool:
    done = run(["/bin/sh", "-c", _OTHERS, "sh"])
    if done.code != 0:
        raise BackendError(f"its processes could not be listed: {done.complaint}", hint="try `sandboxer exec ID -- ps`")
    return bool(done.text)


def _runner(sandbox: NativeHandleData, ctx: Context) -> files.Run:
    return partial(capture, sandbox, ctx=ctx)
