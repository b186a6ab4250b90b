"""The meaning of `cp`: where a copy lands, packed and unpacked as tar; what comes out of a sandbox is untrusted."""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sandboxer.errors import Invalid, NotFound
from sandboxer.extensions.base import CanCopy, Context, PathKind
from sandboxer.models import Handle

MAX_ENTRIES = 1_000_000
MAX_BYTES = 64 << 30
"""Limits for what one copy out of a sandbox may hold: entries, and bytes on this disk."""
_SPOOL = 8 << 20


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
        """Write `path` as a tar stream to `archive`."""
        self._extension.get_archive(
            self._handle, path, lambda chunk: _write(archive, chunk), self._context, service=self._service
        )


def _write(file: BinaryIO, chunk: bytes) -> None:
    file.write(chunk)


def copy_in(source: Path, target: str, inside: Inside) -> None:
    """Copy a file or directory of this machine to `target` inside: into it when it is a directory or ends in `/`,
    otherwise to that very name. Missing parents are made. Raises NotFound, Invalid."""
    if not source.exists():
        raise NotFound(f"{source} does not exist", hint="the first path is the source")
    directory, name = _landing(target, source.resolve().name, is_directory=inside.kind(target) == "directory")
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL) as spool:
        with tarfile.open(fileobj=spool, mode="w|", format=tarfile.PAX_FORMAT, dereference=False) as tar:
            tar.add(source.resolve() if source.is_symlink() else source, arcname=name, filter=_plain)
        spool.seek(0)
        inside.put(directory, spool)  # type: ignore[arg-type]  # a spooled file reads like any other


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


def copy_out(source: str, target: Path, inside: Inside) -> None:
    """Copy `source` inside to `target` on this machine, like `cp -r`; missing parents are made.

    The archive is untrusted: only regular files and directories are taken, never a name that leaves the target, and
    never through a symbolic link. Raises NotFound, Invalid."""
    if inside.kind(source) == "absent":
        raise NotFound(f"there is no {source!r} in the sandbox", hint="paths without / start at the workspace")
    with tempfile.TemporaryFile() as spool:
        inside.take(source, spool)
        spool.seek(0)
        name = PurePosixPath(source.rstrip("/") or "/").name
        if target.is_dir() or str(target).endswith("/"):
            target = target / name if name not in ("", ".", "..") else target
        unpack(spool, target)


def unpack(archive: BinaryIO, target: Path) -> int:
    """Unpack a tar stream whose single top entry becomes `target`; how many entries there were. Raises Invalid."""
    top: str | None = None
    count = size = 0
    try:
        with tarfile.open(fileobj=archive, mode="r|") as tar:
            for member in tar:
                parts = _parts(member.name)
                top = parts[0] if top is None and parts else top
                if parts and parts[0] != top:
                    raise Invalid("the archive has more than one top entry", hint="copy one path at a time")
                count += 1
                size += member.size
                if count > MAX_ENTRIES or size > MAX_BYTES:
                    raise Invalid(
                        f"the copy is over the limit of {MAX_ENTRIES} entries or {MAX_BYTES >> 30} GiB",
                        hint="copy a part of it",
                    )
                _place(tar, member, target.joinpath(*parts[1:]), root=target)
    except tarfile.TarError as error:
        raise Invalid(f"the sandbox sent a broken archive: {error}", hint="copy it again") from error
    return count


def _parts(name: str) -> tuple[str, ...]:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or "\x00" in name:
        raise Invalid(f"the archive holds a name that leaves it: {name[:200]!r}", hint="nothing was written there")
    return parts


def _place(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, *, root: Path) -> None:
    if member.isdir():
        _make_directory(path, root)
        return
    if not member.isreg():
        return  # links and devices of an untrusted tree are not wanted here
    _make_directory(path.parent, root.parent if path == root else root)
    content = tar.extractfile(member)
    if content is None:
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise Invalid(f"{path} cannot be written: {error.strerror}", hint="choose another target") from error
    with open(descriptor, "wb") as file:
        while chunk := content.read(1 << 20):
            file.write(chunk)
        os.fchmod(file.fileno(), (member.mode & 0o777) | 0o600)


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
