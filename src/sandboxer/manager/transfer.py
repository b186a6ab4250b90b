"""The meaning of `cp`: where a copy lands, packed and unpacked as tar; what comes out of a sandbox is untrusted."""

from __future__ import annotations

import errno
import os
import posixpath
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from sandboxer.errors import Denied, Invalid, NotFound, Unavailable
from sandboxer.extensions.base import CanCopy, Context, PathKind
from sandboxer.models import Handle

MAX_ENTRIES = 1_000_000
MAX_BYTES = 64 << 30
"""Limits for what one copy out of a sandbox may hold: entries, and bytes on this disk."""
_SPOOL = 8 << 20
_BAD_PATH = frozenset(
    {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.ENOTEMPTY}
)


class Inside:
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

    def take(self, path: str, archive: BinaryIO) -> None:
        """Write `path` as a tar stream to `archive`. Raises Invalid at the limit: a sandbox can send without end."""
        taken = 0

        def keep(chunk: bytes) -> None:
            nonlocal taken
            taken += len(chunk)
            if taken > MAX_BYTES:
                raise _too_much()
            archive.write(chunk)

        self._extension.get_archive(self._handle, path, keep, self._context, service=self._service)


def copy_in(source: str, target: str, inside: Inside) -> int:
    """Copy a file or directory of this machine to `target` inside: into it when it is a directory or ends in `/`,
    otherwise to that very name. Of `DIR/.` it is the contents. Missing parents are made. How many devices, sockets and
    the like below a directory were left out. Raises NotFound, Invalid, Denied, Unavailable."""
    path = Path(source)
    with _disk(source), tempfile.SpooledTemporaryFile(max_size=_SPOOL) as spool:
        if not path.exists():
            raise NotFound(f"{source} does not exist", hint="the first path is the source")
        if not path.is_file() and not path.is_dir():
            raise _neither(source)
        real = path.resolve() if path.is_symlink() else path
        if _means_contents(source):
            directory, entries = target or ".", {child: child.name for child in sorted(real.iterdir())}
        else:
            directory, name = _landing(target, path.name or real.name, is_directory=inside.kind(target) == "directory")
            entries = {real: name}
        left_out = 0

        def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
            nonlocal left_out
            kept = _plain(member)
            left_out += kept is None
            return kept

        with tarfile.open(fileobj=spool, mode="w|", format=tarfile.PAX_FORMAT, dereference=False) as tar:
            for entry, name in entries.items():
                tar.add(entry, arcname=name, filter=plain)
        spool.seek(0)
        inside.put(directory, spool)  # type: ignore[arg-type]  # a spooled file reads like any other
        return left_out


def _means_contents(path: str) -> bool:
    """Whether a path ends in `.` or `..`: `cp -r` copies what is in such a directory, not the directory."""
    return path.rstrip("/").rpartition("/")[2] in (".", "..")


@contextmanager
def _disk(what: str) -> Iterator[None]:
    """Turn what the operating system refuses here into a typed error."""
    try:
        yield
    except PermissionError as error:
        raise Denied(f"{error.filename or what}: permission denied", hint="choose a path that you may use") from error
    except FileNotFoundError as error:
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


def _neither(path: str) -> Invalid:
    return Invalid(f"{path} is neither a file nor a directory", hint="only files and directories are copied")


def _too_much() -> Invalid:
    return Invalid(
        f"the copy is over the limit of {MAX_ENTRIES} entries or {MAX_BYTES >> 30} GiB", hint="copy a part of it"
    )


def _landing(target: str, own_name: str, *, is_directory: bool) -> tuple[str, str]:
    """The directory to unpack into and the name of the copy there."""
    if is_directory or target.endswith("/") or target in ("", "."):
        return target or ".", own_name
    path = PurePosixPath(target)
    if path.name in ("", ".."):
        return target, own_name
    return str(path.parent), path.name


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Regular files, directories and links, without our user's name; devices and sockets stay here."""
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def copy_out(source: str, target: str, inside: Inside) -> int:
    """Copy `source` inside to `target` on this machine, like `cp -r`; missing parents are made. How many links,
    devices and the like were left out.

    The archive is untrusted: only regular files and directories are taken, never a name that leaves the target, and
    never through a symbolic link. Raises NotFound, Invalid, Denied, Unavailable."""
    with _disk(source), tempfile.TemporaryFile() as spool:
        if inside.kind(source) == "absent":
            raise NotFound(f"there is no {source!r} in the sandbox", hint="paths without / start at the workspace")
        # an adapter knows a path by its last name, which `x/..` has none of
        inside.take(posixpath.normpath(source) if _means_contents(source) else source, spool)
        spool.seek(0)
        name = "" if _means_contents(source) else PurePosixPath(source).name
        place = Path(target) / name if name and (Path(target).is_dir() or target.endswith("/")) else Path(target)
        taken, left_out = unpack(spool, place)
        if taken == 0:
            raise _neither(f"{source!r} in the sandbox")
        return left_out


def unpack(archive: BinaryIO, target: Path) -> tuple[int, int]:
    """Unpack a tar stream whose single top entry becomes `target`; how many entries were taken, and how many left
    out. Raises Invalid."""
    top: str | None = None
    count = left_out = size = 0
    files: set[tuple[str, ...]] = set()
    try:
        with tarfile.open(fileobj=archive, mode="r|") as tar:
            for member in tar:
                parts = _parts(member.name)
                top = parts[0] if top is None and parts else top
                if parts and parts[0] != top:
                    raise Invalid("the archive has more than one top entry", hint="copy one path at a time")
                path = target.joinpath(*parts[1:])
                linked = _linked(member, files)
                count += 1
                size += member.size if linked is None else target.joinpath(*linked[1:]).lstat().st_size
                if count > MAX_ENTRIES or size > MAX_BYTES:
                    raise _too_much()
                if member.isdir():
                    _make_directory(path, target)
                elif linked is not None:
                    with open(_opened(target.joinpath(*linked[1:]), os.O_RDONLY), "rb") as sent:
                        _write(sent, path, mode=os.fstat(sent.fileno()).st_mode, root=target)
                elif (content := tar.extractfile(member) if member.isreg() else None) is not None:
                    _write(content, path, mode=member.mode, root=target)
                    files.add(parts)
                else:
                    left_out += 1  # links and devices of an untrusted tree are not wanted here
    except tarfile.TarError as error:
        raise Invalid(f"the sandbox sent a broken archive: {error}", hint="copy it again") from error
    return count - left_out, left_out


def _linked(member: tarfile.TarInfo, files: set[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The file that tar has as another name of one it has sent before (a hard link), when we have taken that one."""
    if not member.islnk():
        return None
    parts = _parts(member.linkname)
    return parts if parts in files else None


def _parts(name: str) -> tuple[str, ...]:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or "\x00" in name:
        raise Invalid(f"the archive holds a name that leaves it: {name[:200]!r}", hint="nothing was written there")
    return parts


def _write(content: IO[bytes], path: Path, *, mode: int, root: Path) -> None:
    _make_directory(path.parent, root.parent if path == root else root)
    with open(_opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        while chunk := content.read(1 << 20):
            file.write(chunk)
        os.fchmod(file.fileno(), (mode & 0o777) | 0o600)


def _opened(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise Invalid(f"{path} cannot be written: {error.strerror}", hint="choose another target") from error


def _make_directory(path: Path, root: Path) -> None:
    """Make `path` and what is missing above it; below `root` no symbolic link is followed."""
    walked = path
    while walked != root and walked != walked.parent:
        if walked.is_symlink():
            raise Invalid(f"{walked} is a symbolic link", hint="choose another target")
        walked = walked.parent
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Invalid(f"{path} cannot be made: {error.strerror}", hint="choose another target") from error
