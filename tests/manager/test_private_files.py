"""What the first command makes in a new place: private, durable, and the owner's, whichever part comes first."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from sandboxer.events.relay import Relay
from sandboxer.models import HubSettings
from sandboxer.store.json_store import JsonStore
from sandboxer.timing import Deadline
from tests.installations import create, environment, installed
from tests.store.children import Traced
from tests.testbed.components import need
from tests.testbed.umasks import umask


def modes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): oct(stat.S_IMODE(path.lstat().st_mode)) for path in folder.rglob("*")}


@pytest.mark.parametrize("mask", [0o000, 0o277, 0o777], ids=oct)
def test_an_installation_is_private_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    """Promise 28: files 0600, directories 0700; the directories above too, for who owns those could swap it."""
    here = installed(tmp_path, SANDBOXER_DATA_DIR=str(tmp_path / "new" / "above" / "data"))
    (tmp_path / "work").mkdir()
    with umask(mask):
        record = create(here)
        with here.manager.lease(record.id, holder="test"):
            found = modes(tmp_path / "new")
    assert {name: mode for name, mode in found.items() if mode == "0o700"} == dict.fromkeys(
        ["above", "above/data", "above/data/leases", f"above/data/leases/{record.id}"], "0o700"
    )
    assert {mode for name, mode in found.items() if mode != "0o700"} == {"0o600"}
    assert oct(stat.S_IMODE((tmp_path / "new").stat().st_mode)) == "0o700"


def test_a_relay_that_comes_first_makes_private_files(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    with umask(0):
        Relay(JsonStore(data), HubSettings(url="http://127.0.0.1:9"), data).flush(Deadline(1))
    assert modes(tmp_path) == {"new": "0o700", "new/data": "0o700", "new/data/.relay.lock": "0o600"}


def test_the_first_create_makes_its_directories_durable(tmp_path: Path) -> None:
    """Promise 11: a record is not acknowledged in a directory whose own name a power cut may take."""
    need("strace", "root")
    data = tmp_path / "new" / "data"
    here = installed(tmp_path, SANDBOXER_DATA_DIR=str(data))
    traced = Traced(lambda: create(here).id, tmp_path / "calls", "-e", "trace=poll,read,fsync,rename,mkdir")
    assert traced.status == 0
    first = next(number for number, call in enumerate(traced.calls) if "rename(" in call)
    before = [call for call in traced.calls[:first] if call.startswith("fsync(")]
    for folder in (tmp_path, data.parent):
        assert [call for call in before if f"<{folder}>" in call], folder


def test_root_leaves_another_users_installation_usable_to_them() -> None:
    need("root")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        here = installed(root)
        home = Path(environment(root)["SANDBOXER_DATA_DIR"])
        home.mkdir()
        os.chown(home, 65534, 65534)
        record = create(here)
        with here.manager.lease(record.id, holder="test"):
            assert {path.stat().st_uid for path in (home, *home.rglob("*"))} == {65534}
