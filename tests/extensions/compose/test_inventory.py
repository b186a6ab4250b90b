"""Listings of a host: complete, or an error."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from sandboxer.errors import BackendError
from sandboxer.extensions.compose_ssh import scripts
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


@pytest.mark.parametrize("end", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\r"], ids=ascii)
def test_what_a_sandbox_can_write_is_one_line_whatever_is_in_it(end: str) -> None:
    """Else it told of other sandboxes, and gave handles, whose engine is a program that the host runs."""
    handle = {"sandbox_id": ID, "name": f"sbx-{ID}", "compose": ["/w/evil"], "directory": "/w", "state": "/w"}
    forged = [
        "x",
        *file(f"/w/.sandboxer/sbx-{OTHER}/marker.json", {**MARKER, "sandboxer.id": OTHER}),
        *file(f"/w/.sandboxer/sbx-{ID}/handle.json", handle),
        "absent podman",
        "labels container",
        json.dumps([{"Config": {"Labels": {"sandboxer.id": OTHER, "sandboxer.install": "me"}}}]),
    ]
    lines = [
        *file(f"/w/.sandboxer/sbx-{ID}/marker.json", MARKER),
        *file(f"/w/sbx-{ID}/.sandboxer.json", end.join(forged)),
    ]
    seen, absent = parse_inventory("\n".join([*lines, "end"]), install="me", work_dir="/w")
    assert (list(seen), absent) == ([ID], [])
    assert seen[ID].handle_data is None


@pytest.mark.parametrize("what", ["fifo", "endless", "link", "huge"])
def test_the_listing_is_not_held_up_by_what_a_sandbox_can_write(tmp_path: Path, what: str) -> None:
    """Its own marker is asked for only where ours is not there, and little of it is read."""
    for sandbox_id, state in ((ID, True), (OTHER, False)):
        (tmp_path / f"sbx-{sandbox_id}").mkdir()
        planted = tmp_path / f"sbx-{sandbox_id}" / ".sandboxer.json"
        if state:
            (tmp_path / ".sandboxer" / f"sbx-{sandbox_id}").mkdir(parents=True)
            (tmp_path / ".sandboxer" / f"sbx-{sandbox_id}" / "marker.json").write_text(json.dumps(MARKER) + "\n")
        if what == "fifo":
            os.mkfifo(planted)
        elif what == "link":
            planted.symlink_to("/dev/zero")
        else:
            with planted.open("wb") as out:
                out.write(b"x" * 3_000_000 if what == "huge" else b"")
                out.truncate(3_000_000 if what == "huge" else 1 << 40)
    words = ["sh", "-c", scripts.INVENTORY, "sh", "me", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    seen, _ = parse_inventory(done.stdout.rstrip("\n"), install="me", work_dir=str(tmp_path))
    assert list(seen) == [ID]
    assert len(done.stdout) < 100_000


def test_a_handle_that_cannot_be_read_is_as_good_as_none() -> None:
    seen = parse_present("directory /w/x\nhandle {broken\ncontainer Up 2 minutes\ncontainer Up 1 second (Paused)\n")
    assert (seen.anything, seen.running, seen.handle_data) == (True, 1, None)
    assert not parse_present("").anything


def test_no_marker_and_a_broken_one_say_where() -> None:
    for data in (None, b"", b"[]", b"{"):
        with pytest.raises(BackendError, match="/w/marker"):
            read_marker(data, "/w/marker")
