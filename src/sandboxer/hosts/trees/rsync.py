"""Write the words of rsync and read what it says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sandboxer.errors import BackendError, Invalid
from sandboxer.hosts.base import Progress, SyncReport
from sandboxer.hosts.process.capture import Tail
from sandboxer.hosts.trees.progress import ByteProgress

# contents, links as links, hard links, holes, modes, times. No owners, devices or special files. `-s` keeps names out
# of the remote shell's hands; plain digits and LC_ALL=C make the figures readable.
_OPTIONS: Final = ("-s", "--no-h", "--stats", "--info=progress2", "--outbuf=L")
_WHOLE: Final = ("-rlptHS", *_OPTIONS)
# the names on stdin and nothing below them; one that is gone by the time it is sent was not there
_LISTED: Final = ("-dlptHS", *_OPTIONS, "--files-from=-", "--from0", "--ignore-missing-args")
_PARTIAL: Final = 23
"""rsync's exit code when it complained of some files (rsync(1))."""
_VANISHED: Final = 24
"""The same when nothing is worse than that files went away: the rest is there."""
GONE: Final = "some files went away while they were copied"
CHANGED: Final = "some files were written to while they were copied: what arrived may be of no single moment"
_CUT = re.compile(
    rb'rsync: (?:\[sender\] )?read errors mapping ".*": No data available \(61\)'
    rb"|WARNING: .* failed verification -- update discarded \(will try again\)\."
    rb"|rsync error: some files/attrs were not transferred .*"
)
"""What it says of a file that became shorter, which it then sends again."""
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


def listing(names: Iterable[str]) -> bytes:
    """The names of a tree, each with a NUL behind it, as `listed` rsync reads them."""
    # without the top, `.`: rsync would take all that lies in it
    return b"".join(os.fsencode(name) + b"\0" for name in names if name != ".")


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
    _told: ByteProgress = field(init=False)

    def __post_init__(self) -> None:
        self._told = ByteProgress(self.progress)

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        *lines, rest = re.split(rb"[\r\n]", self._rest + data)
        # rsync at the other end belongs to others: its line may never end
        self._rest = rest[-_LONGEST_LINE:]
        for line in lines:
            if (match := _PROGRESS.match(line)) is not None:
                self._told.tell(int(match[1].replace(b",", b"")))
            elif line:
                self._text = (self._text + line + b"\n")[-_LONGEST_LINE:]

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


class RsyncComplaints(Tail):
    """Reads rsync's stderr as it comes. `worse`: something else than a file that became shorter."""

    def __init__(self) -> None:
        super().__init__()
        self.worse = False
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        super().feed(data)
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-_LONGEST_LINE:]
        self.worse = self.worse or any(line and _CUT.fullmatch(line) is None for line in lines)


def rsync_notes(code: int, complaints: RsyncComplaints) -> tuple[str, ...]:
    """What to tell of an rsync that copied the tree; raises BackendError for one that did not."""
    if code == 0:
        return ()
    if code == _VANISHED:
        return (GONE,)
    if code == _PARTIAL and not complaints.worse:
        return (CHANGED,)
    raise BackendError(
        f"rsync ended with {code}: {complaints.text}",
        hint="look at the path it names: is it readable here, and is there room on the host?",
    )
