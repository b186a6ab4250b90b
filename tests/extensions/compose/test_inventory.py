"""Listings of a host: complete, or an error."""

from __future__ import annotations

import json

import pytest

from sandboxer.errors import BackendError
from sandboxer.extensions.compose_ssh.inventory import parse_inventory, parse_present, read_marker

ID, OTHER = "k3v9x2m7q4ta", "abcdefghijkl"
MARKER = {
    "sandboxer.id": ID,
    "sandboxer.install": "me",
    "sandboxer.extension": "ext.compose-ssh",
    "sandboxer.expires": "9",
    "created_at": 5,
}


def listed(*lines: str, end: str = "end") -> dict[str, dict[str, int]]:
    seen, _ = parse_inventory("\n".join([*lines, end]), install="me", work_dir="/w")
    return {name: one.parts for name, one in seen.items()}


def file(path: str, content: object) -> list[str]:
    return [f"file {path}", content if isinstance(content, str) else json.dumps(content)]


def test_markers_and_labels_are_brought_together() -> None:
    labels = {"sandboxer.id": ID, "sandboxer.install": "me"}
    foreign = {"sandboxer.id": OTHER, "sandboxer.install": "another"}
    got = listed(
        *file(f"/w/.sandboxer/sbx-{ID}/marker.json", MARKER),
        "labels container",
        json.dumps(
            [{"Config": {"Labels": labels}}, {"Config": {"Labels": labels}}, {"Config": {"Labels": foreign}}], indent=1
        ),
        "labels network",
        json.dumps([{"labels": labels}]),
        "labels volume",
        "[]",
    )
    assert got == {ID: {"directory": 1, "container": 2, "network": 1}}


def test_a_container_without_a_directory_is_listed_with_its_own_labels() -> None:
    item = {
        "Config": {"Labels": {"sandboxer.id": ID, "sandboxer.install": "me", "sandboxer.expires": "7", "x": "y"}},
        "Created": "2026-11-21T03:47:33.349175077Z",
    }
    seen, absent = parse_inventory(f"labels container\n{json.dumps([item])}\nend", install="me", work_dir="/w")
    assert seen[ID].expires_at == 7.0
    assert seen[ID].created_at == pytest.approx(1795232853.349, abs=0.01)
    assert "x" not in seen[ID].labels
    assert absent == []


@pytest.mark.parametrize("end", ["", "en", "endx"])
def test_a_listing_that_is_cut_off_is_an_error(end: str) -> None:
    with pytest.raises(BackendError) as caught:
        listed("labels container", "[]", end=end)
    assert caught.value.outcome == "unknown"


def test_details_that_cannot_be_read_are_an_error() -> None:
    with pytest.raises(BackendError):
        listed("labels container", '[{"Config": ')


def test_a_broken_marker_of_ours_is_an_error_and_one_that_a_sandbox_can_write_is_not_believed() -> None:
    with pytest.raises(BackendError):
        listed(*file(f"/w/.sandboxer/sbx-{ID}/marker.json", "{"))
    assert listed(*file(f"/w/sbx-{ID}/.sandboxer.json", "{")) == {}
    assert listed(*file("/w/sbx-../.sandboxer.json", MARKER)) == {}
    assert listed(*file(f"/w/sbx-{OTHER}/.sandboxer.json", {**MARKER, "sandboxer.extension": "ext.native"})) == {}
    assert listed(*file(f"/w/sbx-{OTHER}/.sandboxer.json", {**MARKER, "sandboxer.install": "another"})) == {}


def test_a_handle_that_cannot_be_read_is_as_good_as_none() -> None:
    seen = parse_present("directory /w/x\nhandle {broken\ncontainer Up 2 minutes\ncontainer Up 1 second (Paused)\n")
    assert (seen.anything, seen.running, seen.handle_data) == (True, 1, None)
    assert not parse_present("").anything


def test_no_marker_and_a_broken_one_say_where() -> None:
    for data in (None, b"", b"[]", b"{"):
        with pytest.raises(BackendError, match="/w/marker"):
            read_marker(data, "/w/marker")
