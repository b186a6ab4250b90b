"""What inspecting a host tells of our sandboxes on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sandboxer.bootstrap import install
from sandboxer.errors import BackendError
from sandboxer.extensions.base import CanShowUsage, Context
from sandboxer.models import Handle, Request
from sandboxer.testing.fake import FakeExtension
from tests.installations import create, environment, installed, lay_out


def test_our_sandboxes_on_a_host_are_shown_with_what_they_use(tmp_path: Path) -> None:
    lay_out(tmp_path)
    here = install(environment(tmp_path), relay_in_background=False)
    record = here.manager.create(here.manager.plan(Request(profile="profile.native", name="play")))
    gone = here.manager.create(here.manager.plan(Request(profile="profile.native")))
    here.manager.destroy(gone.id)
    try:
        (row,) = here.manager.inspect_host("local")["sandboxes"]
    finally:
        here.manager.destroy(record.id)
        here.close()
    assert (row["id"], row["name"], row["state"]) == (record.id, "play", "ready")
    assert row["processes"] >= 1
    assert row["memory_bytes"] > 0
    assert 0 < row["memory_share"] < 1
    assert row["cpu_s"] >= 0
    assert 0 <= row["cpu_share"] <= 1


def test_a_backend_that_cannot_show_it_takes_nothing_from_the_report(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here)
    report = here.manager.inspect_host("local")
    (row,) = report["sandboxes"]
    assert (row["id"], row["processes"], row["cpu_share"]) == (record.id, None, None)
    assert report["cpu_count"] >= 1


class Mute(FakeExtension, CanShowUsage):
    """Fails when it is asked."""

    def first_processes(self, handles: Sequence[Handle], ctx: Context) -> Sequence[Sequence[int]]:
        raise BackendError("it does not say")


def test_a_backend_that_fails_to_show_it_takes_nothing_from_the_report(tmp_path: Path) -> None:
    here = installed(tmp_path)
    here.manager.services.extensions.add("ext.fake", Mute)
    create(here)
    (row,) = here.manager.inspect_host("local")["sandboxes"]
    assert row["processes"] is None
