"""Copy files in and out as tar, which runs inside, so whatever an archive says, it stays there."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO, Final

from sandboxer.extensions.base import LeftOut, PathKind
from sandboxer.extensions.daytona import scripts
from sandboxer.extensions.daytona.client import Toolbox
from sandboxer.extensions.daytona.exec import capture
from sandboxer.extensions.shell import files
from sandboxer.hosts.base import Sink
from sandboxer.timing import Deadline

_INLINE: Final = 512 * 1024
"""An archive of at most so many bytes goes as the input of tar; a longer one as a file, which is not armoured."""
_CHUNK: Final = 256 * 1024
_WHOLE: Final = 4 << 20
"""Up to so many bytes of an archive are held in memory, to send it with its length."""
_UNWRITABLE: Final = "may the sandbox's user write there?"


def kind(toolbox: Toolbox, path: str, deadline: Deadline) -> PathKind:
    """Look at a path inside. Raises Invalid, BackendError."""
    return files.path_kind(_runner(toolbox, deadline), path)


def knows_holes(toolbox: Toolbox, deadline: Deadline) -> bool:
    """Whether tar inside understands files with holes."""
    return files.knows_holes(_runner(toolbox, deadline))


def put(toolbox: Toolbox, directory: str, archive: BinaryIO, deadline: Deadline) -> None:
    """Unpack a tar stream into a directory inside, which is made when missing. Raises Invalid, BackendError."""
    files.guarded(directory)  # before anything is sent
    run = _runner(toolbox, deadline)
    first = _some(archive, _INLINE + 1)
    if len(first) <= _INLINE:
        files.put_archive(run, directory, io.BytesIO(first), hint=_UNWRITABLE)
        return
    target = f"{scripts.PREFIX}{os.urandom(8).hex()}.tar"
    _upload(toolbox, target, first, archive, deadline)
    files.put_archive_file(run, directory, target, hint=_UNWRITABLE)


def take(toolbox: Toolbox, path: str, sink: Sink, deadline: Deadline) -> LeftOut | None:
    """Send a path inside as a tar stream. Raises NotFound when it is absent."""
    return files.get_archive(_runner(toolbox, deadline), path, sink)


def _runner(toolbox: Toolbox, deadline: Deadline) -> files.Run:
    return partial(capture, toolbox, deadline=deadline)


def _some(archive: BinaryIO, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (chunk := archive.read(size - len(data))):
        data += chunk
    return bytes(data)


def _upload(toolbox: Toolbox, target: str, first: bytes, rest: BinaryIO, deadline: Deadline) -> None:
    """Write a file inside by the one way that every toolbox has: a form with the target's path and then the file."""
    boundary = os.urandom(16).hex()

    def form() -> Iterator[bytes]:
        yield _field(boundary, "files[0].path") + target.encode() + b"\r\n"
        yield _field(boundary, "files[0].file", file="tar") + first
        while chunk := rest.read(_CHUNK):
            yield chunk
        yield f"\r\n--{boundary}--\r\n".encode()

    first += _some(rest, _WHOLE)
    whole = len(first) < _WHOLE  # then its length can be told before, which every server understands

    toolbox.api.call(
        "POST",
        toolbox.path("/files/bulk-upload"),
        deadline,
        content=b"".join(form()) if whole else form(),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )


def _field(boundary: str, name: str, *, file: str | None = None) -> bytes:
    more = f'; filename="{file}"\r\nContent-Type: application/octet-stream' if file is not None else ""
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()
