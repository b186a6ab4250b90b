"""Copy files in and out of a sandbox: archives travel as files of their own, and tar runs inside."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO, Final

from sandboxer.errors import BackendError, SandboxerError
from sandboxer.extensions.base import LeftOut, PathKind
from sandboxer.extensions.e2b.envd import Envd
from sandboxer.extensions.e2b.exec import END_SECONDS, capture, temporary_path
from sandboxer.extensions.shell import files
from sandboxer.hosts.base import Result, Sink
from sandboxer.timing import Deadline

_UNWRITABLE: Final = "may the sandbox's user write there? `options.user: root` may everywhere"


def kind(envd: Envd, path: str, deadline: Deadline) -> PathKind:
    """Look at a path inside. Raises Invalid, BackendError."""
    return files.path_kind(_runner(envd, deadline), path)


def knows_holes(envd: Envd, deadline: Deadline) -> bool:
    """Whether tar inside understands files with holes."""
    return files.knows_holes(_runner(envd, deadline))


def put(envd: Envd, directory: str, archive: BinaryIO, deadline: Deadline) -> None:
    """Unpack a tar stream into a directory. It is uploaded as it is: as the input of a command it would be a third
    longer, and go in pieces. Raises Invalid, BackendError."""
    files.guarded(directory)  # before anything is sent
    path = temporary_path()
    envd.upload(path, archive, deadline)
    files.put_archive_file(_runner(envd, deadline), directory, path, hint=_UNWRITABLE)


def take(envd: Envd, path: str, sink: Sink, deadline: Deadline) -> LeftOut | None:
    """Send a path as a tar stream, by way of a file that is fetched and removed: what a command writes would stand in
    the log that E2B keeps. The file takes as much room there as the path itself. Raises NotFound, Invalid."""
    archive = temporary_path()
    try:
        left = files.get_archive_file(_runner(envd, deadline), path, archive)
    except BackendError:
        with suppress(SandboxerError):
            envd.remove(archive, Deadline(END_SECONDS))
        raise
    try:
        envd.download(archive, sink, deadline)
    finally:
        envd.remove(archive, Deadline(END_SECONDS))
    return left


def _runner(envd: Envd, deadline: Deadline) -> files.Run:
    def run(
        words: Sequence[str],
        *,
        stdin: BinaryIO | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
    ) -> Result:
        assert stdin is None  # noqa: S101 - an input is uploaded
        return capture(envd, words, deadline, stdout=stdout, stderr=stderr)

    return run
