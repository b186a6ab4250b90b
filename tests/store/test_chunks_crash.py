"""What a killed process leaves of a chunk store: every snapshot that is there is whole, and the next one works."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandboxer.errors import StoreCorrupt
from sandboxer.store.chunks import ChunkStore, SnapshotWriter, recipes
from sandboxer.store.chunks.recipes import Recipe
from sandboxer.store.chunks.room import Room
from tests.store.children import Traced
from tests.store.test_chunks import ONE, THREE, TWO, keep, kept, noise
from tests.testbed.components import need

FIRST, SECOND = noise(b"first", 600_000), noise(b"second", 600_000)
CALLS = ("openat", "write", "fsync", "rename", "link", "unlink", "mkdir", "flock", "fchmod")
"""What changes a disk, or says who may."""


def work(kind: type[ChunkStore], folder: Path) -> str:
    """A snapshot that shares most with the one that goes then, and a collection that writes a pack anew."""
    store = kind(folder)
    keep(store, TWO, workspace=FIRST[:200_000] + SECOND)
    store.delete(ONE)
    assert store.collect() is not None
    return "done"


def before(folder: Path) -> Path:
    keep(ChunkStore(folder), ONE, workspace=FIRST)
    return folder


def steps(folder: Path, log: Path) -> Iterator[tuple[str, int]]:
    seen: Counter[str] = Counter()
    for call in Traced(lambda: work(ChunkStore, folder), log, "-e", f"trace=poll,{','.join(CALLS)}").calls:
        name = call.partition("(")[0]
        if name in CALLS:
            seen[name] += 1
            yield name, seen[name]


def check(folder: Path, *, where: str) -> None:
    """What is there is whole, what was acknowledged is there, and everything works."""
    store = ChunkStore(folder)
    there = store.snapshots()
    assert ONE in there or TWO in there, where
    for name in there:
        assert kept(store, name) == {"workspace": FIRST if name == ONE else FIRST[:200_000] + SECOND}, where
    keep(store, THREE, workspace=FIRST)
    store.delete(ONE)
    assert store.collect() is not None, where
    assert kept(store, THREE) == {"workspace": FIRST}, where
    if TWO in there:
        assert kept(store, TWO) == {"workspace": FIRST[:200_000] + SECOND}, where
    assert not list(folder.rglob("*.tmp")), where


def killed_everywhere(kind: type[ChunkStore], tmp_path: Path) -> int:
    need("strace")
    begin = before(tmp_path / "begin")
    found = list(steps(shutil.copytree(begin, tmp_path / "once"), tmp_path / "log"))
    for number, (call, count) in enumerate(found):
        folder = shutil.copytree(begin, tmp_path / f"at{number}")
        traced = Traced(
            lambda folder=folder: work(kind, folder),  # type: ignore[misc]  # bound at once
            tmp_path / "log",
            "-e", f"trace=poll,{','.join(CALLS)}",
            "-e", f"inject={call}:signal=KILL:when={count}",
        )  # fmt: skip
        check(folder, where=f"killed at {call} {count}: {traced.calls[-3:]}")
        shutil.rmtree(folder)
    return len(found)


def test_a_killed_snapshot_delete_or_collection_leaves_whole_snapshots(tmp_path: Path) -> None:
    assert killed_everywhere(ChunkStore, tmp_path) > 50


class RecipeFirst(ChunkStore):
    """Names a snapshot before its chunks are there."""

    @contextmanager
    def writing(self, snapshot_id: str) -> Iterator[SnapshotWriter]:
        with self._shared():
            room = Room(self._directory, None, lock_seconds=1)
            writer = SnapshotWriter(self._packs, self._index(), room)
            yield writer
            recipe = Recipe(version=1, snapshot_id=snapshot_id, stored_bytes=0, streams=tuple(writer.streams))
            recipes.write(self._recipes, recipe, room.claimed)
            writer.finish()


def test_a_store_that_names_a_snapshot_first_is_caught(tmp_path: Path) -> None:
    with pytest.raises((AssertionError, StoreCorrupt)):
        killed_everywhere(RecipeFirst, tmp_path)


def test_chunks_are_flushed_and_named_before_the_snapshot_is(tmp_path: Path) -> None:
    """What a power cut leaves is what was flushed: the pack, its name, the recipe, its name, in this order."""
    need("strace")
    folder = before(tmp_path / "store")
    calls = Traced(
        lambda: keep(ChunkStore(folder), TWO, workspace=SECOND),
        tmp_path / "log", "-e", "trace=poll,fsync,rename,link",
    ).calls  # fmt: skip
    told = [call for call in calls if call.startswith(("fsync(", "rename(", "link("))]
    wanted = (
        ("fsync(", ".pack.tmp>"),
        ("rename(", ".pack"),
        ("fsync(", "/packs>"),
        ("fsync(", ".recipe.tmp>"),
        ("link(", ".recipe"),
        ("fsync(", "/recipes>"),
    )
    assert len(told) == len(wanted), told
    for call, (name, what) in zip(told, wanted, strict=True):
        assert call.startswith(name), told
        assert what in call, told
