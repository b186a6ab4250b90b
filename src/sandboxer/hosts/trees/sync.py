"""Bring a tree to a host, by rsync where both sides have it, else as a tar stream.

Files with large holes go by tar in either case: rsync reads and sends every zero of them.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from sandboxer.errors import BackendError, Invalid
from sandboxer.hosts.base import Command, Host, Progress, Streams, SyncReport
from sandboxer.hosts.process.capture import Tail
from sandboxer.hosts.process.launch import by_system_path
from sandboxer.hosts.trees import beneath
from sandboxer.hosts.trees.rsync import (
    CHANGED,
    GONE,
    RsyncComplaints,
    RsyncOutput,
    check_patterns,
    listing,
    rsync_argv,
    rsync_notes,
    unreadable,
)
from sandboxer.hosts.trees.rsync_bridge import RsyncBridge
from sandboxer.hosts.trees.tar_writer import TarSummary, write_tar
from sandboxer.hosts.trees.walk import TreeWalk
from sandboxer.timing import Deadline

TAR_NOTE: Final = (
    "copied as a whole with tar: rsync is not installed {where}, so later copies take as long as the first"
)
NO_HOLES: Final = "files with holes take all of their size there: {where}'s tar is neither GNU's nor bsdtar"
LARGE_HOLES: Final = 16 << 20
"""A file with so many bytes of holes is not left to rsync."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeCopy:
    """What is copied: the tree below `source` on this machine, into `target` on the host. See `Host.sync`."""

    source: Path
    target: str
    exclude: Sequence[str] = ()
    gitignore: bool = False
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class TreeScan:
    """The names of a tree that are copied, parents first, which of them are files with large holes, and what to tell of
    what is never copied."""

    names: Sequence[str]
    sparse: frozenset[str]
    note: str | None = None


def scan(
    source: Path, *, exclude: Sequence[str] = (), gitignore: bool = False, deadline: Deadline | None = None
) -> TreeScan:
    """Walk a tree as it will be copied. Raises BackendError for what cannot be read, Invalid for more than can be read,
    Timeout at the deadline."""
    walk = TreeWalk(exclude, gitignore, deadline=deadline, name=beneath.name_of(source))
    names, sparse = list[str](), set[str]()
    try:
        with beneath.directory(source) as top:
            for entry in walk.entries(top):
                names.append(entry.relative)
                if entry.status.st_size - 512 * entry.status.st_blocks >= LARGE_HOLES:
                    sparse.add(entry.relative)
    except OSError as error:
        raise unreadable(error, source) from error
    return TreeScan(names, frozenset(sparse), walk.note)


def sync_tree(host: Host, copy: TreeCopy, deadline: Deadline, *, missing: str, local: Host) -> SyncReport:
    """Copy a tree to a host. `local` is this machine (as `host` may be); `missing` says where rsync is not installed,
    if anywhere."""
    if not copy.source.is_dir():
        raise Invalid(f"{copy.source} is not a directory on this machine", hint="give the path of the tree to copy")
    check_patterns(copy.exclude)
    made = host.run(["mkdir", "-p", "--", copy.target], deadline)
    if made.code != 0:
        raise BackendError(
            f"{copy.target} could not be made on {host.name}: {made.complaint}", hint="look at the path on that host"
        )
    strict = beneath.is_strict(copy.source)
    if strict or missing:
        return sync_tar(host, copy, deadline, where="" if strict else missing)
    return _sync_rsync(host, copy, deadline, local=local)


def _sync_rsync(host: Host, copy: TreeCopy, deadline: Deadline, *, local: Host) -> SyncReport:
    found = scan(copy.source, exclude=copy.exclude, gitignore=copy.gitignore, deadline=deadline)
    sparse = found.sparse if found.sparse and _knows_holes(host, deadline) else frozenset[str]()
    # tar first: what it writes changes the times of directories, which rsync then sets
    before = sync_tar(host, copy, deadline, only=sparse) if sparse else None
    listed = copy.gitignore or bool(sparse)
    names = io.BytesIO(listing(name for name in found.names if name not in sparse)) if listed else None
    output, complaints = RsyncOutput(copy.progress), RsyncComplaints()
    streams = Streams(stdin=names, stdout=output.feed, stderr=complaints.feed)

    def rsync(rsh: str | None) -> int:
        argv = rsync_argv(copy.source, copy.target, exclude=copy.exclude, listed=listed, rsh=rsh)
        return local.stream(Command(argv=argv, env={"LC_ALL": "C"}), streams, deadline)

    if host is local:
        code = rsync(None)
    else:
        with RsyncBridge(host, deadline, complaints.feed) as bridge:
            code = bridge.finish(rsync(bridge.rsh))
    if listed:
        _take_mode(host, copy, deadline)
    left_out = (found.note,) if found.note is not None else ()
    report = output.report((*rsync_notes(code, complaints), *left_out))
    if before is None:
        return report
    return msgspec.structs.replace(
        report,
        files=report.files + before.files,
        sent_bytes=report.sent_bytes + before.sent_bytes,
        notes=tuple(dict.fromkeys((*before.notes, *report.notes))),
    )


def sync_tar(
    host: Host, copy: TreeCopy, deadline: Deadline, *, where: str = "", only: frozenset[str] | None = None
) -> SyncReport:
    """Copy a tree, or `only` these names of it, as a tar stream into the existing directory `target`; `where` says
    which side lacks rsync, if that is why."""
    holes = only is not None or _knows_holes(host, deadline)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    counted: list[TarSummary] = []
    failed: list[BaseException] = []

    def produce() -> None:
        try:
            done = write_tar(
                copy.source,
                partial(_write, writing),
                exclude=copy.exclude,
                gitignore=copy.gitignore,
                only=only,
                holes=holes,
                progress=copy.progress,
                deadline=deadline,
            )
            counted.append(done)
        except BrokenPipeError:
            return  # tar ended early: its exit code and complaint say why
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that waits
            failed.append(error)
        finally:
            os.close(writing)

    thread = threading.Thread(target=produce, name="sandboxer-tar", daemon=True)
    complaints = Tail()
    # -o: files belong to whoever unpacks, also when that is root; -p: modes as they are, whatever the umask
    words = by_system_path("tar", "-x", "-o", "-p", "-f", "-", "-C", copy.target)
    thread.start()
    with os.fdopen(reading, "rb", buffering=0) as stdin:
        streams = Streams(stdin=stdin, stdout=complaints.feed, stderr=complaints.feed)
        code = host.stream(Command(argv=words, env={"LC_ALL": "C"}), streams, deadline)
    thread.join(5)
    if failed:
        raise unreadable(failed[0], copy.source) if isinstance(failed[0], OSError) else failed[0]
    if code != 0 or not counted:
        raise BackendError(
            f"tar ended with {code} on {host.name}: {complaints.text}", hint="is tar there, and room on that host?"
        )
    written = counted[0]
    notes = {
        TAR_NOTE.format(where=where): bool(where),
        GONE: bool(written.gone),
        CHANGED: bool(written.changed),
        NO_HOLES.format(where=host.name): written.zeros >= LARGE_HOLES,
    }
    told = [note for note, holds in notes.items() if holds] + ([written.special] if written.special else [])
    return SyncReport(method="tar", files=written.files, sent_bytes=written.sent_bytes, notes=tuple(told))


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _knows_holes(host: Host, deadline: Deadline) -> bool:
    """Whether tar on the host understands GNU's sparse files; others would unpack their maps as contents."""
    said = host.run(by_system_path("tar", "--version"), deadline).stdout
    return b"GNU tar" in said or b"bsdtar" in said


def _take_mode(host: Host, copy: TreeCopy, deadline: Deadline) -> None:
    """Give the target directory the mode of the source, which is in no list of names."""
    mode = f"{copy.source.stat().st_mode & 0o7777:o}"
    done = host.run(["chmod", mode, "--", copy.target], deadline)
    if done.code != 0:
        raise BackendError(f"{copy.target}: {done.complaint}", hint=f"look at the path on {host.name}")
