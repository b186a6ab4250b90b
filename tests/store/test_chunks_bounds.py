"""What one consumer's snapshots take has a bound, whatever is sent and however many are taken at once."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandboxer.errors import Denied, OverQuota, SandboxerError
from sandboxer.store.chunks import ChunkStore, decoding, packs, writing
from sandboxer.store.chunks.chunker import LONGEST
from tests.store.test_chunks import ONE, TWO, keep, noise


def taken(folder: Path) -> int:
    """What the files of a store take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_quota_is_kept_however_many_are_taken_at_once(tmp_path: Path) -> None:
    """Each of them fits alone, and saw the same room when it began."""
    folder, most = tmp_path / "chunks", 3 << 20
    gate = threading.Barrier(4)

    def take(number: int) -> bool:
        try:
            with ChunkStore(folder, max_bytes=most).writing(f"snap-{number:012}") as snapshot:
                gate.wait(60)
                with snapshot.stream("workspace") as out:
                    out.write(noise(b"%d" % number, 2 << 20))
        except OverQuota:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        kept = list(pool.map(take, range(4)))
    assert sum(kept) == 1
    assert taken(folder) <= most


def test_what_is_kept_already_takes_room_too_by_its_names(tmp_path: Path) -> None:
    """The same bytes again and again add no chunk, but a name for each."""
    folder, most = tmp_path / "chunks", 20_000
    store = ChunkStore(folder, max_bytes=most)
    keep(store, ONE, workspace=bytes(100 * LONGEST))

    def again_and_again() -> None:
        for number in range(100):
            keep(store, f"snap-{number:012}", workspace=bytes(100 * LONGEST))

    with pytest.raises(OverQuota, match="max_bytes"):
        again_and_again()
    assert taken(folder) <= most
    with pytest.raises(OverQuota, match="max_bytes"):
        keep(ChunkStore(tmp_path / "other", max_bytes=5000), TWO, workspace=bytes(200 * LONGEST))


def test_a_stream_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tar inside can be made to say anything, for as long as it may run."""
    monkeypatch.setattr(writing, "MOST_CHUNKS", 50)
    store = ChunkStore(tmp_path / "chunks")

    def endless() -> None:
        with store.writing(ONE) as snapshot, snapshot.stream("workspace") as out:
            for _ in itertools.repeat(None, 10_000):
                out.write(bytes(1 << 20))

    with pytest.raises(Denied, match="too large"):
        endless()
    assert store.snapshots() == []


def test_what_is_decoded_for_others_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros with a counter in between: each chunk is as long as one may be, and another."""
    monkeypatch.setattr(decoding, "KEPT_BYTES", 8 << 20)
    shared = decoding._shared
    store = ChunkStore(tmp_path / "chunks")
    data = b"".join(number.to_bytes(8, "big") + bytes(LONGEST - 8) for number in range(200))
    keep(store, ONE, workspace=data)
    with store.reading(ONE) as first, store.reading(ONE) as second:
        assert first.open("workspace").read() == data
        assert sum(map(len, shared._done.values())) <= 8 << 20
        assert second.open("workspace").read() == data
        assert sum(map(len, shared._done.values())) <= 8 << 20
    assert not shared._done


def test_several_who_verify_at_once_all_learn_what_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ChunkStore(tmp_path / "chunks")
    keep(store, ONE, workspace=noise(b"damaged", 1 << 20))
    (pack,) = (tmp_path / "chunks" / "packs").glob("*.pack")
    data = bytearray(pack.read_bytes())
    data[500_000] ^= 1
    pack.write_bytes(data)
    gate = threading.Barrier(4)
    marking = ChunkStore._mark

    def together(self: ChunkStore, *words: object) -> None:
        gate.wait(60)
        marking(self, *words)  # type: ignore[arg-type]  # what was given

    monkeypatch.setattr(ChunkStore, "_mark", together)

    def verify(_: int) -> object:
        try:
            return [found.chunks for found in ChunkStore(tmp_path / "chunks").verify(ONE)]
        except SandboxerError as error:
            return error.message

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(verify, range(4))) == [[1]] * 4
    assert packs.names(pack.parent) == [pack.name]


def test_marks_of_several_are_not_lost(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path / "chunks")
    keep(store, ONE, workspace=b"here")
    (pack,) = packs.names(tmp_path / "chunks" / "packs")
    names = [number.to_bytes(32, "big") for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store._mark(pack, [name]), names))
    assert store._marked(pack) == frozenset(names)
