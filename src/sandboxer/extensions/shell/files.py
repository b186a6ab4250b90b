"""Look at, pack and unpack paths inside a sandbox by its shell and tar: whatever an archive says, it stays there."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from typing import BinaryIO, Final, Protocol

from sandboxer.errors import BackendError, Invalid, NotFound
from sandboxer.extensions.base import LeftOut, PathKind
from sandboxer.hosts.base import Result, Sink

ABSENT: Final = 44
"""What the scripts exit with when there is no such path."""
REFUSED: Final = 45
"""The same for a path that is there and is not packed; why is on stderr."""
NO_TAR: Final = 46

_TAR: Final = f"command -v tar >/dev/null 2>&1 || exit {NO_TAR}; "

KIND: Final = (
    'if [ -d "$1" ]; then echo directory; elif [ -e "$1" ] || [ -L "$1" ]; then echo file; else echo absent; fi'
)
"""PATH: directory, file (anything else, also a link to nothing) or absent."""

KNOWS_HOLES: Final = 'case $(tar --version 2>/dev/null) in *"GNU tar"* | *bsdtar*) exit 0 ;; *) exit 1 ;; esac'
"""0 when tar is GNU's or bsdtar."""

_UNPACK: Final = 'mkdir -p -- "$1" && cd -- "$1" && '
UNPACK: Final = _TAR + _UNPACK + "exec tar -x -p -o -f -"
"""DIRECTORY: make it, and unpack the archive on stdin there: with its modes, without its owners."""
UNPACK_FILE: Final = (
    f'command -v tar >/dev/null 2>&1 || {{ rm -f -- "$2"; exit {NO_TAR}; }}; {_UNPACK}tar -x -p -o -f "$2"; '
    'code=$?; rm -f -- "$2"; exit $code'
)
"""DIRECTORY ARCHIVE: the same from a file of ours (an absolute path), which is removed."""

# A link is followed when it is what was asked for, as `cp` does; those below it are not: one to / leads in circles.
# A directory that was reached by a link, or by `.` or `..`, is packed from the directory above it, under its own name.
# Holes are sent as such where tar can: GNU's has to be told, bsdtar does it by itself, busybox's cannot.
_ENTRY: Final = (
    f'{_TAR}cd -- "$1" 2>/dev/null || exit {ABSENT}; [ -e "$2" ] || [ -L "$2" ] || exit {ABSENT}; '
    'name=$2 follow= link=; case $2 in . | ..) link=yes ;; *) [ ! -L "$2" ] || link=yes ;; esac; '
    'if [ -n "$link" ] && [ -d "$2" ]; then '
    f'cd -P -- "./$2" && name=${{PWD##*/}} && cd .. || exit {REFUSED}; '
    f'[ -n "$name" ] || {{ echo "it leads to /, which cannot be copied as a whole" >&2; exit {REFUSED}; }}; '
    'elif [ -n "$link" ]; then follow=-h; fi; '
    f'[ -e "$name" ] || {{ echo "it is a link to nothing" >&2; exit {REFUSED}; }}; '
    # opened, not asked for: busybox takes root's rights for granted. Anything but a file might wait, or do something
    f'if [ -f "$name" ]; then {{ true <"$name"; }} 2>/dev/null; else [ -r "$name" ]; fi || '
    f'{{ echo "permission denied" >&2; exit {REFUSED}; }}; '
    'case $(tar --version 2>/dev/null) in *"GNU tar"*) follow="$follow -S" ;; esac; '
    "export LC_ALL=C.UTF-8 LANGUAGE=; "  # what it says is counted
)
PACK: Final = _ENTRY + 'exec tar -c $follow -f - -- "$name"'
"""DIRECTORY NAME: pack that entry, under its own name, to stdout."""
PACK_FILE: Final = _ENTRY + f'(umask 077; : >"$3") || exit {REFUSED}; exec tar -c $follow -f "$3" -- "$name"'
"""DIRECTORY NAME ARCHIVE: the same to a file of ours (an absolute path), which only its user can read."""

PACK_WHOLE: Final = (
    f'{_TAR}cd -- "$1" 2>/dev/null || exit {ABSENT}; export LC_ALL=C.UTF-8 LANGUAGE=; '
    'case $(tar --version 2>/dev/null) in *"GNU tar"*) set -- -S --sort=name --format=posix '
    "--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f ;; *) set -- ;; esac; "
    'exec tar -c "$@" -f - .'
)
"""DIRECTORY: pack all that is in it, and itself as `.`, to stdout. Two of an unchanged tree are alike byte for byte, as
far as tar can: in the order of names, and without what reading or a process id leaves in the headers of pax (GNU's
writes its id beside a file with holes all the same)."""

_SHELL: Final = ("/bin/sh", "-c")
_KINDS: Final[dict[str, PathKind]] = {"file": "file", "directory": "directory", "absent": "absent"}
_UNREADABLE: Final = "is it readable for the sandbox's user?"
_KEPT: Final = 20
_LONGEST: Final = 4096
_DELAYED: Final = re.compile(rb"failure status due to previous errors|[Ee]rror exit delayed from previous errors")
"""What GNU's, busybox's and bsdtar say last when the archive is whole but for what they could not read."""
_HARMLESS: Final = re.compile(
    rb": (file changed as we read it|File removed before we read it|Removing leading .*|implausibly old time stamp .*)$"
)


class Run(Protocol):
    """Runs words inside, as the sandbox's user, where commands start. A sink that is given gets that stream as it
    comes; otherwise the result keeps its first 64 KiB."""

    def __call__(
        self,
        words: Sequence[str],
        *,
        stdin: BinaryIO | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
    ) -> Result: ...


def path_kind(run: Run, path: str) -> PathKind:
    """What is at a path inside. Raises Invalid, BackendError."""
    done = run([*_SHELL, KIND, "sh", guarded(path)])
    if done.code != 0 or done.text not in _KINDS:
        raise BackendError(f"{path!r} could not be looked at: {done.complaint}", hint="try `sandboxer exec ID -- ls`")
    return _KINDS[done.text]


def knows_holes(run: Run) -> bool:
    """Whether tar inside understands GNU's sparse files; others unpack their maps as contents."""
    return run([*_SHELL, KNOWS_HOLES, "sh"]).code == 0


def put_archive(run: Run, directory: str, archive: BinaryIO, *, hint: str) -> None:
    """Unpack a tar stream into a directory inside, which is made when missing. Raises Invalid, BackendError."""
    _check_unpacked(run([*_SHELL, UNPACK, "sh", guarded(directory)], stdin=archive), directory, hint)


def put_archive_file(run: Run, directory: str, file: str, *, hint: str) -> None:
    """The same with an archive that is a file of ours inside, by its absolute path; it is removed."""
    _check_unpacked(run([*_SHELL, UNPACK_FILE, "sh", guarded(directory), file]), directory, hint)


def get_archive(run: Run, path: str, sink: Sink) -> LeftOut | None:
    """Pack a path inside as a tar stream with one top entry; what of it was left out. Raises NotFound, Invalid,
    BackendError."""
    said = _Complaints()
    code = run([*_SHELL, PACK, "sh", *_parts(path)], stdout=sink, stderr=said.take).code
    return said.judge(code, path)


def get_archive_file(run: Run, path: str, file: str) -> LeftOut | None:
    """The same into a file of ours inside, by its absolute path. The caller removes it, whatever became of it."""
    said = _Complaints()
    code = run([*_SHELL, PACK_FILE, "sh", *_parts(path), file], stderr=said.take).code
    return said.judge(code, path)


def pack_whole(run: Run, directory: str, sink: Sink) -> LeftOut | None:
    """Pack what is in a directory inside as a tar stream, for `put_archive`; what of it was left out. Raises as
    `get_archive` does."""
    said = _Complaints()
    code = run([*_SHELL, PACK_WHOLE, "sh", guarded(directory)], stdout=sink, stderr=said.take).code
    return said.judge(code, directory)


def guarded(path: str) -> str:
    """A path as a word that no program takes for an option; a relative one starts where commands do. Raises Invalid."""
    if "\0" in path:
        raise Invalid("a path holds a NUL character", hint="give another path")
    return path if path.startswith("/") else f"./{path}"


def _parts(path: str) -> tuple[str, str]:
    parent, name = posixpath.split(guarded(path).rstrip("/"))
    if not name:
        raise Invalid("/ as a whole cannot be copied", hint="copy a path in it")
    return parent or "/", name


def _check_unpacked(done: Result, directory: str, hint: str) -> None:
    if done.code == NO_TAR:
        raise _no_tar()
    if done.code != 0:
        raise BackendError(f"could not be written to {directory!r}: {done.complaint}", hint=hint)


def _no_tar() -> BackendError:
    return BackendError(
        "there is no tar in the sandbox, by which files are copied",
        hint="use an image that has it, or pass the file by `sandboxer exec -i ID -- sh -c 'cat >FILE'`",
    )


class _Complaints:
    """What a tar that packs says on stderr: it is judged by its last line, and its other lines are counted."""

    def __init__(self) -> None:
        self._rest = b""
        self._kept: list[bytes] = []
        self._count = 0
        self._delayed = False
        self._last = b""

    def take(self, data: bytes) -> None:
        """A sink."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_LONGEST:]
        for line in lines:
            self._line(line[:_LONGEST])

    def _line(self, line: bytes) -> None:
        if not line.strip():
            return
        self._last = line
        if _DELAYED.search(line):
            self._delayed = True
        elif line.startswith((b"tar: ", b"bsdtar: ")) and not _HARMLESS.search(line):
            self._count += 1
            if len(self._kept) < _KEPT:
                self._kept.append(line.partition(b": ")[2])

    def judge(self, code: int, path: str) -> LeftOut | None:
        """What was left out of an archive that is whole but for that; raises what else the exit code means."""
        self.take(b"\n")
        if code == ABSENT:
            raise NotFound(f"there is no {path!r} in the sandbox", hint="see `sandboxer exec ID -- ls`")
        if code == NO_TAR:
            raise _no_tar()
        # GNU's says 1 when something changed while it was read
        if code != 0 and not self._delayed and not (code == 1 and _HARMLESS.search(self._last)):
            said = self._last.decode("utf-8", "replace") or f"exit code {code}"
            raise BackendError(f"{path!r} could not be read: {said}", hint=_UNREADABLE)
        if not self._count:
            return None
        return LeftOut(count=self._count, said=tuple(os.fsdecode(line) for line in self._kept))
