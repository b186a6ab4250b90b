"""The JSON store: the contract, and what is particular to its files."""

from __future__ import annotations

import json
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandboxer.errors import StoreCorrupt
from sandboxer.store.base import Store
from sandboxer.store.document import AtomicDocument, DocumentVersion, VersionStamp
from sandboxer.store.json_store import ENDED_KEPT, JsonStore
from tests.store.contract import OpenStore, StoreContract
from tests.store.records import ID, NOON, OTHER, count, ended, event, number, put, sandbox, tell
from tests.testbed.components import need
from tests.testbed.umasks import umask
from tests.testbed.waiting import eventually


class TestJsonStore(StoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: JsonStore(tmp_path / "data")

    def await_company(self, store: Store, count: int) -> None:
        assert isinstance(store, JsonStore)
        eventually(lambda: store._commits.waiting == count, within=30, what="the updates wait", every=0.001)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


# -- the files --------------------------------------------------------------------------------------------------------


def test_the_document_is_readable_by_jq(data: Path) -> None:
    need("jq")
    store = JsonStore(data)
    store.update(ID, put(sandbox(labels={"snow": "\u2603\u2028\n"}), event("1")))
    words = [".schema_version", ".install", f'.sandboxes["{ID}"].labels.snow', ".outbox[0].event_id"]
    answer = subprocess.run(
        ["jq", "-c", f"[{','.join(words)}]", data / "sandboxes.json"], capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout) == [1, store.install_id, "\u2603\u2028\n", "1"]


def test_a_record_is_one_line_with_its_defaults_written_out(data: Path) -> None:
    store = JsonStore(data)
    store.update(ID, put(sandbox()))
    store.update(OTHER, put(sandbox(OTHER)))
    lines = (data / "sandboxes.json").read_text().splitlines()
    assert lines[2].startswith(f'"{ID}":{{"id":"{ID}",')
    assert lines[3].startswith(f'"{OTHER}":{{"id":"{OTHER}",')
    assert '"expires_at":null' in lines[2]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777], ids=oct)
def test_files_are_private_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    """Promise 28: files 0600, directories 0700."""
    with umask(mask):
        store = JsonStore(tmp_path / "above" / "data")
        for n in range(ENDED_KEPT + 1):
            store.update(number(n), put(ended(number(n))))
    found = {path.relative_to(tmp_path): stat.S_IMODE(path.lstat().st_mode) for path in tmp_path.rglob("*")}
    assert {str(path): oct(mode) for path, mode in found.items()} == {
        "above": "0o700",
        "above/data": "0o700",
        "above/data/archive": "0o700",
        "above/data/archive/2027-01.jsonl": "0o600",
        "above/data/install": "0o600",
        "above/data/sandboxes.json": "0o600",
        "above/data/.sandboxes.json.lock": "0o600",
        "above/data/.reserve": "0o600",
    }


def test_a_data_directory_that_others_could_read_is_closed(data: Path) -> None:
    data.mkdir(mode=0o755)
    data.chmod(0o755)
    JsonStore(data).update(ID, put(sandbox()))
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_reading_makes_nothing(data: Path) -> None:
    store = JsonStore(data)
    assert store.list(ended=True) == []
    assert store.get(ID) is None
    assert not data.exists()


def test_an_update_without_a_change_writes_nothing(data: Path) -> None:
    store = JsonStore(data)
    store.update(ID, put(sandbox()))
    before = (data / "sandboxes.json").stat()
    store.update(ID, tell())
    store.settle_events([event("unknown")])
    after = (data / "sandboxes.json").stat()
    assert (before.st_ino, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_ino,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def test_a_killed_writers_remains_are_cleared_away(data: Path) -> None:
    store = JsonStore(data)
    store.update(ID, put(sandbox()))
    left = data / ".sandboxes.json.tmp"
    left.write_text("half a docu")
    store.update(ID, count)
    assert not left.exists()
    target = data / "elsewhere"
    target.write_text("mine")
    left.symlink_to(target)
    store.update(ID, count)
    assert target.read_text() == "mine", "a link is removed, never written through"
    assert not left.is_symlink()


# -- the cache --------------------------------------------------------------------------------------------------------


def test_every_version_is_seen_although_inodes_and_sizes_repeat(data: Path) -> None:
    """Two renames give the first inode back, within one tick of the clock, with the same size."""
    reader, writer = JsonStore(data), JsonStore(data)
    writer.update(ID, put(sandbox(seq=100)))
    for n in range(101, 400):
        writer.update(ID, count)
        if n % 2:
            record = reader.get(ID)
            assert record is not None
            assert record.seq == n


def test_an_unchanged_document_is_not_read_again(data: Path) -> None:
    """The figure for `get`: in a running process 10,000 records cost what 10 cost."""
    readings = []

    class Noted(AtomicDocument):
        def read(self, *, unless: VersionStamp | None = None) -> DocumentVersion | None:
            reading = super().read(unless=unless)
            readings.append(reading is not None and reading.data is not None)
            return reading

    JsonStore(data).update(ID, put(sandbox()))
    store = JsonStore(data, document=Noted(data / "sandboxes.json"))
    for _ in range(3):
        store.get(ID)
    store.update(ID, count)
    store.get(ID)
    store.list()
    assert readings == [True] + [False] * 5
    JsonStore(data).update(ID, count)
    assert store.get(ID) == sandbox(seq=2)
    assert readings[-1] is True


def test_what_is_being_written_is_read_as_it_will_be(data: Path) -> None:
    """Between the rename and the end of the flush a document is there that its writer has not told of yet."""
    visible, go_on = threading.Event(), threading.Event()

    class Slow(AtomicDocument):
        def _publish(self) -> None:
            super()._publish()
            visible.set()
            assert go_on.wait(30)

    JsonStore(data).update(ID, put(sandbox()))
    store = JsonStore(data, document=Slow(data / "sandboxes.json"))
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(store.update, ID, count)
        try:
            assert visible.wait(30)
            assert store.get(ID) == JsonStore(data).get(ID) == sandbox(seq=1)
        finally:
            go_on.set()
        assert writing.result(30) == store.get(ID) == sandbox(seq=1)


def test_a_persons_edit_is_seen_and_kept(data: Path) -> None:
    store = JsonStore(data)
    store.update(ID, put(sandbox(name="web", idempotency_key="k\u2603"), event("1", status="sent")))
    path = data / "sandboxes.json"
    document = json.loads(path.read_text())
    document["sandboxes"][ID]["name"] = "shop"
    document["sandboxes"][ID]["a_later_field"] = {"kept": [1, None]}
    path.write_text(json.dumps(document, indent=4, sort_keys=True))
    assert [record.id for record in store.find("shop")] == [ID]
    assert store.find("web") == []

    store.update(OTHER, put(sandbox(OTHER)))
    again = json.loads(path.read_text())
    assert again["sandboxes"][ID] == document["sandboxes"][ID]
    assert again["outbox"] == document["outbox"]
    assert [record.id for record in JsonStore(data).find("shop")] == [ID]


# -- the archive ------------------------------------------------------------------------------------------------------


def test_ended_records_move_to_the_month_they_ended_in(data: Path) -> None:
    store = JsonStore(data)
    store.update(ID, put(sandbox()))
    months = {"2027-01": NOON, "2027-02": NOON + 31 * 86400}
    for n in range(ENDED_KEPT):
        store.update(number(n), put(ended(number(n), destroyed_at=list(months.values())[n % 2])))
    assert not (data / "archive").exists(), "so many stay at hand"
    store.update(number(ENDED_KEPT), put(ended(number(ENDED_KEPT), destroyed_at=NOON)))
    assert list(json.loads((data / "sandboxes.json").read_text())["sandboxes"]) == [ID]
    lines = {month: (data / "archive" / f"{month}.jsonl").read_text().splitlines() for month in months}
    assert {month: len(found) for month, found in lines.items()} == {"2027-01": 33, "2027-02": 32}
    assert all(json.loads(line)["state"] == "destroyed" for line in lines["2027-01"])


def fill_archive(store: JsonStore, *, first: int = 0) -> None:
    for n in range(first, first + ENDED_KEPT + 1):
        store.update(number(n), put(ended(number(n))))


def test_what_others_move_to_the_archive_is_found_by_one_that_knows_it(data: Path) -> None:
    """Whoever asks again and again reads the archive once, until it changes."""
    store, other = JsonStore(data), JsonStore(data)
    fill_archive(other)
    for _ in range(4):
        assert store.get(number(3)) == ended(number(3))
        assert store.get(number(100)) is None
        assert store.get("no id") is None
    fill_archive(other, first=100)
    for _ in range(4):
        assert store.get(number(100)) == ended(number(100))
        assert store.get(number(3)) == ended(number(3))
        assert store.get(ID) is None
    (data / "archive" / "2027-01.jsonl").unlink()
    assert store.get(number(100)) is None


KEYS = ["plain", 'with "quotes"', "back\\slash\\", "ünïcode ✓", "tab\there", "{", '","idempotency_key":"plain2']


def test_a_key_is_found_in_the_archive_however_often_it_is_asked_and_whatever_is_in_it(data: Path) -> None:
    """Whoever asks again and again reads the archive once, until it changes."""
    store, other = JsonStore(data), JsonStore(data)

    def found(key: str) -> str | None:
        record = store.others().by_idempotency_key(key)
        return None if record is None else record.id

    for n, key in enumerate(KEYS):
        other.update(number(n), put(ended(number(n), idempotency_key=key)))
    fill_archive(other, first=100)
    assert len(json.loads((data / "sandboxes.json").read_bytes())["sandboxes"]) < 10
    for _ in range(3):
        assert [found(key) for key in KEYS] == [number(n) for n in range(len(KEYS))]
        assert [found(key) for key in ("none", "plain2", "", "plai", "null", "with ")] == [None] * 6
    other.update(number(200), put(ended(number(200), idempotency_key="later")))
    fill_archive(other, first=201)
    for _ in range(3):
        assert found("later") == number(200)
        assert found("plain") == number(0)
        assert found("none") is None


def test_an_archive_that_a_crash_cut_short_is_read_and_mended(data: Path) -> None:
    """Promise 10: the record whose line was cut is still in the document."""
    store = JsonStore(data)
    fill_archive(store)
    path = data / "archive" / "2027-01.jsonl"
    whole = path.read_bytes()
    for cut in (1, 40):
        path.write_bytes(whole + whole[:-cut].splitlines()[-1] if cut == 1 else whole + whole[:cut])
        assert len(store.list(ended=True)) == ENDED_KEPT + 1
        assert store.get(number(3)) == ended(number(3))
    fill_archive(store, first=100)
    assert path.read_bytes().startswith(whole)
    assert len(path.read_bytes().splitlines()) == 2 * (ENDED_KEPT + 1)
    assert len(store.list(ended=True)) == 2 * (ENDED_KEPT + 1)


def test_a_last_line_without_its_end_is_a_record_all_the_same(data: Path) -> None:
    store = JsonStore(data)
    fill_archive(store)
    path = data / "archive" / "2027-01.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    assert len(store.list(ended=True)) == ENDED_KEPT + 1
    fill_archive(store, first=100)
    assert len(store.list(ended=True)) == 2 * (ENDED_KEPT + 1)


def test_a_record_in_both_places_is_shown_once_as_the_document_has_it(data: Path) -> None:
    store = JsonStore(data)
    fill_archive(store)
    before = (data / "sandboxes.json").read_bytes()
    fill_archive(store, first=100)
    store.update(number(100), put(ended(number(100), seq=9)))
    assert store.get(number(100)) == ended(number(100), seq=9)
    assert len(store.list(ended=True)) == 2 * (ENDED_KEPT + 1)
    (data / "sandboxes.json").write_bytes(before)
    fill_archive(store, first=100)  # appended a second time
    assert len(store.list(ended=True)) == 2 * (ENDED_KEPT + 1)


def test_a_damaged_archive_is_named_and_harms_only_its_own_records(data: Path) -> None:
    """Promise 13, for the archive."""
    store = JsonStore(data)
    fill_archive(store)
    path = data / "archive" / "2027-01.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3][:50] + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(StoreCorrupt, match="2027-01"):
        store.list(ended=True)
    with pytest.raises(StoreCorrupt, match="2027-01"):
        store.get(number(3))
    assert store.get(number(4)) == ended(number(4))
    store.update(ID, put(sandbox()))
    assert path.read_bytes() == b"".join(lines)
