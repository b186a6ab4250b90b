"""Snapshots of hostile sandboxes, and of consumers who mean ill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from sandboxer.bootstrap import Installation
from sandboxer.errors import Denied, Invalid, NotFound, OverQuota
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Streams
from sandboxer.manager import SandboxManager
from sandboxer.manager.access import Principal
from sandboxer.manager.services import no_progress
from sandboxer.manager.snapshots import facts
from sandboxer.manager.snapshots.kept_streams import StreamsBeingKept
from sandboxer.manager.snapshots.restore import RestoreRequest
from sandboxer.models import Grant, Request, Sandbox, Snapshot
from sandboxer.store.chunks import ChunkStore
from tests.cli.running import Command
from tests.installations import installed, lay_out

PROFILE = """\
id: profile.worded
version: 1.0.0
title: One with a text
extension: ext.native
inputs:
  text: {type: string}
"""


@pytest.fixture
def here(tmp_path: Path) -> Installation:
    return installed(tmp_path)


@pytest.fixture(autouse=True)
def _cleared(tmp_path: Path) -> Iterator[None]:
    yield
    manager = installed(tmp_path).manager
    for one in manager.snapshots():
        manager.delete_snapshot(one.id)
    for record in manager.list():
        manager.destroy(record.id)


def native(manager: SandboxManager, profile: str = "profile.native", **inputs: str) -> Sandbox:
    return manager.create(manager.plan(Request(profile=profile, inputs=dict(inputs))))


def test_what_a_sandbox_or_a_provider_says_of_it_is_kept_short_and_plain(here: Installation, tmp_path: Path) -> None:
    """A name that is no UTF-8 could not be written into the records at all, and each change writes all of them."""
    box = native(here.manager)
    kept = here.manager.snapshot(box.id)
    with ChunkStore(tmp_path / "chunks").writing(kept.id) as writer:
        streams = StreamsBeingKept(writer, no_progress)
        for _ in range(1000):
            streams.note("left out 1: \udcff\x1b[2J\n" + "x" * 100_000)
            streams.inconsistent("it moved: \udcfe\u202e" + "y" * 100_000)

    def noted(now: Snapshot | None) -> Snapshot | None:
        return now and msgspec.structs.replace(now, notes=[*streams.doubts, *streams.notes])

    here.manager.services.snapshots.update(kept.id, noted)
    found = installed(tmp_path).manager.get_snapshot(kept.id).notes
    assert found[0].startswith(r"it moved: \udcfe\u202eyyy")
    assert any(text.startswith(r"left out 1: \udcff\x1b[2J\nxxx") for text in found)
    assert all(text.isprintable() for text in found)
    assert sum(map(len, found)) < 50_000


def test_names_inside_that_are_long_and_odd_are_told_short(here: Installation, tmp_path: Path) -> None:
    lay_out(tmp_path)
    box = native(here.manager)
    deep = 'd=$(printf "\\377\\033[2J%0200d" 0); for n in 1 2 3 4 5 6 7 8 9 10 11 12; do mkdir "$d" && cd "$d"; done; '
    many = 'for n in $(seq 40); do : >"$n"; chmod 0 "$n"; done'
    streams = Streams(stdin=None, stdout=lambda _: None, stderr=lambda _: None)
    assert here.manager.exec(box.id, Exec(argv=("sh", "-c", deep + many)), streams) == 0
    kept = here.manager.snapshot(box.id)
    (note,) = kept.notes
    assert note.startswith("left out 40: ")
    assert len(note) <= 2000
    assert note.isprintable()


@pytest.mark.parametrize("store", ["open/store", "open/store/below"])
def test_files_are_not_kept_where_somebody_else_could_put_another_directory(tmp_path: Path, store: str) -> None:
    """As for the data directory: who may write above it reads what is kept, and says what is restored."""
    stranger = tmp_path / "open"
    text = f"hosts: {{local: {{work_dir: {tmp_path}/work}}}}\nsnapshots: {{store: {tmp_path}/{store}}}\n"
    lay_out(tmp_path, config=text)
    manager = installed(tmp_path).manager
    box = native(manager)
    stranger.mkdir()
    stranger.chmod(0o755)
    kept = manager.snapshot(box.id)
    stranger.chmod(0o777)
    verbs: list[Callable[[], object]] = [
        lambda: manager.snapshot(box.id),
        lambda: manager.verify_snapshot(kept.id),
        lambda: manager.delete_snapshot(kept.id),
        lambda: manager.create(manager.plan(manager.restore_request(kept.id, RestoreRequest()).request)),
    ]
    for verb in verbs:
        with pytest.raises(Denied, match="can be written by everybody") as caught:
            verb()
        assert "chmod o-w" in caught.value.hint
        assert "snapshots.store" in caught.value.hint
    found = Command(tmp_path)("doctor", "--json").document["findings"]
    assert [one["level"] for one in found if one["subject"] == "snapshots"] == ["error"]
    stranger.chmod(0o755)
    assert [one.state for one in manager.snapshots()] == ["kept"], "nothing was begun"
    assert manager.verify_snapshot(kept.id).ok


@pytest.mark.parametrize("name", ["snap", "snap-", "snap-a", "snap-abcdefghijk"])
def test_no_name_stands_for_another_snapshot(here: Installation, tmp_path: Path, name: str) -> None:
    """Who sees all looks for ids first: by such a name the operator would restore or delete a stranger's."""
    box = native(here.manager)
    with pytest.raises(Invalid, match="looks like"):
        here.manager.snapshot(box.id, name=name)
    answer = Command(tmp_path)("snapshot", box.id, "--name", name, "--json")
    assert answer.status == Invalid.exit_code
    assert here.manager.snapshots() == []


def test_what_was_asked_for_is_not_kept_a_thousand_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each snapshot has what its sandbox was asked for, and each change writes all of them."""
    lay_out(tmp_path)
    (tmp_path / "config" / "profiles").mkdir(exist_ok=True)
    (tmp_path / "config" / "profiles" / "profile.worded.yaml").write_text(PROFILE)
    here = installed(tmp_path)
    monkeypatch.setattr(facts, "MOST_BYTES", 300_000)
    mine = here.manager.acting(Principal(grant=Grant(role="use", consumer="agt:a")))
    other = here.manager.acting(Principal(grant=Grant(role="use", consumer="agt:b")))
    box = native(mine, "profile.worded", text="x" * 60_000)
    small = native(other, "profile.worded", text="x")

    def endless() -> None:
        for _ in range(10):
            mine.snapshot(box.id)

    with pytest.raises(OverQuota, match="as many snapshots"):
        endless()
    assert (tmp_path / "data" / "snapshots.json").stat().st_size < 500_000
    other.snapshot(small.id, name="mine")
    with pytest.raises(NotFound):
        mine.get_snapshot("mine")
    here.manager.snapshot(box.id)
