"""Whoever looks among the ended records pays for those that are meant. What is not meant is here a record that cannot
be read past its first fields: whoever decodes it fails."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import cast

import msgspec
import pytest

from sandboxer.bootstrap import Installation
from sandboxer.errors import NotFound, StoreCorrupt
from sandboxer.manager.access import Principal
from sandboxer.manager.manager import SandboxManager
from sandboxer.models import Consumer, Grant, Sandbox, Usage
from sandboxer.store import codec
from sandboxer.store.base import Store
from tests.api.serving import serving
from tests.api.tokens import bearing, token
from tests.installations import create, installed
from tests.store.records import NOON, ended, number

ANN, BOB = (Consumer(actor="agt", name=name) for name in ("ann", "bob"))
ANNS = Principal(grant=Grant(role="use", consumer="agt:ann"))
HELD = "h000000000a7"
"""The id of the record that nobody may decode."""


@pytest.fixture
def here(tmp_path: Path) -> Installation:
    """One ended sandbox of ann's, and one of bob's that is later and cannot be read in full."""
    found = installed(tmp_path)
    own = ended(number(1), name="mine", consumer=ANN, usage=used(number(1), NOON))
    held = ended(HELD, name="his", consumer=BOB, created_at=NOON + 500, usage=used(HELD, NOON + 500), labels={"a": "b"})
    archive(tmp_path, codec.encode_sandbox(own), unreadable(held))
    return found


def used(sandbox_id: str, started: float) -> Usage:
    return Usage(usage_id=f"use-{sandbox_id}", started_at=started, ended_at=started + 60, actual_usd="0")


def unreadable(record: Sandbox) -> bytes:
    line = codec.encode_sandbox(record)
    assert line.count(b'"seq":0') == 1
    return line.replace(b'"seq":0', b'"seq":"nought"')


def archive(root: Path, *lines: bytes) -> None:
    directory = root / "data" / "archive"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "2027-01.jsonl").open("ab") as file:
        file.writelines(line + b"\n" for line in lines)


def as_ann(here: Installation) -> SandboxManager:
    return here.manager.acting(ANNS)


def test_what_is_held_here_cannot_be_decoded(here: Installation) -> None:
    """Else the tests below would show nothing."""
    for look in (lambda: here.manager.get("his"), lambda: here.manager.list(ended=True), here.manager.usage):
        with pytest.raises(StoreCorrupt):
            look()


@pytest.mark.parametrize("text", ["nobody", "zzzzzzzzzzzz", "a0000001", "min"])
def test_an_operator_who_looks_in_vain_decodes_no_ended_record(here: Installation, text: str) -> None:
    with pytest.raises(NotFound):
        here.manager.get(text)
    assert here.manager.get("mine").id == number(1)


@pytest.mark.parametrize("text", ["nobody", "his", HELD[:8], HELD[:11]])
def test_a_consumer_decodes_nothing_of_anothers_and_is_answered_alike(here: Installation, text: str) -> None:
    with pytest.raises(NotFound) as caught:
        as_ann(here).get(text)
    assert caught.value.message == f"no sandbox {text!r}"
    assert as_ann(here).get("mine").id == number(1)


def test_a_consumers_list_and_usage_decode_nothing_of_anothers(here: Installation) -> None:
    ann = as_ann(here)
    assert [record.id for record in ann.list(ended=True)] == [number(1)]
    assert [item.sandbox_id for item in ann.usage()] == [number(1)]


def test_a_list_decodes_what_its_filters_leave(here: Installation) -> None:
    assert here.manager.list(ended=True, labels={"a": "c"}) == []
    assert here.manager.list(ended=True, profile="profile.other") == []
    assert here.manager.list(states=["failed"], ended=True) == []


def test_usage_decodes_what_its_bounds_leave(here: Installation) -> None:
    assert [item.sandbox_id for item in here.manager.usage(until="2027-01-15T08:05:00Z")] == [number(1)]
    assert here.manager.usage(since="2027-01-15T08:30:00Z") == []


def test_a_page_over_http_decodes_its_own_records_and_one_more(here: Installation, tmp_path: Path) -> None:
    archive(tmp_path, codec.encode_sandbox(ended(number(2), name="next", consumer=ANN, created_at=NOON + 1)))
    with serving(here) as server, bearing(server, token(here, "admin").token) as client:
        page = client.get("/v1/sandboxes?all=true&limit=1").json()
        assert [one["id"] for one in page["sandboxes"]] == [number(1)]
        assert page["next_cursor"] is not None
        rest = client.get(f"/v1/sandboxes?all=true&limit=1&cursor={page['next_cursor']}")
        assert rest.status_code == 500  # the one after it is the one that cannot be read
        assert rest.json()["code"] == "store_corrupt"


def test_the_newest_line_of_an_id_is_the_one_that_is_asked(here: Installation, tmp_path: Path) -> None:
    """A crash may leave a record in the archive twice; what the older line says does not hold."""
    renamed = ended(number(1), name="other", consumer=BOB)
    archive(tmp_path, codec.encode_sandbox(renamed))
    for manager in (here.manager, as_ann(here)):
        with pytest.raises(NotFound):
            manager.get("mine")
    assert as_ann(here).list(ended=True) == []
    assert here.manager.get("other") == renamed


def test_the_document_is_asked_before_the_archive(here: Installation, tmp_path: Path) -> None:
    record = create(here, name="now")
    archive(tmp_path, codec.encode_sandbox(msgspec.structs.replace(record, state="destroyed", name="then")))
    with pytest.raises(NotFound):
        here.manager.get("then")
    assert here.manager.get("now").id == record.id


class Recording:
    """A store that notes what it is asked, and how often a predicate was."""

    def __init__(self, here: Installation) -> None:
        self._inner = here.store
        self.asked: list[str] = []

    def __getattr__(self, verb: str) -> object:
        def ask(*words: object, **more: object) -> object:
            self.asked.append(f"{verb} {sorted(more)}")
            return getattr(self._inner, verb)(*words, **more)

        return ask


def test_a_consumers_look_asks_the_same_whoever_holds_the_name(here: Installation) -> None:
    """Else the time it takes tells of what is another's: live or ended, by its name or by the beginning of its id."""
    theirs = create(here, name="live")
    looks = []
    for text in ("live", "his", theirs.id[:6], HELD[:8], "nobody", "zzzz"):
        store = Recording(here)
        services = dataclasses.replace(here.manager.services, store=cast(Store, store))
        with pytest.raises(NotFound):
            SandboxManager(services, ANNS).get(text)
        looks.append(store.asked)
    assert looks == [looks[0]] * len(looks)
    assert looks[0] == ["list ['ended', 'only']"]
