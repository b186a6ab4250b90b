"""Trees in and out as tar; tar runs inside, so whatever an archive says, it stays there."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from sandboxer.errors import BackendError, Invalid, NotFound
from sandboxer.extensions.base import PathKind
from sandboxer.extensions.daytona import scripts
from sandboxer.extensions.daytona.client import Toolbox
from sandboxer.extensions.daytona.exec import capture
from sandboxer.extensions.shell.scripts import ABSENT, follow
from sandboxer.timing import Deadline

_INLINE: Final = 512 * 1024
"""An archive of at most so many bytes goes as the input of tar; a longer one as a file, which is not armoured."""
_CHUNK: Final = 256 * 1024
_WHOLE: Final = 4 << 20
"""Up to so many bytes of an archive are held in memory, to send it with its length."""
_KIND: Final = (
    'if [ -d "$1" ]; then echo directory; elif [ -e "$1" ] || [ -L "$1" ]; then echo file; else echo absent; fi'
)
_UNPACK: Final = 'mkdir -p "$1" && cd "$1" && exec tar -x -p -f "$2"'
_UNPACK_FILE: Final = 'mkdir -p "$1" && (cd "$1" && exec tar -x -p -f "$2"); code=$?; rm -f "$2"; exit "$code"'
_PACK: Final = (
    'cd "$1" 2>/dev/null || exit 44; [ -e "$2" ] || [ -L "$2" ] || exit 44; '
    + follow()
    + 'exec tar -c $follow -f - -- "$name"'
)


def kind(toolbox: Toolbox, path: str, deadline: Deadline) -> PathKind:
    """What is at a path inside."""
    done = capture(toolbox, ["sh", "-c", _KIND, "sh", _inside(path)], deadline)
    kinds: dict[str, PathKind] = {"file": "file", "directory": "directory", "absent": "absent"}
    if done.code != 0 or done.text not in kinds:
        raise BackendError(f"{path!r} could not be looked at: {done.complaint}", hint="try `sandboxer exec ID -- ls`")
    return kinds[done.text]


def put(toolbox: Toolbox, directory: str, archive: BinaryIO, deadline: Deadline) -> None:
    """Unpack a tar stream into a directory inside, which is made when missing."""
    first = _some(archive, _INLINE + 1)
    if len(first) <= _INLINE:
        import io

        words = ["sh", "-c", _UNPACK, "sh", _inside(directory), "-"]
        done = capture(toolbox, words, deadline, stdin=io.BytesIO(first))
    else:
        target = f"{scripts.PREFIX}{os.urandom(8).hex()}.tar"
        _upload(toolbox, target, first, archive, deadline)
        done = capture(toolbox, ["sh", "-c", _UNPACK_FILE, "sh", _inside(directory), target], deadline)
    if done.code != 0:
        raise BackendError(
            f"could not be written to {directory!r}: {done.complaint}", hint="may the sandbox's user write there?"
        )


def take(toolbox: Toolbox, path: str, sink: Callable[[bytes], None], deadline: Deadline) -> None:
    """Send a path inside as a tar stream. Raises NotFound when it is absent."""
    parent, name = posixpath.split(posixpath.normpath(_inside(path)))
    if not name or name in (".", ".."):
        raise Invalid(f"{path!r} as a whole cannot be copied", hint="copy a path in it, by its name")
    done = capture(toolbox, ["sh", "-c", _PACK, "sh", parent or ".", name], deadline, sink=sink)
    if done.code == ABSENT:
        raise NotFound(f"there is no {path!r} in the sandbox", hint="see `sandboxer exec ID -- ls`")
    if done.code != 0:
        raise BackendError(f"{path!r} could not be read: {done.complaint}", hint="may the sandbox's user read it?")


def _inside(path: str) -> str:
    """A path that no program takes for an option; relative ones start where commands do."""
    if "\0" in path:
        raise Invalid("a path holds a NUL character", hint="give another path")
    return path if path.startswith("/") else f"./{path}"


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
