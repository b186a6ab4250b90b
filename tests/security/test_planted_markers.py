"""A work directory in which the sandboxes of one backend can write what another one lists: a container has its
repository, with our marker in it, and so had a say in what all others were listed as."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxer.extensions.compose_ssh import scripts
from sandboxer.manager import SandboxManager
from sandboxer.models import Request, Sandbox
from sandboxer.names import MARKER_FILE, new_id, resource_name
from sandboxer.timing import Deadline
from tests.installations import installed

KINDS = ["fifo", "link", "endless", "damaged", "forged", "shifting"]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[SandboxManager]:
    manager = installed(tmp_path).manager
    yield manager
    for record in manager.list():
        manager.destroy(record.id)


@pytest.fixture
def box(manager: SandboxManager) -> Sandbox:
    return manager.create(manager.plan(Request(profile="profile.native")))


def plant(work: Path, kind: str, install: str) -> Path:
    """What a stack has in the work directory whose container has put something else in its marker's place."""
    name = resource_name(new_id())
    place, state = work / name, work / ".sandboxer" / name
    place.mkdir(parents=True)
    state.mkdir(parents=True)
    labels = {"sandboxer.id": name.removeprefix("sbx-"), "sandboxer.install": install, "created_at": 1}
    (state / "marker.json").write_text(json.dumps({**labels, "sandboxer.extension": "ext.compose-ssh"}) + "\n")
    marker = place / MARKER_FILE
    if kind == "fifo":
        os.mkfifo(marker)
    elif kind == "link":
        marker.symlink_to("/dev/zero")
    elif kind == "endless":
        with marker.open("wb") as out:
            out.truncate(1 << 40)
    else:
        text = {"damaged": "{", "forged": json.dumps(labels), "shifting": "SANDBOXER_HOLDER=x\n"}[kind]
        marker.write_text(text + "\n")
    return place


@pytest.mark.parametrize("kind", KINDS)
def test_a_marker_that_a_container_wrote_does_not_keep_native_sandboxes_from_being_listed(
    manager: SandboxManager, box: Sandbox, tmp_path: Path, kind: str
) -> None:
    place = plant(tmp_path / "work", kind, manager.services.store.install_id)
    extension = manager.services.extension(box)
    context = manager.services.context(box, Deadline(20))
    assert [found.sandbox_id for found in extension.inventory(context)] == [box.id]
    report = manager.reconcile(apply=True, grace=0.0)
    native = [action for action in report.actions if action.extension == "ext.native"]
    assert (native, [item for item in report.remaining if item.extension == "ext.native"]) == ([], [])
    assert place.is_dir()


@pytest.mark.parametrize("kind", ["fifo", "endless"])
def test_a_look_for_those_of_others_is_not_held_up(manager: SandboxManager, tmp_path: Path, kind: str) -> None:
    plant(tmp_path / "work", kind, "theirs00")
    (found,) = manager.inspect_stale(grace=0.0).foreign
    assert found.install == "theirs00"


def test_a_container_does_not_keep_the_end_of_its_stack_from_being_moved(tmp_path: Path) -> None:
    """The copy of the marker lies where it may write; the one that counts does not."""
    place, state = tmp_path / "sbx", tmp_path / "state"
    (place / MARKER_FILE / "full").mkdir(parents=True)
    state.mkdir()
    words = ["sh", "-c", scripts.RENEW, "sh", str(place), str(state)]
    done = subprocess.run(words, input='{"sandboxer.expires":"9"}\n', capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((state / "marker.json").read_text()) == {"sandboxer.expires": "9"}
    assert [path.name for path in state.iterdir()] == ["marker.json"]
