"""Write a tree as a tar stream: hard links as links, holes as holes, whatever happens to its files meanwhile.

Python's tarfile stops in the middle of an archive when a file is shorter than it was, knows no hard links of files that
it is given by descriptor, and writes no holes (it reads GNU's sparse 1.0, which is what is written here).
"""

from __future__ import annotations

import copy
import errno
import io
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandboxer.hosts.base import Progress
from sandboxer.hosts.trees import beneath
from sandboxer.hosts.trees.progress import ByteProgress
from sandboxer.hosts.trees.walk import TreeEntry, TreeWalk
from sandboxer.timing import Deadline

if TYPE_CHECKING:
    import tarfile

Extents = Sequence[tuple[int, int]]
"""Offset and length of each piece of a file that holds something."""

MIN_HOLES: Final = 64 << 10
"""A file with fewer bytes of holes is sent whole."""
MAX_EXTENTS: Final = 16_384
"""The most pieces that one file is sent in; holes between more are sent as zeros, the smallest first."""
_BUFFER: Final = 256 << 10
_BLOCK: Final = 512
_OWNER: Final = 0o700


@dataclass(frozen=True, slots=True)
class TarSummary:
    """What a tar stream holds: regular files, bytes, how many entries went away and how many files changed while it was
    written, how many bytes of holes were sent as zeros, and what `TreeWalk.note` says."""

    files: int
    sent_bytes: int
    gone: int
    changed: int = 0
    zeros: int = 0
    special: str | None = None


def write_tar(
    source: Path,
    sink: Callable[[bytes], object],
    *,
    exclude: Sequence[str] = (),
    gitignore: bool = False,
    only: frozenset[str] | None = None,
    holes: bool = False,
    progress: Progress | None = None,
    deadline: Deadline | None = None,
) -> TarSummary:
    """Write the tree below `source` as a tar stream: contents, modes, links, hard links, times; no owners.

    It is opened once and read by descriptor, so nothing that is swapped meanwhile leads out of it. `exclude` as in
    `Host.sync`; .gitignore files are honoured as git reads them. `only` are the names to send, with the directories
    that they are in. With `holes`, those of files are left out, which GNU's tar and bsdtar understand.
    Raises OSError, whose filename is a name in the tree, for what cannot be read."""
    import tarfile

    out = _Counted(sink, progress)
    walk = TreeWalk(exclude, gitignore, deadline=deadline, name=beneath.name_of(source))
    above = None if only is None else {parent for name in only for parent in _parents(name)}
    with (
        beneath.directory(source) as top,
        tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BUFFER) as archive,
    ):
        writer = TarWriter(archive, holes=holes)
        for entry in walk.entries(top):
            if only is not None and above is not None and entry.relative not in only | above:
                continue
            if not writer.add(entry, name=entry.relative):
                walk.gone += 1
        writer.close_directories()
    return TarSummary(
        files=writer.files,
        sent_bytes=out.count,
        gone=walk.gone,
        changed=len(writer.changed),
        zeros=writer.zeros,
        special=walk.note,
    )


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


class TarWriter:
    """Adds what a walk finds to an archive, with modes and times and nobody's owner.

    `files` counts regular files; `changed` names those that were longer, shorter or written to by the time they had
    been read (where one ended early, the archive holds zeros). `zeros` are bytes of holes that were sent as such: all
    of them unless `holes` says that the reader knows holes, which is asked when the first one comes."""

    def __init__(self, archive: tarfile.TarFile, *, holes: bool | Callable[[], bool] = False) -> None:
        archive.copybufsize = _BUFFER  # type: ignore[attr-defined]  # 16 KiB by default; typeshed lacks it
        self._archive, self._holes = archive, holes
        self._names: dict[tuple[int, int], str] = {}
        self._closed: list[tarfile.TarInfo] = []
        self.files = self.zeros = 0
        self.changed: list[str] = []

    def add(self, entry: TreeEntry, *, name: str) -> bool:
        """Add an entry under a name; False when it is no longer there."""
        import tarfile

        info = tarfile.TarInfo(name)
        if entry.kind == stat.S_IFDIR:
            info.type = tarfile.DIRTYPE
            self._add_directory(_described(info, entry.status))
        elif entry.kind == stat.S_IFLNK:
            target = entry.target()
            if target is None:
                return False
            info.type, info.linkname = tarfile.SYMTYPE, target
            self._archive.addfile(_described(info, entry.status))
        else:
            fd = entry.open()
            if fd is None:
                return False
            try:
                self.add_file(fd, name=name)
            except OSError as error:
                if error.errno in (errno.EPIPE, None):
                    raise  # of the archive
                raise OSError(error.errno, error.strerror, entry.relative) from error
            finally:
                os.close(fd)
        return True

    def _add_directory(self, info: tarfile.TarInfo) -> None:
        """Open for its owner: what unpacks without the rights of root sets modes before it has come to the contents."""
        if info.mode & _OWNER != _OWNER:
            closed = copy.copy(info)
            closed.pax_headers = {}
            self._closed.append(closed)
            info.mode |= _OWNER
        self._archive.addfile(info)

    def close_directories(self) -> None:
        """Say once more what directories are not open for their owner, now that all is in them, the deepest first."""
        for info in reversed(self._closed):
            self._archive.addfile(info)
        self._closed.clear()

    def _knows_holes(self) -> bool:
        if not isinstance(self._holes, bool):
            self._holes = self._holes()
        return self._holes

    def add_file(self, fd: int, *, name: str) -> None:
        """Add an open regular file under a name."""
        import tarfile

        status = os.fstat(fd)
        info = _described(tarfile.TarInfo(name), status)
        self.files += 1
        first = self._names.setdefault((status.st_dev, status.st_ino), info.name) if status.st_nlink > 1 else info.name
        if first != info.name:
            info.type, info.linkname = tarfile.LNKTYPE, first
            self._archive.addfile(info)
            return
        extents: Extents = ((0, status.st_size),)
        head = b""
        holes = status.st_size - 512 * status.st_blocks
        if holes >= MIN_HOLES:
            found = data_extents(fd, status.st_size)
            holes = status.st_size - sum(length for _, length in found)
            if holes >= MIN_HOLES and self._knows_holes():
                extents, head = found, _describe_holes(info, found, size=status.st_size)
            else:
                self.zeros += holes
        info.size = len(head) + sum(length for _, length in extents)
        contents = _Contents(fd, head, extents)
        self._archive.addfile(info, contents)  # type: ignore[arg-type]  # it only ever calls `read`
        after = os.fstat(fd)
        if contents.cut or (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            self.changed.append(name)


def data_extents(fd: int, size: int) -> Extents:
    """Where a file of this size holds data, as its file system tells (SEEK_DATA); all of it where none can."""
    found: list[tuple[int, int]] = []
    at, gap = 0, 4096
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but holes from here on
                break
            if error.errno == errno.EINVAL:
                return ((0, size),)
            raise
        if start >= size:
            break
        found.append((start, end - start))
        at = end
        while len(found) > MAX_EXTENTS:
            gap *= 4
            found = _joined(found, gap)
    return found


def _joined(extents: Extents, gap: int) -> list[tuple[int, int]]:
    """The same, with holes of less than `gap` bytes taken for data."""
    joined: list[tuple[int, int]] = []
    for start, length in extents:
        if joined and start - sum(joined[-1]) < gap:
            joined[-1] = (joined[-1][0], start + length - joined[-1][0])
        else:
            joined.append((start, length))
    return joined


def _describe_holes(info: tarfile.TarInfo, extents: Extents, *, size: int) -> bytes:
    """Make an entry one of GNU's sparse 1.0; the map that its contents begin with."""
    directory, _, base = info.name.rpartition("/")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": info.name,
        "GNU.sparse.realsize": str(size),
    }
    info.name = f"{directory or '.'}/GNUSparseFile.0/{base}"
    # a hole at the end is told by an empty piece behind it
    pieces = [*extents, (size, 0)] if not extents or sum(extents[-1]) < size else extents
    text = "".join(f"{number}\n" for number in (len(pieces), *(number for piece in pieces for number in piece)))
    return text.encode() + bytes(-len(text) % _BLOCK)


class _Contents:
    """What an archive holds of a file: `head`, then its pieces, to the announced length whatever became of the file."""

    def __init__(self, fd: int, head: bytes, extents: Extents) -> None:
        self._fd, self._head = fd, head
        self._pieces = list(reversed(extents))
        self.cut = False

    def read(self, size: int) -> bytes:
        """So many bytes, fewer only at the end."""
        out, self._head = self._head[:size], self._head[size:]
        while len(out) < size and self._pieces:
            start, length = self._pieces.pop()
            wanted = min(size - len(out), length)
            data = b"" if self.cut else os.pread(self._fd, wanted, start)
            if not data and wanted:
                self.cut, data = True, bytes(wanted)
            if len(data) < length:
                self._pieces.append((start + len(data), length - len(data)))
            out = out + data if out else data
        return out


class _Counted(io.RawIOBase):
    """Passes bytes on to a sink and tells how many there were."""

    def __init__(self, sink: Callable[[bytes], object], progress: Progress | None) -> None:
        self._sink, self._progress = sink, ByteProgress(progress)
        self.count = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raw = bytes(data)  # type: ignore[call-overload]
        self._sink(raw)
        self.count += len(raw)
        self._progress.tell(self.count)
        return len(raw)


def _described(info: tarfile.TarInfo, status: os.stat_result) -> tarfile.TarInfo:
    info.mode = stat.S_IMODE(status.st_mode)
    info.mtime = status.st_mtime
    return info
