"""Trees in and out of a workspace on this machine, as tar streams by Python's tarfile."""

from __future__ import annotations

import copy
import io
import os
import shutil
import tarfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from sandboxer.errors import BackendError, Invalid, NotFound
from sandboxer.extensions.base import LeftOut, PathKind

_SAID = 20


def path_kind(workspace: Path, path: str) -> PathKind:
    """What is at a path."""
    target = workspace / path
    there = target.exists() or target.is_symlink()
    return "directory" if target.is_dir() else "file" if there else "absent"


def put_archive(workspace: Path, directory: str, archive: BinaryIO) -> None:
    """Unpack a tar stream, without leaving the directory, which is made when missing. Raises Invalid."""
    target = workspace / directory
    target.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=archive, mode="r|") as tar:
            tar.extractall(target, filter=_replacing)  # noqa: S202 - it calls the filter for data
    except tarfile.TarError as error:
        raise Invalid(f"the archive is not unpacked: {error}", hint="send plain files below one directory") from None


def get_archive(workspace: Path, path: str, sink: Callable[[bytes], None]) -> LeftOut | None:
    """Pack a path as a tar stream. Raises NotFound, BackendError."""
    source = workspace / path
    if not source.exists():
        raise NotFound(f"there is no {path!r}", hint="look with exec")
    if not os.access(source, os.R_OK):
        raise BackendError(f"{path!r} could not be read: permission denied", hint="look at its mode with exec")
    with tarfile.open(fileobj=_Outlet(sink), mode="w|") as tar:
        # a link is followed when it is what was asked for, as `cp` does
        left = _pack(tar, source.resolve(), source.name if source.name not in ("", "..") else source.resolve().name)
    return LeftOut(count=len(left), said=tuple(left[:_SAID])) if left else None


def copy_tree(source: Path, target: Path) -> None:
    """Copy files, directories, symbolic links as links, modes and times; nothing that is no file."""
    shutil.copytree(source, target, symlinks=True, ignore=_special)


def _special(directory: str, names: list[str]) -> list[str]:
    found = [Path(directory, name) for name in names]
    return [path.name for path in found if not (path.is_symlink() or path.is_dir() or path.is_file())]


def _replacing(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
    """tarfile's filter for data, but that a symbolic link may lead anywhere, and that what is there by a file's name
    goes first, as in other sandboxes. Nothing is written through a link that leads out."""
    name = member.name.lstrip("/")
    directory, base = os.path.split(name)
    if not (member.isreg() or member.islnk() or member.issym()) or base in ("", ".", ".."):
        return tarfile.data_filter(member, path)
    placed, parent = copy.copy(member), copy.copy(member)
    placed.name, parent.name, parent.type = name, directory or ".", tarfile.DIRTYPE
    tarfile.data_filter(parent, path)  # raises when it leads out
    target = Path(path, name)
    if target.is_symlink() or not target.is_dir():
        target.unlink(missing_ok=True)
    return placed if placed.issym() else tarfile.data_filter(placed, path)


def _pack(tar: tarfile.TarFile, top: Path, name: str) -> list[str]:
    """Add a path and what is below it; what could not be."""
    left: list[str] = []
    waiting = [(top, name)]
    while waiting:
        path, called = waiting.pop()
        with ExitStack() as stack:
            try:
                entry = tar.gettarinfo(path, arcname=called)
                contents = stack.enter_context(path.open("rb")) if entry is not None and entry.isreg() else None
            except OSError as error:
                left.append(f"{called}: {error.strerror}")
                continue
            if entry is None:
                left.append(f"{called}: socket ignored")
                continue
            tar.addfile(entry, contents)
        if entry.isdir():
            try:
                waiting += [(child, f"{called}/{child.name}") for child in sorted(path.iterdir(), reverse=True)]
            except OSError as error:
                left.append(f"{called}: {error.strerror}")
    return left


class _Outlet(io.RawIOBase):
    """A sink as a file."""

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        super().__init__()
        self._sink = sink

    def write(self, data: Any) -> int:
        self._sink(bytes(data))
        return len(data)
