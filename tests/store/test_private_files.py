"""Disks that are full, broken or read-only: a clean error, and the state as before."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from sandboxer.errors import Denied, SandboxerError, Unavailable
from sandboxer.models import Sandbox
from sandboxer.state import State
from sandboxer.store.base import Change, OtherRecords
from sandboxer.store.document import AtomicDocument
from sandboxer.store.json_store import ENDED_KEPT, JsonStore
from tests.store.children import Traced
from tests.store.faulty import Hopeful, WithoutReserve, document
from tests.store.neighbours import together
from tests.store.records import ID, NOON, OTHER, count, ended, event, number, put, sandbox
from tests.store.volumes import Memory, Volume
from tests.testbed.components import need
from tests.testbed.waiting import eventually


@pytest.fixture(params=["ext4", "tmpfs"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Volume]:
    need("root", "mount", "mkfs.ext4")
    kind = {"ext4": Volume, "tmpfs": Memory}[request.param]
    with kind(tmp_path / "volume", size_mb=16) as made:
        yield made


def destroyed(current: Sandbox | None, others: OtherRecords) -> Change:
    assert current is not None
    gone = msgspec.structs.replace(current, state=State.DESTROYED, destroyed_at=NOON, clean=True)
    return Change(record=gone, events=[event(f"{current.id}-gone")])


def many(data: Path, records: int = 100) -> None:
    JsonStore(data).update(ID, put(sandbox()))
    for n in range(records):
        JsonStore(data).update(number(n), put(sandbox(number(n))))


def test_a_full_disk_refuses_changes_and_keeps_the_state(volume: Volume) -> None:
    """Promise 14: a clean error, state as before, nothing left lying about; and on again when there is room."""
    data = volume.path / "data"
    many(data)
    filler = volume.fill()
    before = (data / "sandboxes.json").read_bytes()
    attempts: list[Callable[[JsonStore], object]] = [
        lambda store: store.update(ID, count),
        lambda store: store.update(OTHER, put(sandbox(OTHER))),
        lambda store: store.update(number(0), destroyed),
    ]
    for attempt in attempts:
        with pytest.raises(Unavailable, match=r"no space left.*sandboxes\.json") as caught:
            attempt(JsonStore(data))
        assert "free some space" in caught.value.hint
        assert caught.value.outcome == "failed"
    assert (data / "sandboxes.json").read_bytes() == before
    assert not (data / ".sandboxes.json.tmp").exists()
    assert len(JsonStore(data).list()) == 101
    filler.unlink()
    JsonStore(data).update(ID, count)


def test_what_was_destroyed_is_recorded_at_0_bytes_free(volume: Volume) -> None:
    """Promise 14: `destroy` still works, for sandbox after sandbox, and what it recorded survives."""
    data = volume.path / "data"
    many(data)
    filler = volume.fill()
    gone = [number(n) for n in range(ENDED_KEPT + 10)]
    for sandbox_id in gone:
        stored = JsonStore(data).update(sandbox_id, destroyed, must_succeed=True)
        assert stored is not None
        assert stored.state == State.DESTROYED
    volume.cut_power()
    store = JsonStore(data)
    assert len(store.list()) == 101 - len(gone)
    assert len(store.list(ended=True)) == 101
    assert [told.event_id for told in store.events()] == [f"{sandbox_id}-gone" for sandbox_id in gone]
    filler.unlink()
    store.update(ID, count)
    assert (data / ".reserve").stat().st_size >= 1 << 20, "set aside again as soon as there is room"


def test_what_was_destroyed_is_recorded_although_others_wanted_to_write_along_with_it(volume: Volume) -> None:
    """Promise 14: threads that come at once share a write; on a full disk, each gets what it would get alone."""
    data = volume.path / "data"
    many(data)
    filler = volume.fill()
    store = JsonStore(data)

    def hold(middle: Callable[[], None]) -> None:
        def nothing(current: Sandbox | None, others: OtherRecords) -> Change:
            middle()
            return Change()

        store.update(ID, nothing)

    def gathered(waiting: int) -> None:
        eventually(lambda: store._commits.waiting == waiting, within=30, what="they wait", every=0.001)

    acts: list[Callable[[], Sandbox | None]] = []
    for n in range(6):
        acts += [
            partial(store.update, ID, count),
            partial(store.update, number(n), destroyed, must_succeed=True),
            partial(store.update, number(50 + n), put(sandbox(number(50 + n)))),  # as it is
        ]
    found = together(acts, hold=hold, gathered=gathered)
    assert [type(one) for one in found[0::3]] == [Unavailable] * 6
    assert [one.state for one in found[1::3] if isinstance(one, Sandbox)] == [State.DESTROYED] * 6
    filler.unlink()
    again = JsonStore(data)
    assert [one.event_id for one in again.events()] == [f"{number(n)}-gone" for n in range(6)]
    assert len(again.list()) == 95
    assert again.get(ID) == sandbox()
    again.update(ID, count)


def test_the_full_disk_sees_a_store_without_a_reserve(volume: Volume) -> None:
    data = volume.path / "data"
    kind = WithoutReserve
    JsonStore(data, document=document(kind, data)).update(ID, put(sandbox()))
    (data / ".reserve").unlink(missing_ok=True)
    volume.fill()
    with pytest.raises(Unavailable, match="no space left"):
        JsonStore(data, document=document(kind, data)).update(ID, destroyed, must_succeed=True)


def test_a_first_use_on_a_full_disk_leaves_nothing_half_made(volume: Volume) -> None:
    """Promise 14."""
    data = volume.path / "data"
    data.mkdir()
    filler = volume.fill()
    with pytest.raises(Unavailable, match="no space left"):
        JsonStore(data).update(ID, put(sandbox(labels={"a": "b" * 200})))
    assert JsonStore(data).list() == []
    filler.unlink()
    JsonStore(data).update(ID, put(sandbox()))
    assert JsonStore(data).list() == [sandbox()]


def test_the_reserve_grows_with_the_document(tmp_path: Path) -> None:
    data = tmp_path / "data"
    store = JsonStore(data)
    store.update(ID, put(sandbox()))
    reserve = data / ".reserve"
    assert reserve.stat().st_size == 1 << 20
    assert reserve.stat().st_blocks * 512 >= 1 << 20, "allocated, not a hole"
    store.update(OTHER, put(sandbox(OTHER, inputs={"large": "x" * (2 << 20)})))
    assert reserve.stat().st_size >= 4 << 20


def test_a_read_only_file_system_is_readable_and_says_what_it_is(tmp_path: Path) -> None:
    """Promise 14."""
    need("root", "mount", "mkfs.ext4")
    with Volume(tmp_path / "volume", size_mb=16) as volume:
        data = volume.path / "data"
        many(data, 3)
        volume.make_read_only()
        store = JsonStore(data)
        assert len(store.list()) == 4
        assert store.install_id
        for must_succeed in (False, True):
            with pytest.raises(Unavailable, match="read-only") as caught:
                store.update(ID, count, must_succeed=must_succeed)
            assert "mount it writable" in caught.value.hint
        new = JsonStore(volume.path / "new")
        with pytest.raises(Unavailable, match="read-only"):
            _ = new.install_id


def test_a_file_in_the_place_of_the_data_directory_is_told(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("not a directory")
    attempts: list[Callable[[JsonStore], object]] = [lambda store: store.list(), lambda store: store.update(ID, count)]
    for attempt in attempts:
        with pytest.raises(Unavailable, match=str(path)) as caught:
            attempt(JsonStore(path))
        assert "SANDBOXER_DATA_DIR" in caught.value.hint
    assert path.read_text() == "not a directory"


# -- errors at each call ----------------------------------------------------------------------------------------------

FAILING = {
    "openat": "EIO",
    "fstat": "EIO",
    "newfstatat": "EIO",
    "pread64": "EIO",
    "lseek": "EIO",
    "read": "EIO",
    "mkdir": "ENOSPC",
    "chmod": "EPERM",
    "fchmod": "EROFS",
    "flock": "ENOLCK",
    "write": "ENOSPC",
    "fsync": "EIO",
    "rename": "EIO",
    "unlink": "EROFS",
    "fallocate": "EOPNOTSUPP",
    "ftruncate": "EIO",
    "close": "EIO",
}


def attempted(data: Path, kind: type[AtomicDocument]) -> str:
    """Archives too: the record is one ended too many, and comes with an event."""
    new = ended(number(ENDED_KEPT))
    try:
        JsonStore(data, document=document(kind, data)).update(new.id, put(new, event("new")))
    except (Unavailable, Denied) as error:
        return f"refused {error.outcome} {bool(error.hint)}"
    return "done"


def failing_at(name: str, nth: int, *, before: Path, kind: type[AtomicDocument] = AtomicDocument) -> bool:
    """One failing call in an update, and what is left; False when there is no such call."""
    data = before.with_name("data")
    shutil.rmtree(data, ignore_errors=True)
    if before.exists():
        shutil.copytree(before, data)
    known = JsonStore(data).list(ended=True)
    traced = Traced(
        lambda: attempted(data, kind), data.with_name("log"), "-e", f"inject={name}:error={FAILING[name]}:when={nth}"
    )
    hit = [call for call in traced.calls if "(INJECTED)" in call and "<pipe:" not in call]  # the child's answer
    if not hit:
        return False
    where = f"{name} {nth} {traced.answer!r}: {hit}"
    left = JsonStore(data).list(ended=True)
    told = [one.event_id for one in JsonStore(data).events()]
    if traced.answer == "done":
        assert (len(left), told) == (len(known) + 1, ["new"]), where
    else:
        assert traced.answer == "refused failed True", where
        assert (left, told) == (known, []), where
        assert not (data / ".sandboxes.json.tmp").exists(), where
    JsonStore(data).update(OTHER, put(sandbox(OTHER)))
    assert len(JsonStore(data).list(ended=True)) == len(left) + 1, where
    return True


@pytest.mark.parametrize("scene", ["first", "archiving"])
def test_an_error_of_any_call_is_a_clean_refusal(tmp_path: Path, scene: str) -> None:
    """Promise 14: each call of a write that can fail does so once; either it is done, or nothing has changed."""
    need("strace", "root")
    before = tmp_path / "before"
    if scene == "archiving":
        for n in range(ENDED_KEPT):
            JsonStore(before).update(number(n), put(ended(number(n))))
    hits = 0
    for name in FAILING:
        nth = 2 if name == "read" else 1  # the first read is the child's wait for its start
        while failing_at(name, nth, before=before):
            nth += 1
            hits += 1
    assert hits > 40


def test_the_sweep_of_errors_sees_a_store_that_takes_them_for_success(tmp_path: Path) -> None:
    need("strace", "root")
    before = tmp_path / "before"
    JsonStore(before).update(ID, put(sandbox()))
    with pytest.raises(AssertionError, match="fsync 1"):
        failing_at("fsync", 1, before=before, kind=Hopeful)


def test_a_document_that_cannot_be_put_back_is_told_as_unknown(tmp_path: Path) -> None:
    """Promise 14's limit: the rename is done, the directory cannot be flushed, and the way back fails as well."""
    need("strace", "root")
    data = tmp_path / "data"
    JsonStore(data).update(ID, put(sandbox()))

    def work() -> str:
        try:
            JsonStore(data).update(ID, count)
        except SandboxerError as error:
            return f"{error.code} {error.outcome}"
        return "done"

    faults = ("-e", "inject=fsync:error=EIO:when=2", "-e", "inject=rename:error=EIO:when=2")
    assert Traced(work, tmp_path / "log", *faults).answer == "unavailable unknown"
    assert len(JsonStore(data).list()) == 1
