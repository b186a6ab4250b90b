"""Copy files into a sandbox and out of it, as `cp` does; what comes out is untrusted."""

from __future__ import annotations

import errno
import fcntl
import os
import posixpath
import stat
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sandboxer.errors import Denied, Invalid, NotFound, Unavailable
from sandboxer.extensions.base import CanCopy, Context, LeftOut, PathKind
from sandboxer.hosts.trees.rsync import CHANGED, GONE
from sandboxer.hosts.trees.sync import LARGE_HOLES
from sandboxer.hosts.trees.tar_writer import TarWriter
from sandboxer.hosts.trees.walk import NAMED, TreeWalk
from sandboxer.manager.copies.destination import CopyDestination
from sandboxer.manager.copies.extract import StagingDirectory, staging_directory
from sandboxer.models import Handle

MAX_STREAM = 64 << 30
"""How many bytes a sandbox may send for one copy, zeros and all, unless `--max-size` is more."""
_SPOOL = 8 << 20
_PIPE = 1 << 20
_BAD_PATH = frozenset(
    {
        errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.ENOTEMPTY,
        errno.EFBIG,
    }
)  # fmt: skip


class SandboxFiles:
    """The inside of one sandbox, for copies."""

    def __init__(self, extension: CanCopy, handle: Handle, context: Context, service: str | None) -> None:
        self._extension = extension
        self._handle = handle
        self._context = context
        self._service = service

    def kind(self, path: str) -> PathKind:
        """What is at `path`."""
        return self._extension.path_kind(self._handle, path, self._context, service=self._service)

    def put(self, directory: str, archive: BinaryIO) -> None:
        """Unpack a tar stream into `directory`."""
        self._extension.put_archive(self._handle, directory, archive, self._context, service=self._service)

    def knows_holes(self) -> bool:
        """Whether archives with holes are understood inside."""
        return self._extension.knows_holes(self._handle, self._context, service=self._service)

    def take(self, path: str, sink: Callable[[bytes], None]) -> LeftOut:
        """Send `path` as a tar stream to `sink`; what of it could not be packed."""
        left = self._extension.get_archive(self._handle, path, sink, self._context, service=self._service)
        return LeftOut(count=0) if left is None else left


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyReport:
    """What became of a copy: how many entries were left out, the first of them with the reason, and what else to tell.

    `partial`: some of them were to come."""

    left_out: int = 0
    said: tuple[str, ...] = ()
    partial: bool = False
    notes: tuple[str, ...] = ()


def copy_in(source: str, target: str, inside: SandboxFiles) -> CopyReport:
    """Copy a file or directory of this machine to `target` inside: into it when it is a directory or ends in `/`,
    otherwise to that very name. Of `DIR/.` it is the contents. Missing parents are made. Devices, sockets and pipes
    below a directory are left out. Raises NotFound, Invalid, Denied, Unavailable."""
    with _disk(source), _source(source) as (top, name), tempfile.SpooledTemporaryFile(max_size=_SPOOL) as spool:
        status = os.fstat(top)
        contents = _means_contents(source)
        if contents:
            directory, name = target or ".", ""
        else:
            directory, name = _landing(target, name, is_directory=inside.kind(target) == "directory")
        with tarfile.open(fileobj=spool, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            writer, walk = TarWriter(tar, holes=inside.knows_holes), TreeWalk(name=source)
            if stat.S_ISREG(status.st_mode):
                writer.add_file(top, name=name)
            else:
                _add_tree(writer, walk, top, name)
        spool.seek(0)
        inside.put(directory, spool)  # type: ignore[arg-type]  # a spooled file reads like any other
        special = tuple(f"{name}: a device, socket or pipe" for name in walk.special_names)
        return CopyReport(left_out=walk.special, said=special, notes=_notes(writer, walk))


@contextmanager
def _source(source: str) -> Iterator[tuple[int, str]]:
    """What is to be copied in, opened once (a link that the user names is followed then), and its own name."""
    try:
        way = os.open(source, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if _is_directory_gone() and not source.startswith("/"):
            raise  # told below
        raise NotFound(f"{source} does not exist", hint="the first path is the source") from error
    try:
        mode = os.fstat(way).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a device may do something
            raise _neither(source)
        # the same file, whatever its name leads to by now
        fd = os.open(f"/proc/self/fd/{way}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd, Path(source).name or Path(f"/proc/self/fd/{fd}").readlink().name
        finally:
            os.close(fd)
    finally:
        os.close(way)


def _add_tree(writer: TarWriter, walk: TreeWalk, top: int, name: str) -> None:
    """Add a directory's tree under a name, its contents alone under none."""
    for entry in walk.entries(top):
        called = "/".join(part for part in (name, "" if entry.relative == "." else entry.relative) if part)
        if called and not writer.add(entry, name=called):
            walk.gone += 1
    writer.close_directories()


def _notes(writer: TarWriter, walk: TreeWalk) -> tuple[str, ...]:
    named = [*writer.changed[:NAMED], *(["..."] if len(writer.changed) > NAMED else [])]
    notes = {
        f"{CHANGED}: {', '.join(named)}": bool(writer.changed),
        GONE: bool(walk.gone),
        "files with holes take all of their size inside": writer.zeros >= LARGE_HOLES,
    }
    return tuple(note for note, holds in notes.items() if holds)


def _means_contents(path: str) -> bool:
    """Whether a path ends in `.` or `..`: `cp -r` copies what is in such a directory, not the directory."""
    return path.rstrip("/").rpartition("/")[2] in (".", "..")


@contextmanager
def _disk(what: str) -> Iterator[None]:
    """Turn what the operating system refuses here into a typed error."""
    try:
        yield
    except PermissionError as error:
        named = what if str(error.filename or "/proc").startswith("/proc") else error.filename
        raise Denied(f"{named}: permission denied", hint="choose a path that you may use") from error
    except FileNotFoundError as error:
        if _is_directory_gone() and not str(error.filename or what).startswith("/"):
            raise NotFound(
                f"{what}: the current directory is no longer there", hint="change to one that is, or write whole paths"
            ) from error
        raise NotFound(f"{error.filename or what} is not there", hint="did it go away meanwhile? copy again") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = f"free some space at the target and in {tempfile.gettempdir()} (or set TMPDIR to another directory)"
            raise Unavailable(f"no space left to copy {what}", hint=hint) from error
        if error.errno in _BAD_PATH:
            raise Invalid(
                f"{error.filename or what}: {os.strerror(error.errno or 0)}"[:500], hint="choose another path"
            ) from error
        raise Unavailable(
            f"{what} could not be copied: {error.strerror or error}", hint="if it changed meanwhile, copy it again"
        ) from error


def _is_directory_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _neither(path: str) -> Invalid:
    return Invalid(f"{path} is neither a file nor a directory", hint="only files and directories are copied")


def _landing(target: str, own_name: str, *, is_directory: bool) -> tuple[str, str]:
    """The directory to unpack into and the name of the copy there."""
    if is_directory or target.endswith("/") or target in ("", "."):
        return target or ".", own_name
    path = PurePosixPath(target)
    if path.name in ("", ".."):
        return target, own_name
    return str(path.parent), path.name


def copy_out(source: str, target: str, inside: SandboxFiles, *, max_size: int | None = None) -> CopyReport:
    """Copy `source` inside to `target` on this machine, like `cp -r` without `-p`; missing parents are made. Symbolic
    links are left out on purpose; devices, sockets, pipes and what could not be read there make the copy partial.

    The archive is untrusted: only regular files and directories are taken, never a name that leaves the target, and
    never through a symbolic link. It is unpacked as it comes, with its holes, and put in place when it is complete:
    nothing is left of one that is refused. `max_size` is what it may take on this disk.

    Raises NotFound, Invalid, Denied, Unavailable."""
    with _disk(source):
        if inside.kind(source) == "absent":
            raise NotFound(f"there is no {source!r} in the sandbox", hint="paths without / start at the workspace")
        # an adapter knows a path by its last name, which `x/..` has none of
        path = posixpath.normpath(source) if _means_contents(source) else source
        name = "" if _means_contents(source) else PurePosixPath(source).name
        place = Path(target) / name if name and (Path(target).is_dir() or target.endswith("/")) else Path(target)
        with (
            _landing_at(place, contents=not name and place.is_dir()) as landing,
            staging_directory(landing.fd, max_size, shown=place if landing.name is None else place.parent) as stage,
        ):
            not_sent = _receive(inside, path, stage, limit=max(MAX_STREAM, max_size or 0))
            if stage.taken == 0:
                raise _neither(f"{source!r} in the sandbox")
            landing.settle(stage)
            return CopyReport(
                left_out=stage.left_out + not_sent.count,
                said=(*not_sent.said, *stage.said)[:NAMED],
                partial=stage.left_out + not_sent.count > stage.links,
            )


def _receive(inside: SandboxFiles, path: str, stage: StagingDirectory, *, limit: int) -> LeftOut:
    """Unpack what the sandbox sends while it sends it: the sender works in this thread, where interrupts arrive. What
    it could not pack."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    failed: list[BaseException] = []
    sent = 0

    def unpack() -> None:
        try:
            with open(reading, "rb", buffering=0) as pipe:
                stage.unpack(lambda size: pipe.read(size) or b"")
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that waits
            failed.append(error)

    def send(data: bytes) -> None:
        nonlocal sent
        sent += len(data)
        if sent > limit:
            raise Denied(f"the sandbox sent more than {limit >> 30} GiB", hint="copy a part of it")
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(writing, view) :]
        except BrokenPipeError:
            thread.join()
            raise failed[0] from None

    thread = threading.Thread(target=unpack, name="sandboxer-unpack", daemon=True)
    with suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE)
    thread.start()
    try:
        not_sent = inside.take(path, send)
    finally:
        os.close(writing)
        thread.join()
    if failed:
        raise failed[0]
    return not_sent


@contextmanager
def _landing_at(place: Path, *, contents: bool) -> Iterator[CopyDestination]:
    """Where a copy goes, its missing parents made; those go again when it comes to nothing."""
    contents = contents or place.name in ("", "..") or str(place) == "."
    made: list[Path] = []
    try:
        folder = place if contents else place.parent
        _make(folder, made)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield CopyDestination(fd, None if contents else place.name, place)
        finally:
            os.close(fd)
    except BaseException:
        for one in reversed(made):
            with suppress(OSError):
                one.rmdir()
        raise


def _make(folder: Path, made: list[Path]) -> None:
    if folder.is_dir():
        return
    if folder.parent != folder:
        _make(folder.parent, made)
    with suppress(FileExistsError):
        folder.mkdir()
        made.append(folder)
