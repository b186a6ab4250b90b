"""Files in and out of a sandbox: archives travel as files of their own, and tar runs inside."""

from __future__ import annotations

import posixpath
from typing import BinaryIO, Final

from sandboxer.errors import BackendError, Invalid, NotFound
from sandboxer.extensions.base import PathKind
from sandboxer.extensions.e2b import scripts
from sandboxer.extensions.e2b.envd import Envd
from sandboxer.extensions.e2b.exec import END_SECONDS, capture, temporary_path
from sandboxer.extensions.shell.scripts import ABSENT
from sandboxer.hosts.base import Sink
from sandboxer.timing import Deadline

_KINDS: Final[dict[str, PathKind]] = {"file": "file", "directory": "directory", "absent": "absent"}


def kind(envd: Envd, path: str, deadline: Deadline) -> PathKind:
    """What is at a path inside. Raises BackendError."""
    done = capture(envd, ["/bin/sh", "-c", scripts.KIND, "sh", _inner(path)], deadline)
    if done.code != 0 or done.text not in _KINDS:
        raise BackendError(f"{path!r} could not be looked at: {done.complaint}", hint="try `sandboxer exec ID -- ls`")
    return _KINDS[done.text]


def put(envd: Envd, directory: str, archive: BinaryIO, deadline: Deadline) -> None:
    """Unpack a tar stream into a directory. It is uploaded as it is: as the input of a command it would be a third
    longer, and go in pieces. Raises BackendError."""
    path = temporary_path()
    envd.upload(path, archive, deadline)
    done = capture(envd, ["/bin/sh", "-c", scripts.UNPACK, "sh", _inner(directory), path], deadline)
    if done.code != 0:
        raise BackendError(
            f"could not be written to {directory!r}: {done.complaint}",
            hint="may the sandbox's user write there? `options.user: root` may everywhere",
        )


def take(envd: Envd, path: str, sink: Sink, deadline: Deadline) -> None:
    """Send a path as a tar stream, by way of a file that is fetched and removed: what a command writes would stand in
    the log that E2B keeps. The file takes as much room there as the path itself. Raises NotFound, Invalid."""
    parent, name = posixpath.split(_inner(path).rstrip("/"))
    if name in ("", ".", ".."):
        raise Invalid(f"{path!r} as a whole cannot be copied", hint="copy a path in it")
    archive = temporary_path()
    done = capture(envd, ["/bin/sh", "-c", scripts.PACK, "sh", parent or "/", name, archive], deadline)
    if done.code == ABSENT:
        raise NotFound(f"there is no {path!r} in the sandbox", hint="see `sandboxer exec ID -- ls`")
    if done.code != 0:
        raise BackendError(
            f"{path!r} could not be read: {done.complaint}",
            hint="is it readable for the sandbox's user, and is there room for a copy of it?",
        )
    try:
        envd.download(archive, sink, deadline)
    finally:
        envd.remove(archive, Deadline(END_SECONDS))


def _inner(path: str) -> str:
    """A path as a word: relative ones start where commands start, and none looks like an option."""
    if "\0" in path:
        raise Invalid("a path holds a NUL character", hint="give another path")
    return path if path.startswith("/") else f"./{path}"
