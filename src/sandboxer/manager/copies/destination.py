"""Put what was extracted in place: checked before anything is changed, joined with what is there, through no link."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandboxer.errors import Invalid
from sandboxer.hosts.trees import beneath
from sandboxer.manager.copies.extract import TOP, StagingDirectory

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY


@dataclass(frozen=True, slots=True)
class CopyDestination:
    """Where a copy goes: an open directory and the name in it; None puts the contents into the directory itself."""

    fd: int
    name: str | None
    shown: Path

    def settle(self, stage: StagingDirectory) -> None:
        """Put what was unpacked in place. Raises Invalid before anything is changed when something is in the way."""
        if self.name is not None:
            self._check(stage.fd, TOP, self.fd, self.name, self.shown)
            _move(stage.fd, TOP, self.fd, self.name)
            return
        try:
            top = beneath.open_at(stage.fd, TOP, _DIRECTORY)
        except NotADirectoryError:
            raise Invalid(f"{self.shown} is a directory", hint="choose another target") from None
        try:
            names = sorted(os.listdir(top))  # noqa: PTH208 - of a descriptor
            for name in names:
                self._check(top, name, self.fd, name, self.shown / name)
            for name in names:
                _move(top, name, self.fd, name)
        finally:
            os.close(top)

    def _check(self, source: int, name: str, target: int, called: str, shown: Path) -> None:
        """Raise Invalid when an entry cannot take its place: nothing but files is replaced, and no link followed."""
        mode = os.stat(name, dir_fd=source, follow_symlinks=False).st_mode
        there = _mode(target, called, shown)
        if there is None:
            return
        if stat.S_ISLNK(there):
            raise Invalid(f"{shown} is a symbolic link", hint="choose another target")
        if stat.S_IFMT(there) != stat.S_IFMT(mode):
            what = "a directory" if stat.S_ISDIR(there) else "a file" if stat.S_ISREG(there) else "no regular file"
            raise Invalid(f"{shown} is {what}", hint="choose another target")
        if not stat.S_ISDIR(mode):
            return
        with _both(source, name, target, called) as (mine, theirs):
            for child in os.listdir(mine):  # noqa: PTH208
                self._check(mine, child, theirs, child, shown / child)


@contextmanager
def _both(source: int, name: str, target: int, called: str) -> Iterator[tuple[int, int]]:
    mine = beneath.open_at(source, name, _DIRECTORY)
    try:
        theirs = beneath.open_at(target, called, _DIRECTORY)
    except BaseException:
        os.close(mine)
        raise
    try:
        yield mine, theirs
    finally:
        os.close(mine)
        os.close(theirs)


def _mode(target: int, name: str, shown: Path) -> int | None:
    try:
        return os.stat(name, dir_fd=target, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Invalid(f"{shown}: {error.strerror}", hint="choose another target") from error


def _move(source: int, name: str, target: int, called: str) -> None:
    """Put an entry in its place: directories are joined, files replaced under the mode and owner that were there."""
    try:
        there = os.stat(called, dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(name, called, src_dir_fd=source, dst_dir_fd=target)
        return
    if stat.S_ISDIR(there.st_mode):
        with _both(source, name, target, called) as (mine, theirs):
            for child in os.listdir(mine):  # noqa: PTH208
                _move(mine, child, theirs, child)
        return
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        with suppress(PermissionError):
            os.chown(f"/proc/self/fd/{fd}", there.st_uid, there.st_gid)
        status = os.fstat(fd)
        # a file with another name has one mode for both: never more than what stood under either
        mode = stat.S_IMODE(there.st_mode) & (stat.S_IMODE(status.st_mode) if status.st_nlink > 1 else ~0)
        Path(f"/proc/self/fd/{fd}").chmod(mode)
    finally:
        os.close(fd)
    os.rename(name, called, src_dir_fd=source, dst_dir_fd=target)
