"""Extract what came out of a sandbox into a directory of our own beside the target, from where it is put in place.

The archive is untrusted: regular files and directories only, none of a name that leaves it, counted, and bounded by
what it takes on the disk. When it is refused, nothing of it is left, and the target is as it was."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sandboxer.errors import Denied, Invalid
from sandboxer.hosts.trees import beneath
from sandboxer.hosts.trees.tar_reader import BrokenArchive, Kind, TarMember, TarReader

MAX_ENTRIES: Final = 1_000_000
MAX_DEPTH: Final = 200
DEFAULT_SIZE: Final = 8 << 30
"""What one copy may take on the disk unless `--max-size` says otherwise; never more than half of what is free."""
_UNIT: Final = 4096
_ZEROS: Final = bytes(64 << 10)
TOP: Final = "top"
"""The name of the top entry in a stage."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY
_NAMED: Final = 20
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
_UNWANTED: Final[Mapping[Kind, str]] = {
    "symlink": "a symbolic link",
    "device": "a device",
    "pipe": "a pipe",
    "other": "of a kind that is not known",
}

Parts = tuple[str, ...]


@dataclass(slots=True)
class ExtractLimits:
    """What a copy may still take: entries, and bytes as they lie on the disk. `why` says where the limit comes from."""

    limit: int
    why: str
    entries: int = MAX_ENTRIES
    taken: int = 0

    def entry(self) -> None:
        """One more file or directory."""
        self.entries -= 1
        if self.entries < 0:
            raise Denied(f"the copy is over the limit of {MAX_ENTRIES} entries", hint="copy a part of it")

    def take(self, size: int) -> None:
        """So many bytes more; raises Denied over the limit."""
        self.taken += -(-size // _UNIT) * _UNIT
        if self.taken > self.limit:
            raise Denied(
                f"the copy is over the limit of {self.limit} bytes: {self.why}",
                hint="allow more with --max-size, free some space, or copy a part of it",
            )


def extract_limits(free: int, asked: int | None) -> ExtractLimits:
    """What a copy may take where so many bytes are free."""
    if asked is not None:
        return ExtractLimits(asked, "--max-size") if asked <= free else ExtractLimits(free, "no more is free there")
    if free // 2 < DEFAULT_SIZE:
        return ExtractLimits(free // 2, "half of what is free there")
    return ExtractLimits(DEFAULT_SIZE, "the default of --max-size")


@dataclass(slots=True)
class StagingDirectory:
    """A directory that only we may enter, into which an archive is unpacked by descriptor.

    `left_out` counts what is neither file nor directory, `links` the symbolic links among that; `said` names some."""

    fd: int
    budget: ExtractLimits
    top: str | None = None
    taken: int = 0
    left_out: int = 0
    links: int = 0
    said: list[str] = field(default_factory=list)
    _files: set[Parts] = field(default_factory=set)
    _symbolic: set[Parts] = field(default_factory=set)
    _last: tuple[Parts, int] | None = None

    def unpack(self, read: Callable[[int], bytes]) -> None:
        """Take all of an archive with one top entry. Raises Invalid, Denied, OSError."""
        reader = TarReader(read)
        try:
            for member in reader.members():
                self.budget.entry()
                if self._take(member, reader):
                    self.taken += 1
                else:
                    self.left_out += 1
            reader.drain()
        except BrokenArchive as error:
            raise Invalid(f"the sandbox sent a broken archive: {error}", hint="copy it again") from error
        finally:
            self._forget()

    def _take(self, member: TarMember, reader: TarReader) -> bool:
        parts = self._placed(member.name)
        if member.kind == "directory":
            self._directory(parts, mode=member.mode)
            return True
        if member.kind == "link":
            source = _parts(member.linkname)
            if source in self._symbolic:
                return self._leave(parts, _UNWANTED["symlink"])
            if source not in self._files or source == parts:
                return self._leave(parts, "a hard link to what was not sent")
            self._link(source, parts)
        elif member.kind == "file":
            self._file(parts, reader.contents(), mode=member.mode, size=member.size)
        else:  # links and devices of an untrusted tree are not wanted here
            return self._leave(parts, _UNWANTED[member.kind])
        self._files.add(parts)
        return True

    def _leave(self, parts: Parts, what: str) -> bool:
        if what == _UNWANTED["symlink"]:
            self._symbolic.add(parts)
            self.links += 1
        if len(self.said) < _NAMED:
            self.said.append(f"{'/'.join(parts)}: {what}")
        return False

    def _link(self, source: Parts, parts: Parts) -> None:
        """One file under two names; two files where the disk has no such thing."""
        at, name = (self._parent(parts), parts[-1]) if parts[1:] else (self.fd, TOP)
        sent = beneath.open_at(self.fd, "/".join((TOP, *source[1:])), os.O_PATH)
        try:
            self._clear(at, name, parts)
            os.link(f"/proc/self/fd/{sent}", name, dst_dir_fd=at, follow_symlinks=True)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._copy(source, parts)
        finally:
            os.close(sent)

    def _copy(self, source: Parts, parts: Parts) -> None:
        with open(beneath.open_at(self.fd, "/".join((TOP, *source[1:]))), "rb") as file:
            self._file(parts, _pieces(file.fileno()), mode=os.fstat(file.fileno()).st_mode, size=0)

    def _placed(self, name: str) -> Parts:
        parts = _parts(name)
        self.top = parts[0] if self.top is None and parts else self.top
        if parts and parts[0] != self.top:
            raise Invalid("the archive has more than one top entry", hint="copy one path at a time")
        return parts

    def _directory(self, parts: Parts, *, mode: int) -> None:
        if not parts[1:]:
            with suppress(FileExistsError):
                os.mkdir(TOP, mode & 0o777 | 0o700, dir_fd=self.fd)
                self.budget.take(_UNIT)
            os.close(self._opened(self.fd, TOP, parts))
            return
        at = self._parent(parts)
        with suppress(FileExistsError):
            os.mkdir(parts[-1], mode & 0o777 | 0o700, dir_fd=at)
            self.budget.take(_UNIT)
        os.close(self._opened(at, parts[-1], parts))

    def _parent(self, parts: Parts) -> int:
        """The directory that `parts` is in, made when it is missing; open until another one is asked for."""
        wanted = parts[1:-1]
        if self._last is not None and self._last[0] == wanted:
            return self._last[1]
        self._forget()
        at = os.dup(self.fd)
        for name in (TOP, *wanted):
            try:
                os.mkdir(name, 0o777, dir_fd=at)
                self.budget.take(_UNIT)
            except FileExistsError:
                pass
            except BaseException:
                os.close(at)
                raise
            try:
                after = self._opened(at, name, parts)
            finally:
                os.close(at)
            at = after
        self._last = (wanted, at)
        return at

    def _opened(self, at: int, name: str, parts: Parts) -> int:
        try:
            return beneath.open_at(at, name, _DIRECTORY)
        except NotADirectoryError:
            raise Invalid(
                f"the archive has {'/'.join(parts)[:200]!r} as a file and as a directory", hint="copy it again"
            ) from None

    def _forget(self) -> None:
        if self._last is not None:
            os.close(self._last[1])
            self._last = None

    def _file(self, parts: Parts, pieces: Iterator[tuple[int, bytes]], *, mode: int, size: int) -> None:
        at, name = (self._parent(parts), parts[-1]) if parts[1:] else (self.fd, TOP)
        self._clear(at, name, parts)
        # created with the mode itself: the kernel takes our umask off, as for `cp`
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode & 0o777, dir_fd=at)
        try:
            end = size
            for offset, data in pieces:
                self._write(fd, offset, data)
                end = max(end, offset + len(data))
            os.ftruncate(fd, end)
        finally:
            os.close(fd)

    def _clear(self, at: int, name: str, parts: Parts) -> None:
        try:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=at)
        except (IsADirectoryError, PermissionError):
            raise Invalid(
                f"the archive has {'/'.join(parts)[:200]!r} as a file and as a directory", hint="copy it again"
            ) from None

    def _write(self, fd: int, offset: int, data: bytes) -> None:
        """Write the blocks that hold something: zeros stay holes, whatever packed them."""
        if data == _ZEROS[: len(data)]:
            return
        view, start = memoryview(data), 0
        for at in range(0, len(data), _UNIT):
            block = view[at : at + _UNIT]
            if block == _ZEROS[: len(block)]:
                self._put(fd, offset + start, view[start:at])
                start = at + len(block)
        self._put(fd, offset + start, view[start:])

    def _put(self, fd: int, offset: int, data: memoryview) -> None:
        if not data:
            return
        self.budget.take(len(data))
        written = 0
        while written < len(data):
            written += os.pwrite(fd, data[written:], offset + written)


def _pieces(fd: int) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while data := os.pread(fd, len(_ZEROS), offset):
        yield offset, data
        offset += len(data)


def _parts(name: str) -> Parts:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or "\x00" in name:
        raise Invalid(f"the archive holds a name that leaves it: {name[:200]!r}", hint="nothing was written there")
    if len(parts) > MAX_DEPTH:
        raise Invalid(f"the archive is more than {MAX_DEPTH} directories deep", hint="copy a part of it")
    return parts


@contextmanager
def staging_directory(directory: int, asked: int | None, *, shown: Path) -> Iterator[StagingDirectory]:
    """A stage in an open directory, so that what is in it is only renamed at the end. It goes in every case.
    Errors call the directory `shown`."""
    name = f".sandboxer-cp-{os.urandom(6).hex()}"
    try:
        os.mkdir(name, 0o700, dir_fd=directory)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(shown)) from None  # the stage's name says nothing to anybody
    try:
        fd = beneath.open_at(directory, name, _DIRECTORY)
        try:
            free = os.fstatvfs(fd)
            yield StagingDirectory(fd, extract_limits(free.f_bavail * free.f_frsize, asked))
        finally:
            os.close(fd)
    finally:
        shutil.rmtree(name, ignore_errors=True, dir_fd=directory)
