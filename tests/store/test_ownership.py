"""Whose a store is: the installation it belongs to, who holds its lock, and which user may use it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandboxer.errors import Denied, StoreCorrupt, Unavailable
from sandboxer.store.document import AtomicDocument
from sandboxer.store.json_store import ENDED_KEPT, JsonStore
from tests.store.children import Child
from tests.store.records import ID, count, ended, number, put, sandbox
from tests.testbed.components import need


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


# -- whose it is ------------------------------------------------------------------------------------------------------


def test_a_lost_document_leaves_the_installation_what_it_was(data: Path) -> None:
    """Promises 8 and 13: what is labelled as ours on the backends is still ours."""
    store = JsonStore(data)
    store.update(ID, put(sandbox()))
    install = store.install_id
    (data / "sandboxes.json").unlink()
    assert JsonStore(data).list() == []
    assert JsonStore(data).install_id == install
    JsonStore(data).update(ID, put(sandbox()))
    assert json.loads((data / "sandboxes.json").read_text())["install"] == install


def test_an_unreadable_document_leaves_the_installation_what_it_was(data: Path) -> None:
    """Promise 13: `doctor --repair` must know which resources are ours."""
    store = JsonStore(data)
    store.update(ID, put(sandbox()))
    (data / "sandboxes.json").write_bytes(b"")
    assert JsonStore(data).install_id == store.install_id


def test_a_lost_installation_file_is_made_again_from_the_document(data: Path) -> None:
    store = JsonStore(data)
    store.update(ID, put(sandbox()))
    (data / "install").unlink()
    assert JsonStore(data).install_id == store.install_id
    assert (data / "install").read_text().strip() == store.install_id


def test_without_both_no_new_installation_is_made_up(data: Path) -> None:
    store = JsonStore(data)
    store.update(ID, put(sandbox()))
    (data / "install").unlink()
    (data / "sandboxes.json").write_bytes(b"{")
    with pytest.raises(StoreCorrupt):
        _ = JsonStore(data).install_id
    assert not (data / "install").exists()


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"two words", b"x" * 65])
def test_a_damaged_installation_file_is_refused(data: Path, text: bytes) -> None:
    JsonStore(data).update(ID, put(sandbox()))
    (data / "install").write_bytes(text)
    with pytest.raises(StoreCorrupt, match="install"):
        _ = JsonStore(data).install_id
    with pytest.raises(StoreCorrupt, match="install"):
        JsonStore(data).update(ID, count)
    assert (data / "install").read_bytes() == text


def test_another_installations_document_is_refused(tmp_path: Path) -> None:
    """Promise 8: its sandboxes are not ours to sweep."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for data in (ours, theirs):
        JsonStore(data).update(ID, put(sandbox()))
    (ours / "sandboxes.json").write_bytes((theirs / "sandboxes.json").read_bytes())
    for attempt in (lambda: JsonStore(ours).list(), lambda: JsonStore(ours).update(ID, count)):
        with pytest.raises(StoreCorrupt, match="another installation"):
            attempt()


# -- locks and owners -------------------------------------------------------------------------------------------------


def test_a_lock_held_too_long_is_told_and_never_taken_later(data: Path) -> None:
    """No command hangs: a stopped process that holds the lock costs `lock_seconds`, and a way to find it."""
    document = AtomicDocument(data / "sandboxes.json", lock_seconds=0.05)
    store = JsonStore(data)
    store.update(ID, put(sandbox()))
    impatient = JsonStore(data, document=document)
    with AtomicDocument(data / "sandboxes.json").locked():
        with pytest.raises(Unavailable, match=r"locked by another") as caught:
            impatient.update(ID, count)
        assert "fuser" in caught.value.hint
        assert caught.value.retryable
        assert impatient.get(ID) == sandbox(), "reading needs no lock"
    store.update(ID, count)  # the thread that was left behind has let go, or does so when its turn comes
    impatient.update(ID, count)


def as_nobody(work: Callable[[], object]) -> None:
    """Work as another user, who can reach the data directory but owns nothing."""

    def without_rights() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        work()

    # A fork, not a new program: the interpreter's own files may be closed to that user.
    assert Child(without_rights).wait() == 0


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are closed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_another_users_data_directory_is_refused(open_folder: Path) -> None:
    need("root")
    data = open_folder / "data"
    data.mkdir()
    data.chmod(0o777)

    def refused() -> None:
        with pytest.raises(Denied, match="another user") as caught:
            _ = JsonStore(data).install_id
        assert "SANDBOXER_DATA_DIR" in caught.value.hint

    as_nobody(refused)
    assert list(data.iterdir()) == []


def test_a_store_that_this_user_may_not_read_is_not_called_corrupt_or_empty(open_folder: Path) -> None:
    """Promise 13: never treated as empty; and no repair is suggested for what only lacks a right."""
    need("root")
    data = open_folder / "data"
    JsonStore(data).update(ID, put(sandbox()))

    def refused() -> None:
        for attempt in (lambda: JsonStore(data).list(), lambda: JsonStore(data).update(ID, count)):
            with pytest.raises(Denied, match=r"permission denied|another user"):
                attempt()

    as_nobody(refused)
    data.chmod(0o755)
    as_nobody(refused)


def test_root_leaves_another_users_store_usable_to_them(open_folder: Path) -> None:
    need("root")
    data = open_folder / "home" / "data"
    data.parent.mkdir()
    os.chown(data.parent, 65534, 65534)
    JsonStore(data).update(ID, put(sandbox()))
    for n in range(ENDED_KEPT + 1):
        JsonStore(data).update(number(n), put(ended(number(n))))
    assert {path.stat().st_uid for path in (data, *data.rglob("*"))} == {65534}
    as_nobody(lambda: JsonStore(data).update(ID, count))
