"""Snapshots on a disk that is full, or loses its power (promises 11 and 14)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxer.bootstrap import install
from sandboxer.errors import Unavailable
from sandboxer.store.chunks import ChunkStore
from tests.installations import environment, lay_out
from tests.manager.test_snapshots import native, restored, sh, used
from tests.store.volumes import Memory, Volume
from tests.testbed.components import need


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    need("root", "mount", "mkfs.ext4")
    with Memory(tmp_path / "volume", size_mb=24) as made:
        yield made


def test_without_room_for_its_files_nothing_of_a_snapshot_is_kept(tmp_path: Path, volume: Volume) -> None:
    config = f"hosts: {{local: {{work_dir: {tmp_path}/work}}}}\nsnapshots: {{store: {volume.path}/kept}}\n"
    lay_out(tmp_path, config=config)
    here = install(environment(tmp_path), relay_in_background=False)
    box = native(here)
    sh(here, box, "echo small > f")
    small = here.manager.snapshot(box.id)
    before = used(here, small)
    sh(here, box, "head -c 50000000 /dev/urandom > big")
    with pytest.raises(Unavailable, match="no space left"):
        here.manager.snapshot(box.id)
    assert ([one.id for one in here.manager.snapshots()], used(here, small)) == ([small.id], before)
    again = restored(here, small)
    assert sh(here, again, "cat f") == "small\n"
    for one in (box, again):
        here.manager.destroy(one.id)


def test_one_is_deleted_with_no_byte_free(tmp_path: Path, volume: Volume) -> None:
    config = f"hosts: {{local: {{work_dir: {tmp_path}/work}}}}\n"
    lay_out(tmp_path, config=config)
    data = {"SANDBOXER_DATA_DIR": str(volume.path / "data")}
    here = install(environment(tmp_path, **data), relay_in_background=False)
    box = native(here)
    sh(here, box, "head -c 3000000 /dev/urandom > big")
    kept = here.manager.snapshot(box.id)
    volume.fill()
    with pytest.raises(Unavailable, match=r"(?i)no space left"):
        here.manager.snapshot(box.id)
    assert here.manager.delete_snapshot(kept.id).state == "deleted"
    assert (list(here.manager.snapshots()), used(here, kept)) == ([], 0)
    here.manager.destroy(box.id)


def test_what_was_acknowledged_survives_a_power_cut(tmp_path: Path) -> None:
    need("root", "mount", "mkfs.ext4")
    with Volume(tmp_path / "volume", size_mb=64) as volume:
        store = ChunkStore(volume.path / "chunks")
        with store.writing("snap-aaaaaaaaaaaa") as writer, writer.stream("workspace") as stream:
            stream.write(bytes(range(256)) * 40_000)
        volume.cut_power()
        with store.reading("snap-aaaaaaaaaaaa") as reader:
            assert reader.open("workspace").read() == bytes(range(256)) * 40_000
        assert store.verify("snap-aaaaaaaaaaaa") == ()
