"""expire and reconcile on the fake backend."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from sandboxer.bootstrap import Installation
from sandboxer.errors import Unavailable
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Streams
from sandboxer.locks import this_owner
from sandboxer.manager.establish.create import PendingCreate
from sandboxer.manager.sweeps.reconcile import too_many
from sandboxer.models import Request, Sandbox
from sandboxer.state import State
from sandboxer.testing.fake import Faults
from tests.installations import create, installed, left_over


def age(here: Installation, record: Sandbox, seconds: float) -> None:
    """Let a sandbox's TTL end `seconds` earlier."""

    def older(now: Sandbox) -> Sandbox:
        assert now.expires_at is not None
        return msgspec.structs.replace(now, expires_at=now.expires_at - seconds)

    here.manager.services.edit(record.id, older)


def test_expire_ends_what_is_over_and_only_that(tmp_path: Path) -> None:
    here = installed(tmp_path)
    over, alive = create(here, ttl=600), create(here, ttl=600)
    age(here, over, 601)
    planned = here.manager.expire(apply=False)
    assert [(a.sandbox_id, a.outcome) for a in planned.actions] == [(over.id, "planned")]
    assert here.manager.get(over.id).state == State.READY
    report = here.manager.expire(apply=True)
    assert [(a.sandbox_id, a.outcome) for a in report.actions] == [(over.id, "done")]
    assert here.manager.get(over.id).state == State.DESTROYED
    assert here.manager.get(alive.id).state == State.READY
    told = [event.event_type for event in here.manager.events() if event.detail["sandbox_id"] == over.id]
    assert told[-3:] == ["sandbox.expired", "sandbox.destroying", "sandbox.destroyed"]


def test_the_end_of_a_ttl_is_hard_also_for_what_is_in_use(tmp_path: Path) -> None:
    """Promise 15: whoever needs it longer renews it; a lease only keeps it from being idle."""
    here = installed(tmp_path)
    record = create(here, ttl=600)
    with here.manager.lease(record.id, holder="test"):
        age(here, record, 601)
        assert [action.outcome for action in here.manager.expire(apply=True).actions] == ["done"]
    assert here.manager.get(record.id).state == State.DESTROYED


def test_a_renewed_sandbox_is_not_expired(tmp_path: Path) -> None:
    """Promise 16: a renewal that was answered holds."""
    here = installed(tmp_path)
    record = create(here, ttl=600)
    age(here, record, 601)
    here.manager.extend_ttl(record.id, 600)
    assert here.manager.expire(apply=True).actions == []


def test_expire_of_a_dead_host_reports_what_remains_and_does_the_rest(tmp_path: Path) -> None:
    here = installed(tmp_path, Faults({"teardown": Unavailable("the host is off")}))
    records = [create(here, ttl=600), create(here, ttl=600)]
    for record in records:
        age(here, record, 601)
    report = here.manager.expire(apply=True)
    assert sorted(action.outcome for action in report.actions) == ["done", "failed"]
    assert len(report.remaining) == 1
    assert here.manager.expire(apply=True).remaining == []
    assert left_over(tmp_path) == []


def test_a_failed_record_goes_when_its_failure_ttl_is_over(tmp_path: Path) -> None:
    here = installed(tmp_path, Faults({"provision": Unavailable("no")}))
    with pytest.raises(Unavailable):
        create(here)
    (record,) = here.manager.list()
    assert here.manager.expire(apply=True).actions == []
    age(here, record, 3600)
    here.manager.expire(apply=True)
    assert here.manager.list() == []


def abandon(here: Installation) -> PendingCreate:
    """Begin, and let the owner vanish: its lock is free, its record stays."""
    begun = here.manager.begin(here.manager.plan(Request(profile="profile.fake")))
    assert isinstance(begun, PendingCreate)
    begun.lock.close()
    return begun


def test_reconcile_takes_back_what_a_dead_creator_left(tmp_path: Path) -> None:
    """Promise 1: an owner that is proved dead is settled at once."""
    here = installed(tmp_path)
    begun = abandon(here)
    planned = here.manager.reconcile(apply=False)
    assert [action.action for action in planned.actions] == ["take-back"]
    assert here.manager.reconcile(apply=True).remaining == []
    record = here.manager.get(begun.record.id)
    assert record.state == State.FAILED
    assert record.clean
    assert here.manager.reconcile(apply=True).actions == []


def test_reconcile_leaves_a_living_creator_alone(tmp_path: Path) -> None:
    here = installed(tmp_path)
    begun = here.manager.begin(here.manager.plan(Request(profile="profile.fake")))
    assert isinstance(begun, PendingCreate)
    assert here.manager.reconcile(apply=True).actions == []
    assert here.manager.get(begun.record.id).state == State.PROVISIONING
    begun.lock.close()


def test_a_creator_on_another_machine_is_given_the_grace_period(tmp_path: Path) -> None:
    here = installed(tmp_path)
    begun = abandon(here)
    foreign = msgspec.structs.replace(this_owner(), boot_id="00000000-0000-0000-0000-000000000000")
    here.manager.services.edit(begun.record.id, lambda now: msgspec.structs.replace(now, owner=foreign))
    assert len(here.manager.reconcile(apply=True).remaining) == 1
    assert here.manager.get(begun.record.id).state == State.PROVISIONING
    report = here.manager.reconcile(apply=True, grace=0.0)
    assert [action.outcome for action in report.actions] == ["done"]


def test_reconcile_marks_what_the_backend_has_lost(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here)
    shutil.rmtree(tmp_path / "work" / "fake" / f"sbx-{record.id}")
    here.manager.reconcile(apply=True)
    lost = here.manager.get(record.id)
    assert lost.state == State.FAILED
    assert lost.error is not None
    assert "lost" in lost.error["message"]


def test_a_look_that_fails_is_unknown_and_never_clears_a_record(tmp_path: Path) -> None:
    """Three answers: only a definite `absent` clears."""
    here = installed(tmp_path, Faults({"status": Unavailable("no answer")}))
    record = create(here)
    report = here.manager.reconcile(apply=True)
    assert [item.sandbox_id for item in report.remaining] == [record.id]
    assert here.manager.get(record.id).state == State.READY


def test_a_listing_that_fails_removes_nothing_and_is_reported(tmp_path: Path) -> None:
    """Promise 6."""
    here = installed(tmp_path, Faults({"inventory": Unavailable("truncated")}))
    create(here)
    report = here.manager.reconcile(apply=True, grace=0.0)
    assert report.actions == []
    assert [item.extension for item in report.remaining] == ["ext.fake"]


def test_a_resource_without_a_record_goes_only_after_the_grace_period(tmp_path: Path) -> None:
    """Promise 6: never what is younger than the grace period."""
    here = installed(tmp_path)
    record = create(here)
    (tmp_path / "data" / "sandboxes.json").unlink()
    again = installed(tmp_path)
    assert again.store.install_id == here.store.install_id
    assert again.manager.reconcile(apply=True).actions == []
    report = again.manager.reconcile(apply=True, grace=0.0)
    assert [(a.sandbox_id, a.action, a.outcome) for a in report.actions] == [(record.id, "remove", "done")]
    assert left_over(tmp_path) == []


def test_a_sweep_that_would_take_too_much_stops_and_asks(tmp_path: Path) -> None:
    """Promise 6: more than 5 and more than a fifth of what is known."""
    here = installed(tmp_path)
    for _ in range(6):
        create(here)
    shutil.rmtree(tmp_path / "work" / "fake")
    report = here.manager.reconcile(apply=True)
    assert report.actions == []
    assert len(report.remaining) == 6
    assert all("--force" in item.why for item in report.remaining)
    forced = here.manager.reconcile(apply=True, force=True)
    assert len(forced.actions) == 6


@pytest.mark.parametrize(("removals", "known", "stops"), [(5, 5, False), (6, 30, False), (6, 29, True), (7, 7, True)])
def test_the_limit_of_a_sweep(removals: int, known: int, stops: bool) -> None:
    assert too_many(removals, known) is stops


def test_a_lost_store_is_written_again_from_what_the_backends_show(tmp_path: Path) -> None:
    """Promise 13: what exists can be used and destroyed again."""
    here = installed(tmp_path)
    record = create(here)
    (tmp_path / "data" / "sandboxes.json").unlink()
    again = installed(tmp_path)
    restored = again.manager.rebuild_records()
    assert [item.id for item in restored.records] == [record.id]
    out: list[bytes] = []
    streams = Streams(stdout=out.append, stderr=out.append)
    assert again.manager.exec(record.id, Exec(argv=("cat", "greeting")), streams) == 0
    assert b"".join(out) == b"hello\n"
    again.manager.destroy(record.id)
    assert left_over(tmp_path) == []


class Meanwhile(Faults):
    """Somebody else does something, once, when the backend comes to `point`."""

    def __init__(self, point: str, do: Callable[[], object]) -> None:
        super().__init__()
        self.point, self.do = point, do

    def at(self, point: str) -> None:
        if point == self.point:
            self.point = ""
            self.do()


def test_a_destroy_that_is_wished_during_a_reconcile_does_not_end_it(tmp_path: Path) -> None:
    """The wish needs no lock, so it may come while another command takes the sandbox back."""
    faults = Meanwhile("find", lambda: here.manager.request_destroy(wished.record.id))
    here = installed(tmp_path, faults)
    wished, other = abandon(here), abandon(here)
    report = here.manager.reconcile(apply=True)
    outcomes = {action.sandbox_id: action.outcome for action in report.actions}
    assert outcomes == {wished.record.id: "skipped", other.record.id: "done"}
    assert here.manager.get(wished.record.id).state == State.DESTROYING
    assert here.manager.destroy(wished.record.id).state == State.DESTROYED
    assert left_over(tmp_path) == []


def test_a_sandbox_whose_leases_are_being_decided_on_does_not_keep_expire_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandboxer.locks.leases._GUARD_WAIT", 0.05)
    here = installed(tmp_path)
    first, second, third = (create(here, ttl=600) for _ in range(3))
    for record in (first, second, third):
        age(here, record, 601)
    with here.manager.services.leases.guard(second.id):
        report = here.manager.expire(apply=True)
    outcomes = {action.sandbox_id: action.outcome for action in report.actions}
    assert outcomes == {first.id: "done", second.id: "skipped", third.id: "done"}
    assert here.manager.expire(apply=True).actions[0].outcome == "done"
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("point", ["status", "inventory"])
def test_a_bug_in_an_adapter_is_told_and_keeps_reconcile_from_nothing_else(tmp_path: Path, point: str) -> None:
    here = installed(tmp_path, Faults({point: KeyError("a bug of theirs")}))
    create(here)
    other = abandon(here)
    report = here.manager.reconcile(apply=True)
    assert [(action.sandbox_id, action.outcome) for action in report.actions] == [(other.record.id, "done")]
    assert ["a bug of theirs" in item.why for item in report.remaining] == [True]


def test_a_bug_in_an_adapters_teardown_keeps_expire_from_nothing_else(tmp_path: Path) -> None:
    here = installed(tmp_path, Faults({"teardown": KeyError("a bug of theirs")}))
    for record in (create(here, ttl=600), create(here, ttl=600)):
        age(here, record, 601)
    report = here.manager.expire(apply=True)
    assert sorted(action.outcome for action in report.actions) == ["done", "failed"]
    assert ["a bug of theirs" in item.why for item in report.remaining] == [True]
    assert here.manager.expire(apply=True).remaining == []
    assert left_over(tmp_path) == []


def test_leases_that_cannot_be_looked_at_keep_one_sandbox_and_not_the_others(tmp_path: Path) -> None:
    """What cannot be read may be a lease that is held: the sandbox stays, and the sweep says why."""
    here = installed(tmp_path)
    first, second = create(here, ttl=600), create(here, ttl=600)
    for record in (first, second):
        age(here, record, 601)
    leases = tmp_path / "data" / "leases"
    leases.mkdir()
    (leases / first.id).write_text("not a directory")
    report = here.manager.expire(apply=True)
    assert {action.sandbox_id: action.outcome for action in report.actions} == {first.id: "failed", second.id: "done"}
    assert [item.sandbox_id for item in report.remaining] == [first.id]
    assert here.manager.get(first.id).state == State.READY
