"""What a killed process and a power cut leave behind."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandboxer.models import Sandbox
from sandboxer.store.base import Change, OtherRecords
from sandboxer.store.document import AtomicDocument
from sandboxer.store.group_commit import GroupCommit
from sandboxer.store.json_store import ENDED_KEPT, JsonStore
from tests.store.children import Child, Traced
from tests.store.faulty import Hasty, InPlace, WithoutDirectoryFlush, WithoutFlush, document
from tests.store.records import ID, OTHER, ended, event, number, put, sandbox
from tests.store.volumes import Volume
from tests.testbed.components import need

Prepare = Callable[[Path], None]


def told_count(current: Sandbox | None, others: OtherRecords) -> Change:
    """Counts up, with an event that has the same number: they are there together or not at all."""
    seq = current.seq + 1 if current else 1
    record = msgspec.structs.replace(current or sandbox(seq=0), seq=seq)
    return Change(record=record, events=[event(str(seq))])


def one_more(store: JsonStore) -> str:
    record = store.update(ID, told_count)
    assert record is not None
    return f"acknowledged {record.seq}"


def last_ended(store: JsonStore) -> str:
    """The one that is too many: with it all ended records move to the archive."""
    store.update(number(ENDED_KEPT), put(ended(number(ENDED_KEPT))))
    return one_more(store)


def nothing(data: Path) -> None:
    pass


def a_record(data: Path) -> None:
    JsonStore(data).update(OTHER, put(sandbox(OTHER)))
    one_more(JsonStore(data))


def a_killed_writers_remains(data: Path) -> None:
    a_record(data)
    (data / ".sandboxes.json.tmp").write_bytes(b'{"schema_version":1,')


def nearly_too_many_ended(data: Path) -> None:
    a_record(data)
    for n in range(ENDED_KEPT):
        JsonStore(data).update(number(n), put(ended(number(n))))


SCENES: dict[str, tuple[Prepare, Callable[[JsonStore], str]]] = {
    "first": (nothing, one_more),
    "another": (a_record, one_more),
    "after a crash": (a_killed_writers_remains, one_more),
    "archiving": (nearly_too_many_ended, last_ended),
}


def state_of(data: Path) -> tuple[int, Sequence[Sandbox]]:
    """The counter and all other records; asserts that record and events agree."""
    store = JsonStore(data)
    record = store.get(ID)
    seq = record.seq if record else 0
    assert [told.event_id for told in store.events()] == [str(n) for n in range(1, seq + 1)]
    return seq, [one for one in store.list(ended=True) if one.id != ID]


def calls_of(work: Callable[[], object], log: Path) -> list[tuple[str, int]]:
    """Every system call of a piece of work as (name, its how-manieth of that name), which is how strace counts."""
    seen: Counter[str] = Counter()
    found = []
    for call in Traced(work, log).calls:
        name = call.partition("(")[0]
        if not name.isidentifier():
            continue
        seen[name] += 1
        found.append((name, seen[name]))
    assert found[0] == ("read", 1), "the first is the child waiting to be told to go"
    return found[1:]


def killed_at(
    call: tuple[str, int], before: Path, *, work: Callable[[JsonStore], str], kind: type[AtomicDocument]
) -> bool:
    """Kill an update at one system call and check what is left; answers whether it came to that call."""
    data = fresh_copy(before)
    seq, others = state_of(data)
    traced = Traced(
        lambda: work(JsonStore(data, document=document(kind, data))),
        before.with_name("log"),
        "-e",
        f"inject={call[0]}:signal=KILL:when={call[1]}",
    )
    left, others_left = state_of(data)
    where = f"killed at {call}: {traced.calls[-3:]}"
    assert left in ((seq + 1,) if traced.answer else (seq, seq + 1)), where
    assert [one for one in others_left if one in others] == list(others), where
    assert [one.id for one in others_left if one not in others] in ([], [number(ENDED_KEPT)]), where
    assert one_more(JsonStore(data)) == f"acknowledged {left + 1}", where
    assert not (data / ".sandboxes.json.tmp").exists(), where
    assert state_of(data)[0] == left + 1, where
    return traced.status == -signal.SIGKILL


def fresh_copy(before: Path) -> Path:
    data = before.with_name("data")
    shutil.rmtree(data, ignore_errors=True)
    if before.exists():
        shutil.copytree(before, data)
    return data


def sweep(scene: str, folder: Path, *, kind: type[AtomicDocument] = AtomicDocument) -> int:
    """How many kills an update in this scene has been through."""
    prepare, work = SCENES[scene]
    before = folder / "before"
    prepare(before)
    data = fresh_copy(before)
    calls = calls_of(lambda: work(JsonStore(data, document=document(kind, data))), folder / "log")
    return sum(killed_at(call, before, work=work, kind=kind) for call in calls)


@pytest.mark.parametrize(
    ("scene", "at_least"), [("first", 60), ("another", 45), ("after a crash", 45), ("archiving", 90)]
)
def test_a_write_killed_at_any_system_call_leaves_a_whole_store(tmp_path: Path, scene: str, at_least: int) -> None:
    """Promise 10: 0 torn files, 0 acknowledged writes lost, and the next writer goes on. At every single call."""
    need("strace", "root")
    assert sweep(scene, tmp_path) >= at_least


def test_the_kill_sweep_sees_a_writer_that_writes_in_place(tmp_path: Path) -> None:
    need("strace", "root")
    with pytest.raises(Exception, match=r"not a store of ours|is empty|killed at"):
        sweep("another", tmp_path, kind=InPlace)


# -- many threads ---------------------------------------------------------------------------------------------------


def killed_among_threads(data: Path, kind: type[GroupCommit[Any]], *, after: int) -> tuple[int, int]:
    """SIGKILL a process in which 12 threads count, once it has told of so many changes; how many it has told in all,
    and how many of those are not there."""
    JsonStore(data).update(ID, put(sandbox()))
    heard, say = os.pipe()

    def work() -> None:
        store = JsonStore(data)
        store._commits = kind(store._document, read=store._draft, write=store._commit)

        def count_on(me: int) -> None:
            def more(current: Sandbox | None, others: OtherRecords) -> Change:
                seq = current.seq + 1 if current else 1
                return Change(record=sandbox(number(me), seq=seq), events=[event(f"{me}-{seq}")])

            while True:
                record = store.update(number(me), more)
                assert record is not None
                os.write(say, f"{me} {record.seq}\n".encode())

        with ThreadPoolExecutor(12) as pool:
            list(pool.map(count_on, range(12)))

    child = Child(work)
    os.close(say)
    with open(heard, "rb") as lines:
        told = [lines.readline() for _ in range(after)]
        os.kill(child.pid, signal.SIGKILL)
        told += lines.readlines()
    assert child.wait() == -signal.SIGKILL
    child.heard()
    store = JsonStore(data)
    kept = {record.id: record.seq for record in store.list()}
    events = {one.event_id for one in store.events()}
    for sandbox_id, seq in kept.items():
        assert sandbox_id == ID or f"{int(sandbox_id[1:])}-{seq}" in events, (
            "a record without the event that tells of it"
        )
    missing = [line for line in told if kept.get(number(int(line.split()[0])), 0) < int(line.split()[1])]
    return len(told), len(missing)


def test_a_process_killed_while_its_threads_share_a_write_has_lost_nothing_it_told_of(tmp_path: Path) -> None:
    """Promise 10, for many threads: 0 acknowledged writes lost, and records and events agree."""
    for turn in range(10):
        told, missing = killed_among_threads(tmp_path / str(turn), GroupCommit, after=1 + 7 * turn)
        assert told > 7 * turn
        assert missing == 0


def test_the_kills_see_a_store_that_tells_before_it_writes(tmp_path: Path) -> None:
    found = [killed_among_threads(tmp_path / str(turn), Hasty, after=1 + 7 * turn)[1] for turn in range(10)]
    assert sum(found) > 0


# -- power ------------------------------------------------------------------------------------------------------------


def trace_of(work: Callable[[], object], log: Path) -> Sequence[str]:
    """The calls of a piece of work that matter to what is on the disk, each as `name path`."""
    calls = Traced(
        work, log, "-e", "trace=poll,read,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink"
    ).calls
    return [f"{call.partition('(')[0]} {call}" for call in calls]


def position(calls: Sequence[str], *words: str, last: bool = False) -> int:
    found = [n for n, call in enumerate(calls) if all(word in call for word in words)]
    assert found, f"no call with {words} in {calls}"
    return found[-1 if last else 0]


def check_order(calls: Sequence[str], data: Path) -> None:
    """Bytes durable, then named; name durable, then told."""
    temporary, folder = ".sandboxes.json.tmp>", f"<{data}>"
    written = position(calls, "write ", temporary, last=True)
    flushed = position(calls, "fsync ", temporary)
    renamed = position(calls, "rename ", ".sandboxes.json.tmp")
    named = position(calls, "fsync ", folder, last=True)
    told = position(calls, "write ", "acknowledged")
    assert written < flushed < renamed < named < told


@pytest.mark.parametrize("prepare", [nothing, a_record])
def test_bytes_are_durable_before_their_name_and_the_name_before_the_answer(tmp_path: Path, prepare: Prepare) -> None:
    """Promise 11: file fsync, rename, directory fsync, and only then the acknowledgement."""
    need("strace", "root")
    data = tmp_path / "data"
    prepare(data)
    check_order(trace_of(lambda: one_more(JsonStore(data)), tmp_path / "log"), data)


def test_ended_records_are_durable_in_the_archive_before_they_leave_the_document(tmp_path: Path) -> None:
    """Promise 11, for the archive."""
    need("strace", "root")
    data = tmp_path / "data"
    nearly_too_many_ended(data)
    calls = trace_of(lambda: last_ended(JsonStore(data)), tmp_path / "log")
    archived = position(calls, "fsync ", "archive/2027-01.jsonl>")
    named = position(calls, "fsync ", f"<{data}/archive>")
    renames = [n for n, call in enumerate(calls) if call.startswith("rename ")]
    assert renames[0] < archived < named < renames[1], "recorded as ended, archived, taken out"


def test_the_installation_is_durable_before_anything_carries_its_id(tmp_path: Path) -> None:
    """Promises 8 and 11: a label on a backend must not outlive the id that it is recognised by."""
    need("strace", "root")
    data = tmp_path / "data"
    calls = trace_of(lambda: JsonStore(data).install_id, tmp_path / "log")
    flushed = position(calls, "fsync ", ".install.tmp>")
    renamed = position(calls, "rename ", ".install.tmp")
    named = position(calls, "fsync ", f"<{data}>", last=True)
    assert position(calls, "fsync ", f"<{tmp_path}>") < flushed < renamed < named < len(calls) - 1


@pytest.mark.parametrize("kind", [WithoutFlush, WithoutDirectoryFlush])
def test_the_check_of_the_order_sees_a_missing_flush(tmp_path: Path, kind: type[AtomicDocument]) -> None:
    need("strace", "root")
    data = tmp_path / "data"
    a_record(data)
    calls = trace_of(lambda: one_more(JsonStore(data, document=document(kind, data))), tmp_path / "log")
    with pytest.raises(AssertionError):
        check_order(calls, data)


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    need("root", "mkfs.ext4", "mount")
    with Volume(tmp_path / "volume", size_mb=16) as made:
        yield made


def acknowledged_through_a_power_cut(volume: Volume, kind: type[AtomicDocument]) -> tuple[int, int]:
    """How far writers were told to have come when the power went, and how far the disk says."""
    data = volume.path / "data"
    a_record(data)
    os.sync()

    def work() -> str:
        store = JsonStore(data, document=document(kind, data))
        told = [one_more(store) for _ in range(20)]
        return told[-1]

    child = Child(work)
    assert child.wait() == 0
    volume.cut_power()
    return int(child.heard().split()[1]), state_of(data)[0]


def test_acknowledged_writes_survive_a_power_cut(volume: Volume) -> None:
    """Promise 11, on a real ext4 that is shut down without its log."""
    told, left = acknowledged_through_a_power_cut(volume, AtomicDocument)
    assert (told, left) == (21, 21)
    assert one_more(JsonStore(volume.path / "data")) == "acknowledged 22"


def test_the_power_cut_sees_a_missing_flush(volume: Volume) -> None:
    told, left = acknowledged_through_a_power_cut(volume, WithoutEither)
    assert left < told


class WithoutEither(WithoutFlush, WithoutDirectoryFlush):
    """Leaves all to the file system."""
