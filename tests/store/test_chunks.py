"""A chunk store keeps streams byte for byte, each chunk once, and takes nothing away that is needed."""

from __future__ import annotations

import hashlib
import io
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import pytest

from sandboxer.errors import Conflict, NotFound, OverQuota, StoreCorrupt, Unavailable
from sandboxer.store.chunks import ChunkStore, chunker, packs
from sandboxer.store.chunks.chunker import Chunker

ONE, TWO, THREE = "snap-aaaaaaaaaaaa", "snap-bbbbbbbbbbbb", "snap-cccccccccccc"


def noise(seed: bytes, size: int) -> bytes:
    """Bytes that no compressor makes fewer of, the same each time."""
    return hashlib.shake_128(seed).digest(size)


BIG = noise(b"big", 12 << 20)


def keep(store: ChunkStore, name: str, **streams: bytes) -> int:
    """Make a snapshot; what it added."""
    with store.writing(name) as snapshot:
        for stream, data in streams.items():
            with snapshot.stream(stream) as out:
                for at in range(0, len(data), 100_000):
                    out.write(data[at : at + 100_000])
    return snapshot.stored_bytes


def kept(store: ChunkStore, name: str) -> dict[str, bytes]:
    with store.reading(name) as snapshot:
        return {stream.name: snapshot.open(stream.name).read() for stream in snapshot.recipe.streams}


@pytest.fixture
def store(tmp_path: Path) -> ChunkStore:
    return ChunkStore(tmp_path / "chunks")


@pytest.mark.parametrize("data", [b"", b"x", bytes(3 << 20), BIG[: (4 << 20) + 1], BIG], ids=len)
def test_a_stream_comes_back_as_it_was(store: ChunkStore, data: bytes) -> None:
    keep(store, ONE, workspace=data, other=b"second")
    assert kept(store, ONE) == {"workspace": data, "other": b"second"}
    assert store.verify(ONE) == ()


@pytest.mark.parametrize("size", [1 << 12, 999_999, 5 << 20])
def test_cuts_do_not_depend_on_the_pieces_that_came(size: int) -> None:
    from pyfastcdc import FastCDC

    cutter, data = Chunker(), BIG[: 9 << 20]
    cuts = [len(chunk) for at in range(0, len(data), size) for chunk in cutter.feed(data[at : at + size])]
    cuts += [len(chunk) for chunk in cutter.finish()]
    whole = FastCDC(chunker.AVERAGE, max_size=chunker.LONGEST).cut_stream(io.BytesIO(data))
    assert cuts == [chunk.length for chunk in whole]


def test_cuts_are_those_that_every_version_makes() -> None:
    """Another chunker, or other numbers, would store everything once more at the next snapshot."""
    cutter = Chunker()
    data = b"".join(n.to_bytes(4, "big") * (n % 7) for n in range(60_000))
    assert [len(chunk) for chunk in (*cutter.feed(data), *cutter.finish())] == CUTS


CUTS = [81485, 68686, 75172, 80374, 99047, 102721, 172498, 39993]


def test_a_second_snapshot_costs_what_has_changed(store: ChunkStore) -> None:
    first = keep(store, ONE, workspace=BIG)
    changed = BIG[: 5 << 20] + b"inserted" + BIG[5 << 20 :]
    assert keep(store, TWO, workspace=changed) < 0.03 * first
    assert kept(store, ONE) == {"workspace": BIG}
    assert kept(store, TWO) == {"workspace": changed}


def test_the_same_bytes_twice_in_one_snapshot_are_kept_once(store: ChunkStore) -> None:
    assert keep(store, ONE, first=BIG, second=BIG) < 1.01 * len(BIG)


def test_everything_is_private(store: ChunkStore, tmp_path: Path) -> None:
    keep(store, ONE, workspace=BIG)
    for path in (tmp_path / "chunks", *(tmp_path / "chunks").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_what_is_left_by_an_exception_is_not_kept(store: ChunkStore) -> None:
    keep(store, ONE, workspace=b"first")

    def broken() -> None:
        with store.writing(TWO) as snapshot, snapshot.stream("w") as out:
            out.write(BIG)
            raise OSError("of the caller")

    with pytest.raises(OSError, match="of the caller"):
        broken()
    assert store.snapshots() == [ONE]
    assert store.collect() is not None
    assert store.used_bytes() < 1000


def test_an_id_is_used_once(store: ChunkStore) -> None:
    keep(store, ONE, workspace=b"first")
    with pytest.raises(Conflict):
        keep(store, ONE, workspace=b"second")
    assert kept(store, ONE) == {"workspace": b"first"}


def test_what_was_never_kept_is_not_found(store: ChunkStore) -> None:
    with pytest.raises(NotFound):
        kept(store, ONE)
    keep(store, ONE, workspace=b"first")
    with store.reading(ONE) as snapshot, pytest.raises(NotFound):
        snapshot.open("volume:db")
    store.delete(TWO)


def test_collecting_frees_what_no_snapshot_needs_and_nothing_else(store: ChunkStore) -> None:
    other = noise(b"other", 8 << 20)
    keep(store, ONE, workspace=BIG)
    keep(store, TWO, workspace=BIG[: 3 << 20] + other)
    store.delete(ONE)
    freed = store.collect()
    assert freed is not None
    assert freed.freed_bytes > 8 << 20, "a pack of which a quarter is needed is written anew"
    assert kept(store, TWO) == {"workspace": BIG[: 3 << 20] + other}
    store.delete(TWO)
    store.collect()
    assert store.used_bytes() == 0
    assert store.collect() == (0, 0)


def test_a_snapshot_that_is_read_is_not_deleted(store: ChunkStore) -> None:
    keep(store, ONE, workspace=BIG)
    with store.reading(ONE) as first, store.reading(ONE) as second:
        with pytest.raises(Conflict, match="being read"):
            store.delete(ONE)
        assert first.open("workspace").read() == second.open("workspace").read() == BIG
    store.delete(ONE)
    assert store.snapshots() == []


def test_nothing_is_collected_while_somebody_reads_or_writes(store: ChunkStore) -> None:
    keep(store, ONE, workspace=BIG)
    keep(store, TWO, workspace=b"")
    store.delete(ONE)
    with store.reading(TWO):
        assert store.collect() is None
    with store.writing(THREE) as snapshot:
        with snapshot.stream("workspace") as out:
            out.write(BIG)  # counts on what ONE had
        assert store.collect() is None
    assert kept(store, THREE) == {"workspace": BIG}


def test_nothing_is_collected_while_a_recipe_cannot_be_read(store: ChunkStore, tmp_path: Path) -> None:
    keep(store, ONE, workspace=BIG)
    recipe = tmp_path / "chunks" / "recipes" / f"{ONE}.recipe"
    whole = recipe.read_bytes()
    recipe.write_bytes(whole[:-50])
    used = store.used_bytes()
    with pytest.raises(StoreCorrupt):
        store.collect()
    assert store.used_bytes() == used
    recipe.write_bytes(whole)
    assert kept(store, ONE) == {"workspace": BIG}


def read_into(out: bytearray, stream: BinaryIO) -> None:
    while data := stream.read(1000):
        out += data


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def only_pack(folder: Path) -> Path:
    (pack,) = (folder / "packs").glob("*.pack")
    return pack


def test_damaged_bytes_are_told_and_not_given_out(store: ChunkStore, tmp_path: Path) -> None:
    keep(store, ONE, workspace=BIG)
    flip(only_pack(tmp_path / "chunks"), 6 << 20)
    out = bytearray()
    with store.reading(ONE) as snapshot, pytest.raises(StoreCorrupt):
        read_into(out, snapshot.open("workspace"))
    assert out == BIG[: len(out)]
    (damage,) = store.verify(ONE)
    assert (damage.stream, damage.chunks) == ("workspace", 1)


def test_bytes_in_another_order_are_told(store: ChunkStore, tmp_path: Path) -> None:
    """A recipe whose own sum is right proves the names of its chunks; the sum of the whole stream is looked at too."""
    import msgspec

    from sandboxer.store.chunks import recipes

    keep(store, ONE, workspace=BIG)
    folder = tmp_path / "chunks" / "recipes"
    recipe = recipes.read(folder, ONE)
    (stream,) = recipe.streams
    swapped = stream.chunks[32:64] + stream.chunks[:32] + stream.chunks[64:]
    store.delete(ONE)
    other = msgspec.structs.replace(recipe, streams=(msgspec.structs.replace(stream, chunks=swapped),))
    recipes.write(folder, other, lambda _: nullcontext())
    (damage,) = store.verify(ONE)
    assert "not what was kept" in damage.said


def test_a_verified_damage_is_mended_by_the_next_snapshot_of_the_same(store: ChunkStore, tmp_path: Path) -> None:
    keep(store, ONE, workspace=BIG)
    flip(only_pack(tmp_path / "chunks"), 6 << 20)
    assert store.verify(ONE)
    assert store.verify(ONE), "it stays damaged until the bytes come again"
    store.collect()
    assert 0 < keep(store, TWO, workspace=BIG) < 1 << 20
    assert store.verify(ONE) == store.verify(TWO) == ()
    store.collect()
    assert kept(store, ONE) == kept(store, TWO) == {"workspace": BIG}


def test_a_pack_whose_end_is_cut_off_is_kept_and_told(store: ChunkStore, tmp_path: Path) -> None:
    keep(store, ONE, workspace=BIG)
    pack = only_pack(tmp_path / "chunks")
    whole = pack.read_bytes()
    for size in (0, 10, len(whole) - 1):
        pack.write_bytes(whole[:size])
        assert store.verify(ONE)
        assert store.collect() == (0, 0)
        assert pack.stat().st_size == size
    pack.write_bytes(whole)
    assert store.verify(ONE) == ()


def test_a_chunk_that_claims_to_be_huge_is_damage(store: ChunkStore, tmp_path: Path) -> None:
    import zstandard

    keep(store, ONE, workspace=BIG[:100_000])
    pack = only_pack(tmp_path / "chunks")
    rows = packs.read_index(pack.parent, pack.name)
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 30))
    name, chunk = max(rows, key=lambda row: row[1].stored)
    data = bytearray(pack.read_bytes())
    data[chunk.offset : chunk.offset + len(bomb)] = bomb[: chunk.stored]
    pack.write_bytes(data)
    with pytest.raises(StoreCorrupt):
        packs.PackReader(pack.parent).read(name, chunk)


def test_the_quota_is_kept(tmp_path: Path) -> None:
    small = ChunkStore(tmp_path / "chunks", max_bytes=13 << 20)
    keep(small, ONE, workspace=BIG)
    keep(small, TWO, workspace=BIG, more=b"a little")
    with pytest.raises(OverQuota, match="max_bytes"):
        keep(small, THREE, workspace=noise(b"more", 3 << 20))
    assert small.snapshots() == [ONE, TWO]


def test_stores_share_nothing(tmp_path: Path) -> None:
    first = keep(ChunkStore(tmp_path / "one"), ONE, workspace=BIG)
    assert keep(ChunkStore(tmp_path / "two"), TWO, workspace=BIG) == first


def test_waiting_for_a_collection_has_an_end(tmp_path: Path) -> None:
    from sandboxer.store.file_lock import locked

    store = ChunkStore(tmp_path / "chunks", lock_seconds=0.1)
    keep(store, ONE, workspace=b"first")
    with locked(tmp_path / "chunks" / ".lock", seconds=5), pytest.raises(Unavailable):
        kept(store, ONE)


def test_many_who_read_the_same_at_once_get_all_of_it(store: ChunkStore) -> None:
    """What one has decoded is another's too; who leaves early takes nothing away."""
    keep(store, ONE, workspace=BIG)
    gate = threading.Barrier(6)

    def read(number: int) -> bytes:
        with store.reading(ONE) as snapshot:
            stream = snapshot.open("workspace")
            gate.wait(60)
            return stream.read(1 << 20) if number == 5 else stream.read()

    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(read, range(6)))
    assert got[:5] == [BIG] * 5
    assert got[5] == BIG[: 1 << 20]


def test_damage_is_told_to_each_who_reads_at_once(store: ChunkStore, tmp_path: Path) -> None:
    keep(store, ONE, workspace=BIG)
    flip(only_pack(tmp_path / "chunks"), 6 << 20)
    gate = threading.Barrier(4)

    def read(_: int) -> None:
        with store.reading(ONE) as snapshot:
            stream = snapshot.open("workspace")
            gate.wait(60)
            with pytest.raises(StoreCorrupt):
                stream.read()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))
