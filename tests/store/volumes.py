"""Small real file systems: to fill, to make read-only, to cut the power of."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
_WITHOUT_LOG = struct.pack("I", 2)  # EXT4_GOING_FLAGS_NOLOGFLUSH: as when the power goes


class Volume:
    """An ext4 file system in a file, mounted at `path`. No blocks are kept back for root: it is the one who tests."""

    def __init__(self, folder: Path, *, size_mb: int) -> None:
        self.path = folder / "mounted"
        self._image = folder / "image"
        self._size = size_mb << 20

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True)
        with open(self._image, "wb") as image:
            image.truncate(self._size)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))
        self._mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._unmount()

    def cut_power(self) -> None:
        """Everything that was only in memory is gone; what had reached the disk is mounted again, its log replayed."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, _SHUTDOWN, _WITHOUT_LOG)
        finally:
            os.close(folder)
        self._unmount()
        # A copy: somebody's mount namespace may still hold the file system that was shut down.
        self._image = shutil.copyfile(self._image, self._image.with_name("after"))
        self._mount()

    def make_read_only(self) -> None:
        _run("mount", "-o", "remount,ro", str(self.path))

    def fill(self) -> Path:
        """Take every last block; returns the file that has them."""
        filler = self.path / "filler"
        with open(filler, "wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        os.write(file.fileno(), bytes(size))
                        os.fsync(file.fileno())
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
        assert os.statvfs(self.path).f_bavail == 0
        return filler

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.path))

    def _unmount(self) -> None:
        _run("umount", str(self.path))


class Memory(Volume):
    """The same in memory: no journal, no delayed allocation, and no restart."""

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", str(self.path))
        return self

    def cut_power(self) -> None:
        """Nothing would be left: so this one is spared."""


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=30)
