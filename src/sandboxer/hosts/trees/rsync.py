"""Copying a tree: the words of rsync, the reading of what it says, and a tar stream where rsync is missing."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandboxer.errors import BackendError, Invalid
from sandboxer.hosts.base import Progress, SyncReport
from sandboxer.timing import Deadline

if TYPE_CHECKING:
    import tarfile

    from sandboxer.hosts.trees.walk import TreeEntry

# contents, links as links, modes, times. No owners, devices or special files. `-s` keeps names out of the remote
# shell's hands; plain digits and LC_ALL=C make the figures readable.
_OPTIONS: Final = ("-s", "--no-h", "--stats", "--info=progress2", "--outbuf=L")
_WHOLE: Final = ("-rlpt", *_OPTIONS)
# the names on stdin and nothing below them; one that is gone by the time it is sent was not there
_LISTED: Final = ("-dlpt", *_OPTIONS, "--files-from=-", "--from0", "--ignore-missing-args")
VANISHED: Final = 24
"""rsync's exit code when files went away while they were copied: the rest is there (rsync(1))."""
_BUFFER: Final = 256 << 10
GONE: Final = "some files went away while they were copied"
_FILES = re.compile(rb"Number of regular files transferred: (\d{1,18})")
_SENT = re.compile(rb"Total bytes sent: (\d{1,18})")
_LONGEST_LINE: Final = 16384
_PROGRESS = re.compile(rb"^\s{0,80}(\d[\d,]{0,24})\s{1,8}\d{1,3}%")


def rsync_argv(
    source: Path, target: str, *, exclude: Sequence[str] = (), listed: bool = False, rsh: str | None = None
) -> list[str]:
    """The words of rsync from the tree below `source` into `target`; with `rsh`, into that directory at the other end
    of that program. `listed`: only what stdin names (see `listing`). Raises Invalid where a path cannot be given to
    rsync."""
    check_patterns(exclude)
    words = ["rsync", *(_LISTED if listed else _WHOLE)]
    words += [f"--exclude={pattern}" for pattern in exclude]
    destination = _as_directory(target)
    if rsh is not None:
        words += ["-e", rsh]
        destination = f"sbx:{destination}"
    return [*words, "--", _as_directory(str(source.absolute())), destination]


def listing(source: Path, *, exclude: Sequence[str] = (), deadline: Deadline | None = None) -> bytes:
    """The names below `source` that its .gitignore files do not leave out, each with a NUL behind it: for rsync, whose
    own reading of such files knows no `!` and anchors differently. Raises BackendError for what cannot be read, Invalid
    for more than can be read, Timeout at the deadline."""
    from sandboxer.hosts.trees import beneath
    from sandboxer.hosts.trees.walk import TreeWalk

    check_patterns(exclude)
    try:
        with beneath.directory(source) as top:
            walk = TreeWalk(exclude, gitignore=True, deadline=deadline, name=beneath.name_of(source))
            names = [entry.relative for entry in walk.entries(top)]
    except OSError as error:
        raise unreadable(error, source) from error
    # without the top, `.`: rsync would take all that lies in it
    return b"".join(os.fsencode(name) + b"\0" for name in names[1:])


def unreadable(error: OSError, source: Path) -> BackendError:
    """Something of the tree cannot be read here."""
    return BackendError(
        f"{source} could not be read: {error.strerror} ({error.filename})", hint="make it readable, or exclude it"
    )


def check_patterns(exclude: Sequence[str]) -> None:
    """Raise Invalid for a pattern that rsync would read as something else."""
    for pattern in exclude:
        if not pattern or "\0" in pattern or "\n" in pattern:
            raise Invalid(f"exclude pattern {pattern[:80]!r} is not allowed", hint="use anchored patterns like /.git")


def _as_directory(path: str) -> str:
    if not path.startswith("/"):
        raise Invalid(f"the path {path[:80]!r} is not absolute", hint="give an absolute path")
    return path if path.endswith("/") else f"{path}/"


@dataclass(slots=True)
class RsyncOutput:
    """Reads rsync's stdout as it comes, telling progress in bytes."""

    progress: Progress | None = None
    _rest: bytes = b""
    _text: bytes = b""
    _told: str = ""

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        *lines, rest = re.split(rb"[\r\n]", self._rest + data)
        # rsync at the other end belongs to others: its line may never end
        self._rest = rest[-_LONGEST_LINE:]
        for line in lines:
            if (match := _PROGRESS.match(line)) is not None:
                self._tell(int(match[1].replace(b",", b"")))
            elif line:
                self._text = (self._text + line + b"\n")[-_LONGEST_LINE:]

    def _tell(self, count: int) -> None:
        text = format_bytes(count)
        if self.progress is not None and text != self._told:
            self._told = text
            self.progress(text)

    def report(self, notes: Sequence[str] = ()) -> SyncReport:
        """What its statistics say."""
        text = self._text + self._rest
        files, sent = _FILES.search(text), _SENT.search(text)
        return SyncReport(
            method="rsync",
            files=int(files[1]) if files else 0,
            sent_bytes=int(sent[1]) if sent else 0,
            notes=tuple(notes),
        )


def format_bytes(count: float) -> str:
    """`12345678` as `12.3 MB` (powers of ten)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def rsync_notes(code: int, complaint: str) -> tuple[str, ...]:
    """What to tell of an rsync that copied the tree; raises BackendError for one that did not."""
    if code == 0:
        return ()
    if code == VANISHED:
        return (GONE,)
    raise BackendError(
        f"rsync ended with {code}: {complaint}",
        hint="look at the path it names: is it readable here, and is there room on the host?",
    )


@dataclass(frozen=True, slots=True)
class TarSummary:
    """What a tar stream holds: files, bytes, and how much went away while it was written."""

    files: int
    sent_bytes: int
    gone: int


def write_tar(
    source: Path,
    sink: Callable[[bytes], object],
    *,
    exclude: Sequence[str] = (),
    gitignore: bool = False,
    progress: Progress | None = None,
    deadline: Deadline | None = None,
) -> TarSummary:
    """The tree below `source` as a tar stream: contents, modes, links, times; no owners, and hard links as files.

    It is opened once and read by descriptor, so nothing that is swapped meanwhile leads out of it. `exclude` as in
    `Host.sync`; .gitignore files are honoured as git reads them."""
    import io
    import tarfile

    from sandboxer.hosts.trees import beneath
    from sandboxer.hosts.trees.walk import TreeWalk

    check_patterns(exclude)

    class Out(io.RawIOBase):
        count = 0
        told = ""

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            raw = bytes(data)  # type: ignore[call-overload]
            sink(raw)
            self.count += len(raw)
            text = format_bytes(self.count)
            if progress is not None and text != self.told:
                self.told = text
                progress(text)
            return len(raw)

    files = 0
    out = Out()
    walk = TreeWalk(exclude, gitignore, deadline=deadline, name=beneath.name_of(source))
    with (
        beneath.directory(source) as top,
        tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BUFFER) as archive,
    ):
        archive.copybufsize = _BUFFER  # type: ignore[attr-defined]  # 16 KiB by default; typeshed lacks it
        for entry in walk.entries(top):
            if add_entry(archive, entry, name=entry.relative):
                files += stat.S_ISREG(entry.status.st_mode)
            else:
                walk.gone += 1
    return TarSummary(files=files, sent_bytes=out.count, gone=walk.gone)


def add_entry(archive: tarfile.TarFile, entry: TreeEntry, *, name: str) -> bool:
    """Add what was found to an archive under a name, with its mode and time and nobody's owner; False when it is no
    longer there."""
    import tarfile

    info = tarfile.TarInfo(name)
    if entry.kind == stat.S_IFDIR:
        info.type = tarfile.DIRTYPE
        archive.addfile(_described(info, entry.status))
    elif entry.kind == stat.S_IFLNK:
        target = entry.target()
        if target is None:
            return False
        info.type, info.linkname = tarfile.SYMTYPE, target
        archive.addfile(_described(info, entry.status))
    else:
        fd = entry.open()
        if fd is None:
            return False
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            info.size = status.st_size
            archive.addfile(_described(info, status), file)
    return True


def _described(info: tarfile.TarInfo, status: os.stat_result) -> tarfile.TarInfo:
    info.mode = stat.S_IMODE(status.st_mode)
    info.mtime = status.st_mtime
    return info
