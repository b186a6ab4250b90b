"""Trees in and out as tar; tar runs inside, so whatever an archive says, it stays there."""

from __future__ import annotations

from functools import partial
from typing import BinaryIO, Final

from sandboxer.extensions.base import Context, LeftOut, PathKind
from sandboxer.extensions.native.exec import capture
from sandboxer.extensions.native.handle import NativeHandleData
from sandboxer.extensions.shell import files
from sandboxer.hosts.base import Sink

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


def _runner(sandbox: NativeHandleData, ctx: Context) -> files.Run:
    return partial(capture, sandbox, ctx=ctx)
