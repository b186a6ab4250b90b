"""create, get, list, destroy, recreate, extend-ttl on the fake backend."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from sandboxer.errors import (
    BackendError,
    Conflict,
    Invalid,
    NotConfigured,
    NotFound,
    SandboxerError,
    Timeout,
    Unavailable,
)
from sandboxer.manager.establish.create import PendingCreate
from sandboxer.models import Request
from sandboxer.state import State
from sandboxer.testing.fake import Faults
from tests.installations import create, installed, left_over
from tests.testbed.waiting import eventually


def test_a_created_sandbox_is_ready_and_its_document_has_every_field_of_the_contract(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here, name="web", labels={"team": "blue"}, ttl=600)
    document = here.manager.document(record)
    assert list(document) == [
        "id", "name", "profile", "profile_version", "extension", "state", "consumer", "labels", "inputs", "placement",
        "isolation", "reachability", "created_at", "ready_at", "expires_at", "last_active_at", "destroyed_at",
        "route", "cost", "snapshot_of", "report", "error", "last_seen",
    ]  # fmt: skip
    assert document["state"] == "ready"
    assert document["consumer"] == {"actor": "adm", "name": "tester"}
    assert document["placement"] == {"host": "local"}
    assert document["route"]["decisions"][0]["outcome"] == "chosen"
    assert record.expires_at == pytest.approx(record.created_at + 600)


def test_the_intent_is_durable_before_the_backend_is_touched(tmp_path: Path) -> None:
    """Mechanism "intent before effect": a backend that dies at once finds its record there."""
    here = installed(tmp_path, Faults({"provision": BackendError("no", hint="try later")}))
    with pytest.raises(BackendError) as caught:
        create(here)
    record = here.manager.get(str(caught.value.sandbox_id))
    assert record.state == State.FAILED
    assert record.clean
    assert record.error is not None
    assert record.error["code"] == "backend_error"


@pytest.mark.parametrize("point", ["provision", "provision.made", "provision.saved", "wait_ready"])
def test_a_create_that_fails_anywhere_leaves_nothing(tmp_path: Path, point: str) -> None:
    """Promise 1, for errors: resources are taken back at once, the record keeps the reason."""
    here = installed(tmp_path, Faults({point: BackendError("no")}))
    with pytest.raises(BackendError):
        create(here)
    assert left_over(tmp_path) == []
    assert [record.state for record in here.manager.list()] == [State.FAILED]


@pytest.mark.parametrize("point", ["provision", "provision.made", "provision.saved", "wait_ready"])
def test_an_interrupt_anywhere_in_create_takes_back_what_was_begun(tmp_path: Path, point: str) -> None:
    """Promise 3: Ctrl-C rolls back."""
    here = installed(tmp_path, Faults({point: KeyboardInterrupt()}))
    with pytest.raises(KeyboardInterrupt):
        create(here)
    assert left_over(tmp_path) == []
    (record,) = here.manager.list()
    assert record.error is not None
    assert record.error["code"] == "interrupted"


def test_keep_failed_keeps_the_resources_until_destroy(tmp_path: Path) -> None:
    here = installed(tmp_path, Faults({"wait_ready": BackendError("no")}))
    with pytest.raises(BackendError):
        create(here, keep_failed=True)
    (record,) = here.manager.list()
    assert left_over(tmp_path) == [f"work/fake/sbx-{record.id}"]
    assert here.manager.destroy(record.id).state == State.DESTROYED
    assert left_over(tmp_path) == []


def test_a_rollback_that_fails_keeps_the_record_and_says_so(tmp_path: Path) -> None:
    """Promise 5."""
    faults = Faults({"wait_ready": BackendError("no"), "teardown.half": Unavailable("the host went away")})
    here = installed(tmp_path, faults)
    with pytest.raises(BackendError):
        create(here)
    (record,) = here.manager.list()
    assert not record.clean
    assert record.error is not None
    assert record.error["outcome"] == "unknown"
    assert left_over(tmp_path) != []
    report = here.manager.reconcile(apply=True)
    assert [action.outcome for action in report.actions] == ["done"]
    assert left_over(tmp_path) == []


def test_destroy_works_from_every_state_and_again(tmp_path: Path) -> None:
    """Promise 4: exit 0 each time, one `destroyed` event."""
    here = installed(tmp_path)
    record = create(here)
    assert here.manager.destroy(record.id).state == State.DESTROYED
    assert here.manager.destroy(record.id).state == State.DESTROYED
    told = [event.event_type for event in here.manager.events()]
    assert told == ["sandbox.provisioning", "sandbox.ready", "sandbox.destroying", "sandbox.destroyed"]
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("point", ["teardown", "teardown.half"])
def test_a_teardown_that_fails_keeps_the_record_and_the_next_one_finishes(tmp_path: Path, point: str) -> None:
    """Promise 5: never dropped while its resource may live."""
    here = installed(tmp_path, Faults({point: Unavailable("no answer")}))
    record = create(here)
    with pytest.raises(Unavailable) as caught:
        here.manager.destroy(record.id)
    assert caught.value.outcome == "unknown"
    kept = here.manager.get(record.id)
    assert kept.state == State.DESTROYING
    assert kept.error == caught.value.document()
    gone = here.manager.destroy(record.id)
    assert (gone.state, gone.error) == (State.DESTROYED, None)
    assert left_over(tmp_path) == []


def test_a_failed_create_still_says_why_when_it_is_gone_and_no_longer_that_something_may_exist(tmp_path: Path) -> None:
    faults = Faults({"wait_ready": BackendError("no luck"), "teardown.half": Unavailable("the host went away")})
    here = installed(tmp_path, faults)
    with pytest.raises(BackendError):
        create(here)
    (record,) = here.manager.list()
    gone = here.manager.destroy(record.id)
    assert gone.error is not None
    assert (gone.error["message"], gone.error["outcome"]) == ("no luck", "failed")


def test_destroy_ends_an_establishment_that_is_under_way(tmp_path: Path) -> None:
    here = installed(tmp_path)
    reached, go_on = threading.Event(), threading.Event()

    class Slow(Faults):
        def at(self, point: str) -> None:
            if point == "provision.made":
                reached.set()
                go_on.wait(10)

    here = installed(tmp_path, Slow())
    plan = here.manager.plan(Request(profile="profile.fake"))
    begun = here.manager.begin(plan)
    assert isinstance(begun, PendingCreate)
    raised: list[SandboxerError] = []

    def work() -> None:
        try:
            here.manager.carry_out(plan, begun)
        except SandboxerError as error:
            raised.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    assert reached.wait(10)
    destroyer = threading.Thread(target=lambda: here.manager.destroy(begun.record.id))
    destroyer.start()
    eventually(
        lambda: here.manager.get(begun.record.id).state == State.DESTROYING, within=10, what="the wish to destroy"
    )
    go_on.set()
    worker.join(10)
    destroyer.join(10)
    assert isinstance(raised[0], Conflict | Timeout)
    assert here.manager.get(begun.record.id).state == State.DESTROYED
    assert left_over(tmp_path) == []


def test_an_id_a_unique_prefix_and_a_name_mean_the_same(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here, name="web")
    assert {here.manager.get(text).id for text in (record.id, record.id[:4], "web")} == {record.id}
    for text in (record.id[:3], "nobody", ""):
        with pytest.raises(NotFound):
            here.manager.get(text)


def test_a_name_is_unique_among_the_living(tmp_path: Path) -> None:
    here = installed(tmp_path)
    first = create(here, name="web")
    with pytest.raises(Conflict):
        create(here, name="web")
    here.manager.destroy(first.id)
    assert create(here, name="web").id != first.id


def test_a_create_that_failed_can_be_tried_again_under_the_same_name(tmp_path: Path) -> None:
    here = installed(tmp_path, Faults({"provision": BackendError("no")}))
    with pytest.raises(BackendError):
        create(here, name="web")
    record = create(here, name="web")
    assert here.manager.get("web").id == record.id
    with pytest.raises(Conflict):
        create(here, name="web")


def test_what_never_began_at_a_silent_backend_holds_no_name_and_can_be_destroyed(tmp_path: Path) -> None:
    """The extension knows that nothing was made, and nobody can be asked: there is nothing to wait for."""
    silent = Unavailable("the engine's daemon does not answer")
    silent.made_nothing = True
    faults = Faults({"provision.saved": silent, "teardown": Unavailable("the engine's daemon does not answer")})
    here = installed(tmp_path, faults)
    with pytest.raises(Unavailable) as caught:
        create(here, name="web")
    assert caught.value.outcome == "failed"
    first = here.manager.get("web")
    assert first.error is not None
    assert (first.state, first.clean, first.error["outcome"]) == ("failed", True, "failed")
    second = create(here, name="web")
    assert here.manager.get("web").id == second.id
    faults.plan["teardown"] = Unavailable("the engine's daemon does not answer")
    assert here.manager.destroy(first.id).state == "destroyed"


def test_a_silence_after_something_was_saved_keeps_the_record_and_its_name(tmp_path: Path) -> None:
    faults = Faults({"provision.saved": Unavailable("no answer"), "teardown": Unavailable("no answer")})
    here = installed(tmp_path, faults)
    with pytest.raises(Unavailable) as caught:
        create(here, name="web")
    assert caught.value.outcome == "unknown"
    with pytest.raises(Conflict, match="taken"):
        create(here, name="web")
    assert here.manager.destroy("web").state == "destroyed"
    assert create(here, name="web").state == "ready"


def test_a_renewal_that_fails_on_the_backend_changes_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    """Promise 16: what was answered holds, and a repetition does not add twice."""
    here = installed(tmp_path, Faults({"renew": Unavailable("no answer")}))
    record = create(here, ttl=600)
    with pytest.raises(Unavailable):
        here.manager.extend_ttl(record.id, 600)
    assert here.manager.get(record.id).expires_at == record.expires_at
    assert here.manager.extend_ttl(record.id, 600).expires_at == pytest.approx(record.created_at + 1200)


def test_the_same_idempotency_key_gives_the_same_sandbox_and_another_request_is_a_conflict(tmp_path: Path) -> None:
    here = installed(tmp_path)
    first = create(here, key="k1", ttl=600)
    assert create(here, key="k1", ttl=600).id == first.id
    with pytest.raises(Conflict):
        create(here, key="k1", ttl=700)
    here.manager.destroy(first.id)
    assert create(here, key="k1", ttl=600).id == first.id


def test_a_replay_of_a_failed_create_raises_its_error_again(tmp_path: Path) -> None:
    here = installed(tmp_path, Faults({"wait_ready": BackendError("no")}))
    for _ in range(2):
        with pytest.raises(BackendError):
            create(here, key="k1")
    assert len(here.manager.list()) == 1


def test_recreate_gives_a_new_id_from_the_same_request(tmp_path: Path) -> None:
    here = installed(tmp_path)
    old = create(here, name="web", labels={"a": "b"}, inputs={"greeting": "hi"})
    new = here.manager.recreate("web")
    assert new.id != old.id
    assert (new.name, new.labels, new.inputs) == ("web", {"a": "b"}, {"greeting": "hi"})
    assert here.manager.get(old.id).state == State.DESTROYED


def test_extend_ttl_adds_to_what_was_agreed_and_stops_at_the_maximum(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here, ttl=600)
    extended = here.manager.extend_ttl(record.id, 900)
    assert extended.expires_at == pytest.approx(record.created_at + 1500)
    with pytest.raises(Invalid) as caught:
        here.manager.extend_ttl(record.id, 5 * 3600)
    assert "--duration" in caught.value.hint


def test_a_ttl_over_the_profile_maximum_is_invalid_before_anything_starts(tmp_path: Path) -> None:
    here = installed(tmp_path)
    with pytest.raises(Invalid):
        create(here, ttl=5 * 3600)
    assert here.manager.list(ended=True) == []


def test_a_secret_input_is_in_no_record_no_event_and_no_document(tmp_path: Path) -> None:
    """Promise 28."""
    here = installed(tmp_path)
    record = create(here, inputs={"token": "canary-7f3a"})
    assert "canary-7f3a" not in (tmp_path / "data" / "sandboxes.json").read_text()
    assert here.manager.document(record)["inputs"] == {"token": "(secret)"}
    with pytest.raises(Conflict):
        here.manager.recreate(record.id)


def test_two_installations_never_touch_each_others_sandboxes(tmp_path: Path) -> None:
    """Promise 8: the same host and work directory, two data directories."""
    ours = installed(tmp_path)
    record = create(ours)
    theirs = installed(tmp_path, SANDBOXER_DATA_DIR=str(tmp_path / "other"))
    create(theirs)
    report = theirs.manager.reconcile(apply=True, grace=0.0)
    assert report.actions == []
    assert f"work/fake/sbx-{record.id}" in left_over(tmp_path)


def test_destroy_needs_no_backend_for_what_is_known_to_be_clean(tmp_path: Path) -> None:
    here = installed(tmp_path, Faults({"provision": BackendError("no")}))
    with pytest.raises(BackendError):
        create(here)
    (record,) = here.manager.list()
    here.manager.services.extensions.get("ext.fake").faults.plan["teardown"] = Unavailable("down")  # type: ignore[attr-defined]
    assert here.manager.destroy(record.id).state == State.DESTROYED


def test_a_process_that_cannot_be_started_leaves_a_failed_record_and_nothing_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = installed(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no such program"))
    with pytest.raises(NotConfigured, match="no such program") as caught:
        here.create_detached(here.manager.plan(Request(profile="profile.fake", name="web")))
    record = here.manager.get("web")
    assert (record.state, record.clean, record.id) == (State.FAILED, True, caught.value.sandbox_id)
    assert here.manager.reconcile(apply=True).actions == []


def test_leases_that_somebody_decides_on_do_not_keep_an_ended_sandbox_from_being_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 4: a process that was stopped in the middle of its decision holds up no destroy."""
    monkeypatch.setattr("sandboxer.locks.leases._GUARD_WAIT", 0.05)
    here = installed(tmp_path)
    record = create(here)
    with here.manager.lease(record.id, holder="test"):
        pass
    with here.manager.services.leases.guard(record.id):
        assert here.manager.destroy(record.id).state == State.DESTROYED
    assert left_over(tmp_path) == []
    here.manager.destroy(record.id)
    assert here.manager.services.leases.known() == frozenset()
