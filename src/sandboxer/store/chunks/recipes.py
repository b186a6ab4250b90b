"""Write and read recipes: which chunks, in which order, a snapshot's streams are. A chunk that no recipe names is free.

While somebody reads a snapshot they hold its recipe by a shared lock, which is what makes it "in use".
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from sandboxer.errors import Conflict, NotFound, StoreCorrupt
from sandboxer.store import private_files

VERSION: Final = 1
NAME: Final = re.compile(r"(snap-[a-z0-9]{12})\.recipe")
IDENTITY_BYTES: Final = 32
_SUM_BYTES: Final = 32


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """One stream: its bytes, their SHA-256, and the names of its chunks, one behind the other."""

    name: str
    size: int
    sha256: bytes
    chunks: bytes

    def identities(self) -> Iterator[bytes]:
        """The names of its chunks, in order."""
        for at in range(0, len(self.chunks), IDENTITY_BYTES):
            yield self.chunks[at : at + IDENTITY_BYTES]


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot is made of. `stored_bytes` is what it added to the store when it was made."""

    version: int
    snapshot_id: str
    stored_bytes: int
    streams: tuple[Stream, ...]


def names(directory: Path) -> list[str]:
    """The ids of the snapshots that are there."""
    return sorted(match[1] for path in directory.iterdir() if (match := NAME.fullmatch(path.name)))


def write(directory: Path, recipe: Recipe, claimed: Callable[[int], AbstractContextManager[None]]) -> None:
    """Keep a recipe, once there is room for so many bytes (`claimed`); durable when this returns. Raises Conflict when
    there is one of that name."""
    path = _path(directory, recipe.snapshot_id)
    data = msgspec.msgpack.encode(recipe)
    data += hashlib.sha256(data).digest()
    with claimed(len(data)), private_files.refusals("write", path):
        _write(path, data, recipe.snapshot_id)


def _write(path: Path, data: bytes, snapshot_id: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with suppress(FileNotFoundError):
        temporary.unlink()  # of a writer that was killed
    descriptor = private_files.create_private(temporary, os.O_WRONLY)
    try:
        private_files.write_all(descriptor, data)
        os.fsync(descriptor)
        try:
            os.link(temporary, path)  # unlike a rename it replaces nothing
        except FileExistsError:
            raise Conflict(f"there is a snapshot {snapshot_id} already", hint="take it again") from None
        private_files.flush_directory(path.parent)
    finally:
        private_files.close(descriptor)
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def held(directory: Path, snapshot_id: str) -> Iterator[Recipe]:
    """A recipe that cannot be deleted meanwhile. Raises NotFound, StoreCorrupt, Conflict when it is being deleted."""
    path = _path(directory, snapshot_id)
    descriptor = _open(path, snapshot_id)
    try:
        _lock(descriptor, fcntl.LOCK_SH, Conflict(f"{snapshot_id} is being deleted", hint="choose another snapshot"))
        if not _is_at(path, descriptor):
            raise _absent(snapshot_id)  # it was deleted between the two
        with private_files.refusals("read", path):
            data = private_files.read_all(descriptor)
        yield _decoded(data, path, snapshot_id)
    finally:
        private_files.close(descriptor)


def read(directory: Path, snapshot_id: str) -> Recipe:
    """A recipe. Raises NotFound, StoreCorrupt."""
    path = _path(directory, snapshot_id)
    descriptor = _open(path, snapshot_id)
    try:
        with private_files.refusals("read", path):
            return _decoded(private_files.read_all(descriptor), path, snapshot_id)
    finally:
        private_files.close(descriptor)


def delete(directory: Path, snapshot_id: str) -> None:
    """Remove a recipe durably; one that is gone is success. Raises Conflict while somebody reads it."""
    path = _path(directory, snapshot_id)
    try:
        descriptor = _open(path, snapshot_id)
    except NotFound:
        return
    try:
        in_use = Conflict(f"{snapshot_id} is being read", hint="delete it when the restore or verify has ended")
        _lock(descriptor, fcntl.LOCK_EX, in_use)
        with private_files.refusals("delete", path):
            path.unlink(missing_ok=True)
            private_files.flush_directory(directory)
    finally:
        private_files.close(descriptor)


def _path(directory: Path, snapshot_id: str) -> Path:
    return directory / f"{snapshot_id}.recipe"


def _open(path: Path, snapshot_id: str) -> int:
    with private_files.refusals("read", path):
        descriptor = private_files.open_regular(path)
    if descriptor is None:
        raise _absent(snapshot_id)
    return descriptor


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _absent(snapshot_id: str) -> NotFound:
    return NotFound(f"the files of {snapshot_id} are not kept", hint="run `sandboxer snapshots list`")


def _lock(descriptor: int, operation: int, taken: Conflict) -> None:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        raise taken from None


def _decoded(data: bytes, path: Path, snapshot_id: str) -> Recipe:
    body, told = data[:-_SUM_BYTES], data[-_SUM_BYTES:]
    hint = "restore another snapshot; the file is kept as it is"
    if hashlib.sha256(body).digest() != told:
        raise StoreCorrupt(f"{path} is damaged", hint=hint)
    try:
        recipe = msgspec.msgpack.decode(body, type=Recipe)
    except msgspec.MsgspecError:
        recipe = None
    if recipe is None or recipe.version != VERSION or recipe.snapshot_id != snapshot_id:
        raise StoreCorrupt(f"{path} was written by another version of sandboxer", hint="upgrade sandboxer")
    return recipe
