"""Documents that are not a store of ours are refused, and stay as they are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandboxer.errors import Conflict, StoreCorrupt, exit_code_of
from sandboxer.store.json_store import JsonStore
from tests.store.records import ID, OTHER, count, event, put, sandbox

Edit = Callable[[bytes], bytes]


def store_in(data: Path) -> bytes:
    """Makes a store with two records; returns its document."""
    JsonStore(data).update(ID, put(sandbox(name="web"), event("1")))
    JsonStore(data).update(OTHER, put(sandbox(OTHER)))
    return (data / "sandboxes.json").read_bytes()


def edited(change: Callable[[dict[str, Any]], object]) -> Edit:
    """A person's (or another program's) edit of the parsed document."""

    def edit(good: bytes) -> bytes:
        document = json.loads(good)
        change(document)
        return json.dumps(document).encode()

    return edit


def _doubled(good: bytes) -> bytes:
    lines = good.split(b"\n")
    return b"\n".join([*lines[:3], lines[2], *lines[3:]])


CORPUS: dict[str, Edit] = {
    "empty": lambda good: b"",
    "blank": lambda good: b"\n",
    "zeros after a power cut": lambda good: bytes(len(good)),
    "cut short": lambda good: good[: len(good) // 2],
    "without its last byte but one": lambda good: good[:-2],
    "two documents": lambda good: good + good,
    "rubbish behind": lambda good: good + b"}",
    "a byte order mark": lambda good: b"\xef\xbb\xbf" + good,
    "utf-16": lambda good: good.decode().encode("utf-16"),
    "no utf-8": lambda good: good.replace(b'"ops"', b'"o\xff\xfe"'),
    "no utf-8, escaped": lambda good: good.replace(b'"ops"', b'"o\\ud800"'),
    "no json": lambda good: b"schema_version: 1\n",
    "a conflict of git": lambda good: b"<<<<<<< HEAD\n" + good,
    "an html page": lambda good: b"<!doctype html><title>sandboxes</title>",
    "gzip": lambda good: b"\x1f\x8b\x08\x00" + good,
    "a list": lambda good: b"[]",
    "null": lambda good: b"null",
    "an empty object": lambda good: b"{}",
    "nested without end": lambda good: b"[" * 200_000,
    "nested without end inside": lambda good: good.replace(
        b'"inputs":{}', b'"inputs":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    ),
    "an id twice": _doubled,
    "a newer schema": edited(lambda d: d.update(schema_version=2)),
    "a newer schema of another shape": lambda good: b'{"schema_version": 7, "tables": []}',
    "schema 0": edited(lambda d: d.update(schema_version=0)),
    "a schema in words": edited(lambda d: d.update(schema_version="1")),
    "no schema": edited(lambda d: d.pop("schema_version")),
    "no sandboxes": edited(lambda d: d.pop("sandboxes")),
    "no outbox": edited(lambda d: d.pop("outbox")),
    "something more": edited(lambda d: d.update(snapshots={})),
    "sandboxes in a list": edited(lambda d: d.update(sandboxes=list(d["sandboxes"].values()))),
    "a number for a record": edited(lambda d: d["sandboxes"].update({ID: 5})),
    "a record under another id": edited(lambda d: d["sandboxes"].update(k3v9x2m7q4tc=d["sandboxes"].pop(ID))),
    "a record without its state": edited(lambda d: d["sandboxes"][ID].pop("state")),
    "a record with a wrong type": edited(lambda d: d["sandboxes"][ID].update(created_at="today")),
    "an event without its id": edited(lambda d: d["outbox"][0].pop("event_id")),
    "an event in an unknown status": edited(lambda d: d["outbox"][0].update(status="lost")),
    "another installation": edited(lambda d: d.update(install="0123456789abcdef")),
    "no installation": edited(lambda d: d.update(install="")),
    "a foreign document": lambda good: b'{"schema_version": 1, "install": "x", "credits": {}}',
}


def retyped(field: str, value: str) -> Edit:
    """A person's edit, in an editor, of one field of one record: the lines stay as they are."""

    def edit(good: bytes) -> bytes:
        changed, count = re.subn(f'"{field}":[^,]*'.encode(), f'"{field}":{value}'.encode(), good, count=1)
        assert count == 1
        return changed

    return edit


RECORDS: dict[str, Edit] = {
    "a state that is none": retyped("state", '"happy"'),
    "a state that is never stored": retyped("state", '"active"'),
    "a state twice": retyped("state", '"ready","state":"destroyed"'),
    "a time beyond the calendar": retyped("expires_at", "1e300"),
    "a time before the calendar": retyped("created_at", "-1e15"),
    "an id that is none": lambda good: good.replace(ID.encode(), b"not an id"),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_that_no_verb_could_use_is_refused_by_all_and_kept(tmp_path: Path, kind: str) -> None:
    """Promise 13. It is looked at where somebody looks for it: the other one can be had meanwhile."""
    data = tmp_path / "data"
    bad = RECORDS[kind](store_in(data))
    (data / "sandboxes.json").write_bytes(bad)
    which = "not an id" if kind == "an id that is none" else ID
    attempts: list[Callable[[JsonStore], object]] = [
        lambda store: store.get(which),
        lambda store: store.list(),
        lambda store: store.list(ended=True),
        lambda store: store.update(which, count),
    ]
    for attempt in attempts:
        with pytest.raises(StoreCorrupt, match=which) as caught:
            attempt(JsonStore(data))
        assert "doctor" in caught.value.hint
    assert (data / "sandboxes.json").read_bytes() == bad
    assert JsonStore(data).get(OTHER) == sandbox(OTHER)


@pytest.mark.parametrize("kind", CORPUS)
def test_a_document_that_is_not_ours_is_refused_and_kept(tmp_path: Path, kind: str) -> None:
    """Promise 13: refused with its bytes kept, never treated as empty."""
    data = tmp_path / "data"
    bad = CORPUS[kind](store_in(data))
    path = data / "sandboxes.json"
    path.write_bytes(bad)
    before = path.stat()
    attempts: list[Callable[[JsonStore], object]] = [
        lambda store: store.get(ID),
        lambda store: store.get("k3v9x2m7q4tz"),
        lambda store: store.find("web"),
        lambda store: store.list(),
        lambda store: store.list(ended=True),
        lambda store: store.events(),
        lambda store: store.update(ID, count),
        lambda store: store.update("k3v9x2m7q4tz", put(sandbox("k3v9x2m7q4tz"))),
        lambda store: store.settle_events([event("1", status="sent")]),
    ]
    for attempt in attempts:
        with pytest.raises(StoreCorrupt) as caught:
            attempt(JsonStore(data))
        assert str(path) in caught.value.message
        assert "sandboxer doctor" in caught.value.hint
        assert exit_code_of(caught.value) == 13
    after = path.stat()
    assert path.read_bytes() == bad
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sorted(entry.name for entry in data.iterdir()) == [
        ".reserve",
        ".sandboxes.json.lock",
        "install",
        "sandboxes.json",
    ]


def test_a_newer_document_says_so(tmp_path: Path) -> None:
    data = tmp_path / "data"
    store_in(data)
    for kind in ("a newer schema", "a newer schema of another shape"):
        (data / "sandboxes.json").write_bytes(CORPUS[kind]((data / "sandboxes.json").read_bytes()))
        with pytest.raises(StoreCorrupt, match="newer sandboxer") as caught:
            JsonStore(data).list()
        assert "upgrade" in caught.value.hint


@pytest.mark.parametrize(
    "make",
    [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("nowhere")],
    ids=["directory", "pipe", "link", "dangling link"],
)
def test_what_is_no_plain_file_is_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """Promise 13; and a pipe of that name holds nobody up."""
    path = tmp_path / "data" / "sandboxes.json"
    path.parent.mkdir()
    make(path)
    attempts: list[Callable[[JsonStore], object]] = [lambda store: store.list(), lambda store: store.update(ID, count)]
    for attempt in attempts:
        with pytest.raises(StoreCorrupt, match="not a regular file"):
            attempt(JsonStore(path.parent))
    assert os.path.lexists(path)
    assert not path.is_file()


def test_a_record_edited_within_our_layout_is_refused_when_it_is_looked_at(tmp_path: Path) -> None:
    """Promise 13: one bad record is never dropped, and does not stop another from being destroyed."""
    data = tmp_path / "data"
    good = store_in(data)
    bad = good.replace(b'"state":"ready"', b'"state":12345', 1)
    (data / "sandboxes.json").write_bytes(bad)
    store = JsonStore(data)
    with pytest.raises(StoreCorrupt, match=ID):
        store.get(ID)
    with pytest.raises(StoreCorrupt, match=ID):
        store.update(ID, count)
    with pytest.raises(StoreCorrupt, match=ID):
        store.list()
    store.update(OTHER, count)
    assert bad.split(b"\n")[2] == (data / "sandboxes.json").read_bytes().split(b"\n")[2]


def test_a_store_is_missing_only_when_its_file_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    store_in(data)
    (data / "sandboxes.json").unlink()
    assert JsonStore(data).list() == []
    data.rename(tmp_path / "elsewhere")
    assert JsonStore(data).list() == []


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(at=st.floats(0, 1), length=st.integers(0, 40), new=st.binary(max_size=40))
def test_no_damage_loses_a_record_in_silence(tmp_path: Path, at: float, length: int, new: bytes) -> None:
    """Promise 13: whatever bytes change, the answer is an error or has both records."""
    data = tmp_path / "data"
    path = data / "sandboxes.json"
    kept = tmp_path / "good"
    if not kept.exists():
        kept.write_bytes(store_in(data))
    good = kept.read_bytes()
    start = int(at * len(good))
    path.write_bytes(good[:start] + new + good[start + length :])
    try:
        found = JsonStore(data).list()
    except StoreCorrupt:
        return
    assert {record.id for record in found} == {ID, OTHER}  # in whatever order: a time may have changed


# -- setting aside ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in CORPUS if "newer" not in kind])
def test_a_bad_document_can_be_set_aside_with_its_bytes(tmp_path: Path, kind: str) -> None:
    """Promise 13: then `doctor --repair` can bring back what the backends still show, under the same installation."""
    data = tmp_path / "data"
    bad = CORPUS[kind](store_in(data))
    install = JsonStore(data).install_id
    (data / "sandboxes.json").write_bytes(bad)
    store = JsonStore(data)
    aside = store.set_aside()
    assert aside.read_bytes() == bad
    assert aside.name.startswith("sandboxes.json.unreadable-")
    assert store.list() == []
    store.update(ID, put(sandbox()))
    assert JsonStore(data).get(ID) == sandbox()
    assert JsonStore(data).install_id == install


def test_what_can_be_read_is_not_set_aside(tmp_path: Path) -> None:
    data = tmp_path / "data"
    good = store_in(data)
    path = data / "sandboxes.json"
    with pytest.raises(Conflict):
        JsonStore(data).set_aside()
    path.write_bytes(CORPUS["a newer schema"](good))
    with pytest.raises(Conflict, match="newer") as caught:
        JsonStore(data).set_aside()
    assert "upgrade" in caught.value.hint
    assert json.loads(path.read_bytes())["schema_version"] == 2
    path.unlink()
    with pytest.raises(Conflict):
        JsonStore(data).set_aside()
