"""Finding 3: a directory that is swapped with a link while it is used leads nowhere; test_races.py
swaps while creates run."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from httpx import Client

from sandboxer.bootstrap import Installation
from sandboxer.errors import Denied, SandboxerError
from sandboxer.hosts.local import LocalHost
from sandboxer.hosts.trees import beneath
from sandboxer.hosts.trees.walk import TreeWalk
from sandboxer.manager.establish.attempt import LINKS_NOTE
from sandboxer.manager.establish.inputs import opened_inputs
from sandboxer.manager.establish.plan import CreatePlan
from sandboxer.models import HostSettings, Request
from sandboxer.timing import Deadline
from tests.api.serving import called
from tests.installations import installed, lay_out
from tests.testbed.components import need

NATIVE = {"profile": "profile.native", "ttl": "30m"}
SWAP = """#!/bin/sh
case "$*" in *sbx-*) [ -L '{victim}' ] || {{ mv '{victim}' '{victim}.aside'; ln -s '{outside}' '{victim}'; }} ;; esac
exec /bin/{name} "$@"
"""
"""A program of the host that swaps just before a tree is copied: the moment is the same each time."""


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """A directory in an allowed root, and one outside."""
    inside, outside = tmp_path / "allowed" / "tree", tmp_path / "outside"
    for place, text in ((inside, "inside"), (outside, "outside")):
        (place / "below").mkdir(parents=True)
        (place / "whose").write_text(text)
        (place / "below" / "whose").write_text(text)
    return inside, outside


def opened(tmp_path: Path) -> Installation:
    work, allowed = tmp_path / "work", tmp_path / "allowed"
    lay_out(tmp_path, config=f"hosts: {{local: {{work_dir: {work}}}}}\napi: {{allowed_roots: ['{allowed}']}}\n")
    return installed(tmp_path)


def copied(tmp_path: Path) -> list[str]:
    """What every sandbox holds."""
    return [file.read_text() for file in (tmp_path / "work").glob("sbx-*/workspace/**/whose")]


def destroyed(api: Client, document: dict[str, object]) -> None:
    api.delete(f"/v1/sandboxes/{document['id']}?wait=true")


def plant(patch: pytest.MonkeyPatch, tmp_path: Path, name: str, victim: Path, outside: Path) -> None:
    """Let the named program swap first."""
    place = tmp_path / "programs"
    place.mkdir()
    (place / name).write_text(SWAP.format(victim=victim, outside=outside, name=name))
    (place / name).chmod(0o755)
    patch.setenv("PATH", str(place), prepend=os.pathsep)


@pytest.mark.parametrize("program", ["mkdir", "rsync"])
def test_a_tree_that_is_swapped_just_before_it_is_copied_is_the_one_that_was_judged(
    tmp_path: Path, trees: tuple[Path, Path], program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP no program looks names up in it: rsync is not started at all."""
    need("bwrap", "rsync")
    inside, outside = trees
    plant(monkeypatch, tmp_path, program, inside, outside)
    with called(opened(tmp_path)) as api:
        answer = api.post("/v1/sandboxes?wait=true", json={**NATIVE, "inputs": {"repo": str(inside)}})
        assert answer.status_code == 201, answer.text
        assert answer.json()["inputs"] == {"repo": str(inside)}
        assert LINKS_NOTE in answer.json()["isolation"]["notes"]
        assert copied(tmp_path) == ["inside", "inside"]
        assert inside.is_symlink() == (program == "mkdir")
        destroyed(api, answer.json())


@pytest.mark.parametrize("program", ["mkdir", "rsync"])
def test_what_the_user_names_on_the_command_line_is_opened_once_too(
    tmp_path: Path, trees: tuple[Path, Path], program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("bwrap", "rsync")
    inside, outside = trees
    (tmp_path / "mine").symlink_to(inside)
    plant(monkeypatch, tmp_path, program, inside, outside)
    here = opened(tmp_path)
    plan = here.manager.plan(Request(profile="profile.native", inputs={"repo": str(tmp_path / "mine")}))
    record = here.manager.create(plan)
    assert inside.is_symlink()
    assert copied(tmp_path) == ["inside", "inside"]
    here.manager.destroy(record.id)


@pytest.mark.parametrize("stored", [False, True], ids=["in this process", "by a detached one"])
def test_a_plan_is_judged_again_when_it_is_carried_out(
    tmp_path: Path, trees: tuple[Path, Path], *, stored: bool
) -> None:
    inside, outside = trees
    here = opened(tmp_path)
    request = Request(profile="profile.native", inputs={"repo": str(inside)})
    plan = here.manager.plan(request, roots=[tmp_path / "allowed"])
    if stored:
        plan = msgspec.json.decode(msgspec.json.encode(plan), type=CreatePlan)
    inside.rename(tmp_path / "aside")
    inside.symlink_to(outside)
    with pytest.raises(Denied, match="leads through a link") as caught:
        here.manager.create(plan)
    assert str(inside) in caught.value.message
    assert copied(tmp_path) == []


def test_what_is_not_there_when_it_is_judged_cannot_be_put_there_later(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    profile = opened(tmp_path).manager.profile("profile.native")
    with opened_inputs(profile, {"repo": str(allowed / "later")}, [str(allowed)]) as inputs:
        (allowed / "later").symlink_to("/etc")
        assert not Path(inputs.values["repo"]).exists()
        assert inputs.named(f"{inputs.values['repo']} is not a directory") == f"{allowed}/later is not a directory"


def test_errors_and_progress_of_an_extension_speak_of_the_path_that_was_given(
    tmp_path: Path, trees: tuple[Path, Path]
) -> None:
    inside, _ = trees
    here = opened(tmp_path)
    file = inside / "whose"
    plan = here.manager.plan(
        Request(profile="profile.native", inputs={"repo": str(file)}), roots=[tmp_path / "allowed"]
    )
    with pytest.raises(SandboxerError) as caught:
        here.manager.create(plan)
    assert str(file) in caught.value.message
    assert "/proc/" not in caught.value.message + caught.value.hint


def test_a_directory_swapped_between_the_listing_and_the_opening_is_left_out(trees: tuple[Path, Path]) -> None:
    inside, outside = trees
    walk, seen = TreeWalk(), []
    with beneath.directory(inside) as top:
        for entry in walk.entries(top):
            seen.append(entry.relative)
            if entry.relative == "below":
                (inside / "below").rename(inside.parent / "aside")
                (inside / "below").symlink_to(outside)
    assert seen == [".", "below", "whose"]
    assert walk.gone == 1


def test_a_file_swapped_between_the_listing_and_the_opening_is_not_read(trees: tuple[Path, Path]) -> None:
    inside, outside = trees
    with beneath.directory(inside) as top:
        for entry in TreeWalk().entries(top):
            if entry.relative == "whose":
                (inside / "whose").unlink()
                (inside / "whose").symlink_to(outside / "whose")
                assert entry.open() is None
                return
    pytest.fail("the file was not seen")


def test_a_gitignore_file_that_is_swapped_with_a_link_is_none(trees: tuple[Path, Path]) -> None:
    inside, outside = trees
    (outside / "rules").write_text("whose\n")
    (inside / ".gitignore").symlink_to(outside / "rules")
    with beneath.directory(inside) as top:
        assert "whose" in [entry.relative for entry in TreeWalk(gitignore=True).entries(top)]


def test_links_that_stay_beneath_are_followed_and_others_are_not(trees: tuple[Path, Path]) -> None:
    inside, outside = trees
    (inside / "a").symlink_to("below/../whose")
    (inside / "b").symlink_to("a")
    (inside / "round").symlink_to("round")
    for name, target in {"up": "../../outside/whose", "whole": str(inside / "whose"), "far": str(outside)}.items():
        (inside / name).symlink_to(target)
    with beneath.directory(inside) as top:
        for good in ("a", "b", "below/whose"):
            with open(beneath.follow_at(top, good), "rb") as file:
                assert file.read() == b"inside"
        for bad in ("up", "whole", "far/whose", "round"):
            with pytest.raises(beneath.LinkOnPath):
                beneath.follow_at(top, bad)
        for bad in ("a", "../tree/whose", "/etc/passwd"):
            with pytest.raises(beneath.LinkOnPath):
                beneath.open_at(top, bad)


def test_no_descriptor_is_left_open_by_opening(trees: tuple[Path, Path]) -> None:
    inside, outside = trees
    (inside / "link").symlink_to(outside)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with beneath.directory(inside) as top:
        for path in ("below/whose", "link/whose", "none/such", "whose/x", "below"):
            for way in (beneath.open_at, beneath.follow_at):
                try:
                    os.close(way(top, path))
                except OSError:
                    continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_tree_that_others_may_write_is_not_given_to_rsync(tmp_path: Path, trees: tuple[Path, Path]) -> None:
    inside, _ = trees
    profile = opened(tmp_path).manager.profile("profile.native")
    host = LocalHost("local", HostSettings())
    methods = []
    for mode in (0o755, 0o777):
        (inside / "below").chmod(mode)
        with opened_inputs(profile, {"repo": str(inside)}, None) as inputs:
            target = tmp_path / f"copy-{mode:o}"
            methods.append(host.sync(Path(inputs.values["repo"]), str(target), Deadline(60)).method)
            assert (target / "below" / "whose").read_text() == "inside"
    assert methods == ["rsync", "tar"]
