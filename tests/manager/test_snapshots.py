"""Snapshots: files that are kept, restored as often as one likes, and proved."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from sandboxer.bootstrap import Installation
from sandboxer.errors import Conflict, Invalid, NotFound, OverQuota, StoreCorrupt, Unsupported
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Streams
from sandboxer.manager.access import Principal
from sandboxer.manager.services import no_progress
from sandboxer.manager.snapshots.kept_streams import chunk_store, opened_snapshot
from sandboxer.manager.snapshots.restore import RestoreRequest
from sandboxer.models import Grant, Request, Sandbox, Snapshot
from sandboxer.state import State
from sandboxer.store.snapshot_records import SnapshotEdit, SnapshotRecords
from tests.installations import create, installed, lay_out

SECRET_PROFILE = """\
id: profile.secretive
version: 1.0.0
title: One with a secret input
extension: ext.native
inputs:
  token: {type: string, secret: true, required: true}
  repo: {type: path}
  colour: {type: string}
"""


def native(here: Installation, **asked: object) -> Sandbox:
    request = Request(profile="profile.native", **asked)  # type: ignore[arg-type]  # as the test says
    return here.manager.create(here.manager.plan(request))


def sh(here: Installation, record: Sandbox, text: str) -> str:
    said = bytearray()
    streams = Streams(stdin=None, stdout=said.extend, stderr=said.extend)
    assert here.manager.exec(record.id, Exec(argv=("sh", "-c", text)), streams) == 0, said
    return said.decode()


def restored(here: Installation, snapshot: Snapshot, **asked: object) -> Sandbox:
    found = here.manager.restore_request(snapshot.id, RestoreRequest(**asked))  # type: ignore[arg-type]
    return here.manager.create(here.manager.plan(found.request, actor=found.actor))


def used(here: Installation, snapshot: Snapshot) -> int:
    return chunk_store(here.manager.services, snapshot.consumer).used_bytes()


def told(here: Installation) -> list[str]:
    return [event.event_type for event in here.manager.events() if event.event_type.startswith("snapshot.")]


@pytest.fixture
def here(tmp_path: Path) -> Installation:
    return installed(tmp_path)


@pytest.fixture(autouse=True)
def _cleared(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    yield
    if (tmp_path / "config").exists():
        after = installed(tmp_path)
        for record in after.manager.list():
            after.manager.destroy(record.id)


def test_files_are_kept_and_restored_when_their_sandbox_is_gone(here: Installation) -> None:
    first = native(here, labels={"team": "blue"})
    sh(here, first, "mkdir d; echo kept > d/f; ln d/f hard; chmod 640 d/f")
    kept = here.manager.snapshot(first.id, name="before-lunch")
    sh(here, first, "echo later > d/f")
    here.manager.destroy(first.id)
    again = restored(here, kept, name="after-lunch")
    assert sh(here, again, "cat hard; stat -c '%a %h' d/f") == "kept\n640 2\n"
    assert (again.snapshot_of, again.name, again.labels) == (kept.id, "after-lunch", {"team": "blue"})
    document = here.manager.snapshot_document(kept)
    assert {
        "id", "name", "sandbox_id", "profile", "extension", "created_at", "size_bytes", "stored_bytes", "consistent",
        "contents", "host",
    } <= document.keys()  # fmt: skip
    assert (document["contents"], document["consistent"], document["state"]) == (["workspace"], True, "kept")
    assert document["size_bytes"] > 0 < document["stored_bytes"]
    assert told(here) == ["snapshot.created", "snapshot.restored"]
    counted = [event.detail["seq"] for event in here.manager.events() if event.detail["sandbox_id"] == again.id]
    assert counted == list(range(1, len(counted) + 1))


def test_a_second_one_costs_what_has_changed(here: Installation) -> None:
    box = native(here)
    sh(here, box, "head -c 8000000 /dev/urandom > big; seq 200 | while read n; do echo $n > f$n; done")
    first = here.manager.snapshot(box.id)
    sh(here, box, "printf changed | dd of=big bs=1 seek=4000000 conv=notrunc 2>/dev/null; echo new > f7")
    second = here.manager.snapshot(box.id)
    assert first.stored_bytes is not None
    assert second.stored_bytes is not None
    assert second.stored_bytes < first.stored_bytes * 0.1


def test_one_that_was_used_meanwhile_is_not_said_to_be_of_one_moment(here: Installation) -> None:
    """A command between the two looks for what runs leaves no process behind, and may have written."""
    box = native(here)
    began: list[str] = []

    def use(phase: str, text: str) -> None:
        if (phase, text) == ("snapshot", "/workspace"):
            began.append(text)
            sh(here, box, "echo between > f")

    kept = here.manager.snapshot(box.id, progress=use)
    assert began
    assert (kept.consistent, kept.notes) == (False, ["it was used meanwhile"])
    assert here.manager.snapshot(box.id).consistent is True
    here.manager.grant_lease(box.id, holder="somebody", seconds=60)
    assert here.manager.snapshot(box.id).consistent is False


def test_one_is_restored_many_times_at_once(here: Installation) -> None:
    box = native(here)
    sh(here, box, "echo shared > f")
    kept = here.manager.snapshot(box.id)
    with ThreadPoolExecutor(5) as pool:
        forks = list(pool.map(lambda _: restored(here, kept), range(5)))
    assert len({fork.id for fork in forks}) == 5
    assert [sh(here, fork, "cat f") for fork in forks] == ["shared\n"] * 5


def test_one_that_is_restored_right_now_is_not_deleted(here: Installation) -> None:
    kept = here.manager.snapshot(native(here).id)
    with opened_snapshot(here.manager.services, kept.id, no_progress):
        with pytest.raises(Conflict, match="being read"):
            here.manager.delete_snapshot(kept.id)
        assert here.manager.get_snapshot(kept.id).state == "kept"
    assert here.manager.delete_snapshot(kept.id).state == "deleted"
    assert (list(here.manager.snapshots()), used(here, kept)) == ([], 0)
    with pytest.raises(NotFound):
        here.manager.restore_request(kept.id, RestoreRequest())
    assert told(here) == ["snapshot.created", "snapshot.deleted"]


def damage(here: Installation) -> None:
    (pack,) = (here.paths.data / "snapshots").glob("*/packs/*.pack")
    data = bytearray(pack.read_bytes())
    data[1000] ^= 0xFF
    pack.write_bytes(data)


def test_damage_is_told_never_restored_and_mended_by_the_next_one(here: Installation) -> None:
    """Promise 35."""
    box = native(here)
    sh(here, box, "head -c 600000 /dev/urandom > big")
    kept = here.manager.snapshot(box.id)
    assert here.manager.verify_snapshot(kept.id).ok
    damage(here)
    with pytest.raises(StoreCorrupt):
        restored(here, kept)
    (failed,) = [record for record in here.manager.list() if record.id != box.id]
    assert (failed.state, failed.clean, (failed.error or {})["code"]) == (State.FAILED, True, "store_corrupt")
    report = here.manager.verify_snapshot(kept.id)
    assert (report.ok, [one.stream for one in report.damaged]) == (False, ["workspace"])
    here.manager.snapshot(box.id)
    assert here.manager.verify_snapshot(kept.id).ok
    assert sh(here, restored(here, kept), "wc -c < big") == "600000\n"


def test_over_quota_nothing_is_kept(tmp_path: Path) -> None:
    lay_out(tmp_path, config=f"hosts: {{local: {{work_dir: {tmp_path}/work}}}}\nsnapshots: {{max_bytes: 1M}}\n")
    here = installed(tmp_path)
    box = native(here)
    small = here.manager.snapshot(box.id)
    before = used(here, small)
    sh(here, box, "head -c 3000000 /dev/urandom > big")
    with pytest.raises(OverQuota, match="max_bytes"):
        here.manager.snapshot(box.id)
    assert [one.id for one in here.manager.snapshots()] == [small.id]
    assert used(here, small) == before


def test_the_oldest_beyond_those_to_be_kept_go(tmp_path: Path) -> None:
    lay_out(tmp_path, config=f"hosts: {{local: {{work_dir: {tmp_path}/work}}}}\nsnapshots: {{keep: 2}}\n")
    here = installed(tmp_path)
    box, other = native(here), native(here)
    apart = here.manager.snapshot(other.id)
    taken = [here.manager.snapshot(box.id) for _ in range(2)]
    with opened_snapshot(here.manager.services, taken[0].id, no_progress):
        taken.append(here.manager.snapshot(box.id))
        assert taken[0].id in [one.id for one in here.manager.snapshots()], "one in use stays"
    taken.append(here.manager.snapshot(box.id))
    assert [one.id for one in here.manager.snapshots()] == [apart.id, taken[2].id, taken[3].id]


def test_consumers_see_and_share_nothing_of_one_another(here: Installation) -> None:
    """Promise 33: also not by what a snapshot adds to the store."""
    whose = {
        name: here.manager.acting(Principal(grant=Grant(role="use", consumer=name))) for name in ("agt:a", "agt:b")
    }
    taken: dict[str, Snapshot] = {}
    for name, manager in whose.items():
        box = manager.create(manager.plan(Request(profile="profile.native")))
        sh(here, box, "seq 30000 > same")
        taken[name] = manager.snapshot(box.id, name="mine")
    assert min(one.stored_bytes or 0 for one in taken.values()) > 10_000
    for name, manager in whose.items():
        (own,) = manager.snapshots()
        assert own.id == manager.get_snapshot("mine").id == taken[name].id
    foreign = taken["agt:b"].id
    verbs: list[Callable[[], object]] = [
        lambda: whose["agt:a"].get_snapshot(foreign),
        lambda: whose["agt:a"].delete_snapshot(foreign),
        lambda: whose["agt:a"].verify_snapshot(foreign),
        lambda: whose["agt:a"].restore_request(foreign, RestoreRequest()),
    ]
    for verb in verbs:
        with pytest.raises(NotFound) as caught:
            verb()
        assert caught.value.message == f"no snapshot {foreign!r}"
    with pytest.raises(Conflict, match="more than one"):
        here.manager.get_snapshot("mine")
    assert restored(here, taken["agt:b"]).consumer.name == "b", "whoever restores it, it stays whose it is"


def test_a_beginning_of_an_id_is_enough(here: Installation) -> None:
    kept = here.manager.snapshot(native(here).id)
    assert here.manager.get_snapshot(kept.id[:9]).id == kept.id
    with pytest.raises(NotFound):
        here.manager.get_snapshot("sna")


def test_a_secret_input_is_asked_for_again_and_paths_are_not(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "config" / "profiles" / "profile.secretive.yaml").write_text(SECRET_PROFILE)
    here = installed(tmp_path)
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "given").write_text("of the request")
    inputs = {"token": "hunter2secret", "repo": str(repo), "colour": "red"}
    box = here.manager.create(here.manager.plan(Request(profile="profile.secretive", inputs=inputs)))
    sh(here, box, "mv given moved")
    kept = here.manager.snapshot(box.id)
    (repo / "given").unlink()
    repo.rmdir()
    assert "hunter2" not in (here.paths.data / "snapshots.json").read_text()
    with pytest.raises(Exception, match="token"):
        restored(here, kept)
    again = restored(here, kept, inputs={"token": "another"})
    assert sh(here, again, "ls") == "moved\n"
    assert again.inputs == {"token": "(secret)", "colour": "red"}


def test_a_backend_that_cannot_says_so_and_one_that_has_ended_is_refused(here: Installation) -> None:
    plain = create(here)
    with pytest.raises(Unsupported, match="no snapshot"):
        here.manager.snapshot(plain.id)
    box = native(here)
    here.manager.destroy(box.id)
    with pytest.raises(Conflict, match="destroyed"):
        here.manager.snapshot(box.id)
    assert list(here.manager.snapshots()) == []


def test_a_provider_keeps_its_own_and_they_restore_only_there(here: Installation) -> None:
    here.manager.add_credits("10")
    box = here.manager.create(here.manager.plan(Request(profile="profile.saas-stub")))
    sh(here, box, "echo theirs > f")
    kept = here.manager.snapshot(box.id)
    assert (kept.size_bytes, kept.contents, kept.consistent) == (None, ["filesystem"], False)
    assert sh(here, restored(here, kept), "cat f") == "theirs\n"
    with pytest.raises(Invalid, match="placement hosts"):
        restored(here, kept, host="local")
    assert here.manager.verify_snapshot(kept.id).ok
    assert here.manager.delete_snapshot(kept.id).state == "deleted"
    assert list(here.paths.data.glob("**/snap-*")) == []


def test_records_that_cannot_be_read_are_told_and_left_as_they_are(here: Installation) -> None:
    here.manager.snapshot(native(here).id)
    file = here.paths.data / "snapshots.json"
    for text in (b"{", file.read_bytes().replace(b'"schema_version":1', b'"schema_version":99')):
        file.write_bytes(text)
        with pytest.raises(StoreCorrupt, match=r"snapshots\.json"):
            here.manager.snapshots()
        assert any("snapshots.json" in one.why for one in here.manager.reconcile(apply=True).remaining)
        assert file.read_bytes() == text


def test_a_destroy_does_not_wait_for_a_snapshot(here: Installation) -> None:
    """It is accepted in every state; what was kept by then is given up."""
    box = native(here)
    sh(here, box, "head -c 20000000 /dev/urandom > big")
    begun = threading.Event()
    failures: list[BaseException] = []

    def take() -> None:
        try:
            here.manager.snapshot(box.id, progress=lambda phase, _text: begun.set() if phase == "snapshot" else None)
        except BaseException as error:  # noqa: BLE001 - looked at below
            failures.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    assert begun.wait(60)
    assert here.manager.destroy(box.id).state == State.DESTROYED
    thread.join(120)
    assert not thread.is_alive()
    kept = list(here.manager.snapshots())
    assert len(kept) + len(failures) == 1
    for one in kept:  # it was through before
        assert here.manager.verify_snapshot(one.id).ok


def test_requests_of_before_snapshots_have_the_fingerprints_that_they_had(here: Installation) -> None:
    plain = here.manager.plan(Request(profile="profile.native"))
    kept = here.manager.snapshot(native(here).id)
    found = here.manager.restore_request(kept.id, RestoreRequest())
    assert here.manager.plan(found.request).fingerprint != plain.fingerprint
    asked = msgspec.to_builtins(msgspec.structs.replace(plain.request, inputs=plain.shown_inputs, timeout=None))
    assert asked.pop("snapshot") is None
    text = json.dumps([asked, msgspec.to_builtins(plain.consumer)], sort_keys=True, ensure_ascii=True)
    assert plain.fingerprint == hashlib.sha256(text.encode()).hexdigest()


def test_a_restore_with_a_key_gives_the_same_sandbox(here: Installation) -> None:
    kept = here.manager.snapshot(native(here).id)
    found = here.manager.restore_request(kept.id, RestoreRequest())
    first, second = (here.manager.create(here.manager.plan(found.request, idempotency_key="k")) for _ in range(2))
    assert first.id == second.id
    with pytest.raises(Conflict, match="another request"):
        here.manager.create(here.manager.plan(Request(profile="profile.native"), idempotency_key="k"))


def test_recreate_restores_again(here: Installation) -> None:
    box = native(here)
    sh(here, box, "echo first > f")
    again = restored(here, here.manager.snapshot(box.id))
    sh(here, again, "echo changed > f")
    anew = here.manager.recreate(again.id)
    assert (anew.snapshot_of, sh(here, anew, "cat f")) == (again.snapshot_of, "first\n")


class Died(BaseException):
    """The death of a process, as far as a test can play it."""


class MortalRecords(SnapshotRecords):
    """Dies instead of recording that a snapshot is whole, and does nothing more."""

    dead = False

    def update(self, snapshot_id: str, edit: SnapshotEdit, *, must_succeed: bool = False) -> Snapshot | None:
        after = edit(self.get(snapshot_id))
        self.dead = self.dead or (after is not None and after.state == "kept")
        if self.dead:
            raise Died
        return super().update(snapshot_id, edit, must_succeed=must_succeed)


def test_what_a_provider_keeps_of_one_whose_maker_died_is_taken_back(here: Installation, tmp_path: Path) -> None:
    """Promise 2."""
    here.manager.add_credits("10")
    box = here.manager.create(here.manager.plan(Request(profile="profile.saas-stub")))
    mortal = MortalRecords(here.paths.data, install=lambda: here.store.install_id)
    here.manager.services = dataclasses.replace(here.manager.services, snapshots=mortal)
    with pytest.raises(Died):
        here.manager.snapshot(box.id)
    after = installed(tmp_path)
    (one,) = after.manager.snapshots()
    assert one.state == "taking"
    with pytest.raises(Conflict, match="being taken"):
        after.manager.restore_request(one.id, RestoreRequest())
    planned = after.manager.reconcile(apply=False)
    assert [(action.snapshot_id, action.action) for action in planned.actions] == [(one.id, "take-back")]
    assert after.manager.reconcile(apply=True).remaining == []
    assert list(after.manager.snapshots()) == []
    assert list(after.paths.data.glob("**/snap-*")) == []
    assert after.manager.reconcile(apply=True).actions == []
