"""inspect stale and reap-stale: from the hosts and providers, on the fake backend and on native's markers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sandboxer.bootstrap import Installation
from sandboxer.errors import Invalid, Unavailable
from sandboxer.extensions.base import Context, Status
from sandboxer.manager.sweeps.reap import parse_markers
from sandboxer.models import Handle
from sandboxer.state import State
from sandboxer.testing.fake import FakeExtension, Faults
from tests.installations import create, installed, lay_out, left_over


def forget(root: Path) -> Installation:
    """The same installation, without its records."""
    (root / "data" / "sandboxes.json").unlink()
    return installed(root)


def neighbour(root: Path) -> Installation:
    """Another installation whose sandboxes lie in the same work directory."""
    other = root / "other"
    lay_out(other, config=f"hosts:\n  local: {{work_dir: {root}/work}}\n")
    return installed(other)


def test_a_resource_without_a_live_record_is_shown_then_planned_then_taken(tmp_path: Path) -> None:
    record = create(installed(tmp_path))
    here = forget(tmp_path)
    shown = here.manager.inspect_stale(grace=0.0)
    assert [(item.kind, item.sandbox_id) for item in shown.stale] == [("resource", record.id)]
    planned = here.manager.reap_stale(apply=False, grace=0.0)
    assert [(a.sandbox_id, a.action, a.outcome) for a in planned.actions] == [(record.id, "remove", "planned")]
    assert len(left_over(tmp_path)) == 1
    done = here.manager.reap_stale(apply=True, grace=0.0)
    assert [(a.sandbox_id, a.outcome) for a in done.actions] == [(record.id, "done")]
    assert left_over(tmp_path) == []


def test_what_is_younger_than_the_grace_period_and_what_has_a_record_stays(tmp_path: Path) -> None:
    """Promise 6."""
    create(installed(tmp_path))
    here = forget(tmp_path)
    assert here.manager.reap_stale(apply=True).actions == []
    alive = create(here)
    gone = here.manager.reap_stale(apply=True, grace=0.0).actions
    assert alive.id not in [action.sandbox_id for action in gone]
    assert len(left_over(tmp_path)) == 1


def test_a_record_whose_resources_have_vanished_fails_with_a_reason_and_an_event(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here)
    shutil.rmtree(tmp_path / "work" / "fake")
    assert [item.kind for item in here.manager.inspect_stale(grace=0.0).stale] == ["record"]
    assert here.manager.reap_stale(apply=True).actions == []  # it is younger than the grace period
    here.manager.reap_stale(apply=True, grace=0.0)
    failed = here.manager.get(record.id)
    assert failed.state == State.FAILED
    assert failed.error is not None
    assert "lost" in failed.error["message"]
    assert here.manager.events()[-1].event_type == "sandbox.failed"


class Halved(FakeExtension):
    """Shows every sandbox as one of which a part has gone."""

    def status(self, handle: Handle, ctx: Context) -> Status:
        return Status("stopped", "its containers are gone", broken=True)


def test_a_sandbox_of_which_a_part_has_gone_fails_and_what_is_left_is_taken(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here)
    here.manager.services.extensions.add("ext.fake", Halved)
    report = here.manager.reap_stale(apply=True, grace=0.0)
    assert [(a.sandbox_id, a.action, a.outcome) for a in report.actions] == [(record.id, "fail", "done")]
    failed = here.manager.get(record.id)
    assert failed.state == State.FAILED
    assert failed.error is not None
    assert "its containers are gone" in failed.error["message"]
    assert left_over(tmp_path) == []


def test_a_listing_that_fails_takes_nothing_and_is_told(tmp_path: Path) -> None:
    """Promise 6: a failed listing is no empty one."""
    record = create(installed(tmp_path))
    (tmp_path / "data" / "sandboxes.json").unlink()
    here = installed(tmp_path, Faults({"inventory": Unavailable("the host is silent")}))
    # a record of that backend makes its silence count
    create(here)
    report = here.manager.reap_stale(apply=True, grace=0.0)
    assert record.id not in [action.sandbox_id for action in report.actions]
    assert "the host is silent" in [item.why for item in report.remaining]
    assert any(record.id in path for path in left_over(tmp_path))


def test_a_mass_removal_stops_and_asks(tmp_path: Path) -> None:
    """Promise 6: more than 5 and more than a fifth of what is known, records and resources together."""
    here = installed(tmp_path)
    for _ in range(6):
        create(here)
    here = forget(tmp_path)
    report = here.manager.reap_stale(apply=True, grace=0.0)
    assert report.actions == []
    assert len(report.remaining) == 6
    assert all("--force" in item.why for item in report.remaining)
    assert len(left_over(tmp_path)) == 6
    assert len(here.manager.reap_stale(apply=True, grace=0.0, force=True).actions) == 6
    assert left_over(tmp_path) == []


def test_another_installations_sandbox_is_never_touched_unless_it_is_named(tmp_path: Path) -> None:
    """Promise 8."""
    other = neighbour(tmp_path)
    theirs = create(other)
    here = installed(tmp_path)
    assert here.manager.reap_stale(apply=True, grace=0.0).actions == []
    install = other.store.install_id
    alive = here.manager.reap_stale(apply=True, grace=0.0, install=install)
    assert alive.actions == []
    assert [item.sandbox_id for item in alive.remaining] == [theirs.id]
    assert "may live until" in alive.remaining[0].why
    assert len(left_over(tmp_path)) == 1
    forced = here.manager.reap_stale(apply=True, grace=0.0, install=install, force=True)
    assert [(a.sandbox_id, a.outcome) for a in forced.actions] == [(theirs.id, "done")]
    assert left_over(tmp_path) == []


def test_naming_another_installation_leaves_ours_alone(tmp_path: Path) -> None:
    record = create(installed(tmp_path))
    here = forget(tmp_path)
    assert here.manager.reap_stale(apply=True, grace=0.0, install="somebody-else", force=True).actions == []
    assert any(record.id in path for path in left_over(tmp_path))


@pytest.mark.parametrize("text", ["", "../x", "a b", "-x", "x" * 65])
def test_what_is_no_installations_id_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Invalid, match="installation"):
        installed(tmp_path).manager.reap_stale(apply=False, install=text)


def test_a_marker_of_another_installation_is_listed_and_no_link_is_followed(tmp_path: Path) -> None:
    here = installed(tmp_path)
    marker = {"sandboxer.id": "abcdefghijk1", "sandboxer.install": "theirs00", "sandboxer.expires": "1000000000"}
    theirs = tmp_path / "work" / "sbx-abcdefghijk1"
    theirs.mkdir(parents=True)
    (theirs / ".sandboxer.json").write_text(json.dumps(marker, indent=1))
    linked = tmp_path / "work" / "sbx-abcdefghijk2"
    linked.mkdir()
    (tmp_path / "elsewhere").write_text(json.dumps({**marker, "sandboxer.id": "abcdefghijk2"}))
    (linked / ".sandboxer.json").symlink_to(tmp_path / "elsewhere")
    (found,) = here.manager.inspect_stale().foreign
    assert (found.install, found.sandbox_id, found.host, found.over) == ("theirs00", "abcdefghijk1", "local", True)
    assert here.manager.reap_stale(apply=True, grace=0.0).actions == []
    assert theirs.is_dir()


def test_what_is_no_marker_is_passed_over() -> None:
    good = json.dumps({"sandboxer.id": "abcdefghijk1", "sandboxer.install": "theirs00", "sandboxer.expires": "nan"})
    path = "sbx-abcdefghijk1/.sandboxer.json"
    for body in ("", "[", "[" * 100_000, "7", '{"sandboxer.install": 7}', good.replace("theirs00", "\\u001b[2J")):
        assert parse_markers(f"{path}\n{body}", host="h", own="ours", now=0.0) == []
    assert parse_markers(f"sbx-other/.sandboxer.json\n{good}", host="h", own="ours", now=0.0) == []
    assert parse_markers(f"{path}\n{good}", host="h", own="theirs00", now=0.0) == []
    (found,) = parse_markers(f"{path}\n{good}", host="h", own="ours", now=0.0)
    assert found.expires_at is None
