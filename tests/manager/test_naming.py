"""Rename and label a sandbox that exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxer.errors import Conflict, Invalid, NotFound
from sandboxer.manager.access import Principal
from sandboxer.models import Grant, Request
from sandboxer.names import parse_label_changes
from sandboxer.state import State
from tests.installations import create, installed


def test_it_is_found_by_its_new_name_and_not_by_the_old_one(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here, name="web")
    for called in ("web", "shop"):
        renamed = here.manager.rename(called, "shop")
        assert (renamed.id, renamed.name) == (record.id, "shop")
    assert here.manager.get("shop").id == record.id
    with pytest.raises(NotFound):
        here.manager.get("web")
    assert create(here, name="web").id != record.id, "the old name is free"
    assert here.manager.recreate("shop").name == "shop", "it is asked for again as it is called now"


def test_a_name_that_another_one_has_is_a_conflict(tmp_path: Path) -> None:
    here = installed(tmp_path)
    taken, record = create(here, name="web"), create(here)
    with pytest.raises(Conflict, match=f"taken by sandbox {taken.id}") as caught:
        here.manager.rename(record.id, "web")
    assert "choose another name" in caught.value.hint
    with pytest.raises(Conflict, match="beginning of another sandbox's id"):
        here.manager.rename(record.id, taken.id[:6])
    assert here.manager.get(record.id) == record
    here.manager.destroy("web")
    assert here.manager.rename(record.id, "web").name == "web"


def test_whose_the_name_is_a_consumer_does_not_learn(tmp_path: Path) -> None:
    here = installed(tmp_path)
    theirs = create(here, name="web")
    one = here.manager.acting(Principal(grant=Grant(role="use", consumer="agt:one")))
    own = one.create(one.plan(Request(profile="profile.fake")))
    with pytest.raises(Conflict) as caught:
        one.rename(own.id, "web")
    assert theirs.id not in f"{caught.value.document()}"
    assert one.rename(own.id, theirs.id[:6]).name == theirs.id[:6], "nor what an id begins with"
    with pytest.raises(NotFound):
        one.rename(theirs.id, "mine")
    with pytest.raises(NotFound):
        one.label("web", {"a": "b"})


@pytest.mark.parametrize("name", ["", "-x", "Web", "k3v9x2m7q4ta", "a" * 64])
def test_a_name_that_create_refuses_is_refused(tmp_path: Path, name: str) -> None:
    here = installed(tmp_path)
    record = create(here)
    with pytest.raises(Invalid):
        here.manager.rename(record.id, name)


def test_labels_are_set_and_taken_away_and_the_others_stay(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here, labels={"team": "blue", "old": "1", "kept": "yes"})
    labelled = here.manager.label(record.id, {"team": "red", "old": None, "never": None, "empty": ""})
    assert labelled.labels == {"team": "red", "kept": "yes", "empty": ""}
    assert [found.id for found in here.manager.list(labels={"team": "red"})] == [record.id]
    assert here.manager.list(labels={"team": "blue"}) == []
    assert here.manager.recreate(record.id).labels == labelled.labels


@pytest.mark.parametrize("changes", [{"sandboxer.id": "x"}, {"sandboxer.id": None}, {"": "x"}, {"a": "\n"}])
def test_a_label_that_create_refuses_is_refused(tmp_path: Path, changes: dict[str, str | None]) -> None:
    here = installed(tmp_path)
    record = create(here)
    with pytest.raises(Invalid):
        here.manager.label(record.id, changes)


def test_there_are_never_more_labels_than_create_takes(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here, labels={f"l{number}": "" for number in range(64)})
    with pytest.raises(Invalid, match="65 labels"):
        here.manager.label(record.id, {"more": "x"})
    assert len(here.manager.label(record.id, {"more": "x", "l0": None}).labels) == 64


def test_one_that_is_ending_is_neither_renamed_nor_labelled(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here)
    for state in (State.DESTROYING, State.DESTROYED):
        if state == State.DESTROYING:
            here.manager.request_destroy(record.id)
        else:
            here.manager.destroy(record.id)
        with pytest.raises(Conflict, match=state):
            here.manager.rename(record.id, "web")
        with pytest.raises(Conflict, match=state):
            here.manager.label(record.id, {"a": "b"})


def test_the_audit_tells_of_both(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here)
    here.manager.rename(record.id, "web")
    here.manager.label("web", {"a": "b"})
    with pytest.raises(Invalid):
        here.manager.rename("web", "")
    told = [(entry.action, entry.target, entry.outcome) for entry in here.manager.audit()][-3:]
    assert told == [("rename", record.id, "ok"), ("label", record.id, "ok"), ("rename", record.id, "invalid")]


def test_changes_of_labels_are_read_like_those_of_kubectl() -> None:
    assert parse_label_changes(["a=b", "c-", "d=", "e=f-"]) == {"a": "b", "c": None, "d": "", "e": "f-"}
    for words in (["a"], ["a=b", "a-"], ["a=b", "a=c"]):
        with pytest.raises(Invalid):
            parse_label_changes(words)
