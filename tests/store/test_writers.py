"""Many at once: writers lose nothing, and readers never see half a document."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxer.store.document import AtomicDocument
from sandboxer.store.json_store import JsonStore
from tests.store.children import Child
from tests.store.faulty import InPlace, WithoutLock, document
from tests.store.records import ID, count, event, number, put, sandbox


def written_at_once(data: Path, *, writers: int, each: int, kind: type[AtomicDocument]) -> tuple[int, int, int]:
    """The counter, the records and the events after all writers have counted, added and told at once."""
    JsonStore(data).update(ID, put(sandbox(seq=0)))

    def writer(n: int) -> Callable[[], None]:
        def work() -> None:
            store = JsonStore(data, document=document(kind, data))
            for k in range(each):
                store.update(ID, count)
                store.update(number(n * each + k), put(sandbox(number(n * each + k)), event(f"{n}-{k}")))

        return work

    children = [Child(writer(n), held=True) for n in range(writers)]
    for child in children:
        child.go()
    statuses = {child.wait() for child in children}
    assert statuses == {0} or kind is not AtomicDocument
    store = JsonStore(data)
    record = store.get(ID)
    assert record is not None
    return record.seq, len(store.list()) - 1, len(store.events())


def test_64_processes_lose_no_update(tmp_path: Path) -> None:
    """Promise 12: 64 processes writing at once, 0 lost updates, and all within the lock's deadline."""
    assert written_at_once(tmp_path / "data", writers=64, each=4, kind=AtomicDocument) == (256, 256, 256)


def test_the_writers_see_a_store_without_a_lock(tmp_path: Path) -> None:
    counted, _, _ = written_at_once(tmp_path / "data", writers=8, each=20, kind=WithoutLock)
    assert counted < 160


def torn_readings(data: Path, kind: type[AtomicDocument]) -> list[str]:
    """What went wrong for a reader while another process was writing."""
    JsonStore(data).update(ID, put(sandbox(seq=0)))
    for n in range(20):
        JsonStore(data).update(number(n), put(sandbox(number(n))))
    torn: list[str] = []
    finished = threading.Event()

    def read() -> None:
        seen = 0
        cached = JsonStore(data)
        while not finished.is_set():
            try:
                assert len(json.loads((data / "sandboxes.json").read_bytes())["sandboxes"]) == 21
                for store in (cached, JsonStore(data)):
                    record = store.get(ID)
                    assert record is not None
                    assert record.seq >= seen, "never back in time"
                    seen = record.seq
            except Exception as error:  # noqa: BLE001 - whatever a reader meets is the finding
                torn.append(f"{type(error).__name__}: {error}")

    reader = threading.Thread(target=read)
    reader.start()
    try:

        def write() -> None:
            store = JsonStore(data, document=document(kind, data))
            for _ in range(200):
                store.update(ID, count)

        Child(write).wait()
    finally:
        finished.set()
        reader.join(30)
    return torn


def test_a_reader_never_sees_half_a_document(tmp_path: Path) -> None:
    """Promise 10: readers take no lock and need none, the one that caches and the one that does not."""
    assert torn_readings(tmp_path / "data", AtomicDocument) == []


def test_the_reader_sees_a_writer_that_writes_in_place(tmp_path: Path) -> None:
    assert torn_readings(tmp_path / "data", InPlace) != []


@pytest.mark.parametrize("sibling", ["snapshots.json", "credits.json"])
def test_another_document_of_the_directory_has_a_lock_and_a_life_of_its_own(tmp_path: Path, sibling: str) -> None:
    data = tmp_path / "data"
    JsonStore(data).update(ID, put(sandbox()))
    other = AtomicDocument(data / sibling, lock_seconds=0.1)
    with other.locked():
        JsonStore(data).update(ID, count)
        stamp = other.replace(b'{"schema_version":1}\n')
    reading = other.read()
    assert reading is not None
    assert reading.data == b'{"schema_version":1}\n'
    assert reading.stamp == stamp
    unchanged = other.read(unless=stamp)
    assert unchanged is not None
    assert unchanged.data is None
