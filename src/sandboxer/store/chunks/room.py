"""The room that a store has: what its packs and recipes take, and may take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sandboxer.errors import OverQuota
from sandboxer.store import private_files
from sandboxer.store.chunks import packs, recipes
from sandboxer.store.file_lock import locked

LOCK_FILE: Final = ".room"


def used_bytes(directory: Path) -> int:
    """What the packs and recipes of a store take."""
    return sum(
        _sizes(directory / folder, pattern)
        for folder, pattern in (("packs", packs.NAME), ("recipes", recipes.NAME))
        if (directory / folder).is_dir()
    )


class Room:
    """What a snapshot that is being made may take. Others are made at the same time, and saw the same room: so before
    anything gets its name, one after the other, it is measured again."""

    def __init__(self, directory: Path, most: int | None, *, lock_seconds: float) -> None:
        self._directory, self._most, self._lock_seconds = directory, most, lock_seconds
        self._left = None if most is None else most - used_bytes(directory)

    def check(self, more: int) -> None:
        """Raise OverQuota when `more` bytes would not have fitted when it began."""
        if self._left is not None and more > self._left:
            raise _over()

    @contextmanager
    def claimed(self, more: int) -> Iterator[None]:
        """Room for a file of `more` bytes, which has its name when the block ends. Raises OverQuota."""
        if self._most is None:
            yield
            return
        with locked(self._directory / LOCK_FILE, seconds=self._lock_seconds):
            with private_files.refusals("read", self._directory):
                used = used_bytes(self._directory)
            if used + more > self._most:
                raise _over()
            yield


def _sizes(folder: Path, pattern: re.Pattern[str]) -> int:
    size = 0
    for path in folder.iterdir():
        if pattern.fullmatch(path.name):
            with suppress(FileNotFoundError):  # deleted meanwhile
                size += path.stat().st_size
    return size


def _over() -> OverQuota:
    return OverQuota("snapshots: max_bytes is reached", retry_after=60, hint="delete some: `sandboxer snapshots list`")
