"""Bringing a tree to a host, by rsync where both sides have it, else as a tar stream."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

from sandboxer.errors import BackendError, Invalid
from sandboxer.hosts.base import Command, Host, Progress, Streams, SyncReport
from sandboxer.hosts.trees import beneath
from sandboxer.hosts.trees.rsync import (
    GONE,
    RsyncOutput,
    TarSummary,
    check_patterns,
    listing,
    rsync_argv,
    rsync_notes,
    unreadable,
    write_tar,
)
from sandboxer.hosts.trees.rsync_bridge import RsyncBridge
from sandboxer.timing import Deadline

TAR_NOTE = "copied as a whole with tar: rsync is not installed {where}, so later copies take as long as the first"


class OutputTail:
    """The last of what a program complains."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        self._kept = (self._kept + data)[-4096:]

    @property
    def text(self) -> str:
        """The last lines."""
        return "\n".join(self._kept.decode("utf-8", "replace").strip().splitlines()[-6:])


def check_source(source: Path) -> None:
    """Raise Invalid when there is no such directory here."""
    if not source.is_dir():
        raise Invalid(f"{source} is not a directory on this machine", hint="give the path of the tree to copy")


def sync_local(
    host: Host,
    source: Path,
    target: str,
    deadline: Deadline,
    *,
    exclude: Sequence[str],
    gitignore: bool,
    progress: Progress | None,
    has_rsync: bool,
) -> SyncReport:
    """Copy a tree on this machine."""
    check_source(source)
    made = host.run(["mkdir", "-p", "--", target], deadline)
    if made.code != 0:
        raise BackendError(f"{target} could not be made: {made.complaint}", hint="look at the path on this machine")
    strict = beneath.is_strict(source)
    if strict or not has_rsync:
        return sync_tar(
            host,
            source,
            target,
            deadline,
            exclude=exclude,
            gitignore=gitignore,
            progress=progress,
            where="" if strict else "here",
        )
    output, errors = RsyncOutput(progress), OutputTail()
    argv = rsync_argv(source, target, exclude=exclude, listed=gitignore)
    command = Command(argv=argv, env={"LC_ALL": "C"})
    names = _names(source, deadline, exclude=exclude, gitignore=gitignore)
    code = host.stream(command, Streams(stdin=names, stdout=output.feed, stderr=errors.feed), deadline)
    if names is not None:
        _take_mode(host, source, target, deadline)
    return output.report(rsync_notes(code, errors.text))


def sync_tar(
    host: Host,
    source: Path,
    target: str,
    deadline: Deadline,
    *,
    exclude: Sequence[str],
    gitignore: bool,
    progress: Progress | None,
    where: str,
) -> SyncReport:
    """Copy a tree as a tar stream into the existing directory `target`; `where` says which side lacks rsync, if that is
    why."""
    import threading

    reading, writing = os.pipe2(os.O_CLOEXEC)
    counted: list[TarSummary] = []
    failed: list[BaseException] = []

    def produce() -> None:
        try:
            with os.fdopen(writing, "wb", buffering=0) as pipe:
                done = write_tar(
                    source, pipe.write, exclude=exclude, gitignore=gitignore, progress=progress, deadline=deadline
                )
                counted.append(done)
        except BrokenPipeError:
            return  # tar ended early: its exit code and complaint say why
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that waits
            failed.append(error)

    thread = threading.Thread(target=produce, name="sandboxer-tar", daemon=True)
    errors = OutputTail()
    # -o: files belong to whoever unpacks, also when that is root; -p: modes as they are, whatever the umask
    command = Command(argv=["tar", "-x", "-o", "-p", "-f", "-", "-C", target], env={"LC_ALL": "C"})
    thread.start()
    with os.fdopen(reading, "rb", buffering=0) as stdin:
        code = host.stream(command, Streams(stdin=stdin, stdout=errors.feed, stderr=errors.feed), deadline)
    thread.join(5)
    if failed:
        raise unreadable(failed[0], source) if isinstance(failed[0], OSError) else failed[0]
    if code != 0 or not counted:
        raise BackendError(f"tar ended with {code}: {errors.text}", hint="is tar there, and is there room on the host?")
    written = counted[0]
    notes = (*([TAR_NOTE.format(where=where)] if where else []), *([GONE] if written.gone else []))
    return SyncReport(method="tar", files=written.files, sent_bytes=written.sent_bytes, notes=notes)


def sync_remote(
    host: Host,
    source: Path,
    target: str,
    deadline: Deadline,
    *,
    exclude: Sequence[str],
    gitignore: bool,
    progress: Progress | None,
    local: Host,
    missing: str,
) -> SyncReport:
    """Copy a tree to another machine. `local` is this one; `missing` says where rsync is not installed, if anywhere."""
    check_source(source)
    check_patterns(exclude)
    made = host.run(["mkdir", "-p", "--", target], deadline)
    if made.code != 0:
        raise BackendError(
            f"{target} could not be made on {host.name}: {made.complaint}", hint="look at the path on that host"
        )
    strict = beneath.is_strict(source)
    if strict or missing:
        return sync_tar(
            host,
            source,
            target,
            deadline,
            exclude=exclude,
            gitignore=gitignore,
            progress=progress,
            where="" if strict else missing,
        )
    output, errors = RsyncOutput(progress), OutputTail()
    names = _names(source, deadline, exclude=exclude, gitignore=gitignore)
    with RsyncBridge(host, deadline, errors.feed) as bridge:
        argv = rsync_argv(source, target, exclude=exclude, listed=gitignore, rsh=bridge.rsh)
        command = Command(argv=argv, env={"LC_ALL": "C"})
        code = local.stream(command, Streams(stdin=names, stdout=output.feed, stderr=errors.feed), deadline)
        code = bridge.finish(code)
    if names is not None:
        _take_mode(host, source, target, deadline)
    return output.report(rsync_notes(code, errors.text))


def _names(source: Path, deadline: Deadline, *, exclude: Sequence[str], gitignore: bool) -> io.BytesIO | None:
    return io.BytesIO(listing(source, exclude=exclude, deadline=deadline)) if gitignore else None


def _take_mode(host: Host, source: Path, target: str, deadline: Deadline) -> None:
    """Give the target directory the mode of the source, which is in no list of names."""
    mode = f"{source.stat().st_mode & 0o7777:o}"
    done = host.run(["chmod", mode, "--", target], deadline)
    if done.code != 0:
        raise BackendError(f"{target}: {done.complaint}", hint=f"look at the path on {host.name}")
