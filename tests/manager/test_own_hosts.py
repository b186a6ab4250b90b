"""Stopped on a host of one's own: nobody else stops it there, and a host that was restarted has stopped nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sandboxer.bootstrap import Installation
from sandboxer.errors import BackendError, Conflict, Unavailable
from sandboxer.extensions.base import CanStop, Context, Exec, Status
from sandboxer.hosts.base import Streams
from sandboxer.models import Handle, Isolation, Reachability, Ready
from sandboxer.state import State
from sandboxer.testing.fake import FakeExtension
from tests.installations import create, installed


class Restartable(FakeExtension, CanStop):
    """The fake, on a host that may be restarted: `shown` is what it shows next; `looks` counts."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = Status("running")
        self.broken: BackendError | Unavailable | None = None
        self.looks = 0
        self.reached: Ready | None = None

    def status(self, handle: Handle, ctx: Context) -> Status:
        self.looks += 1
        return self.shown

    def stop(self, handle: Handle, ctx: Context) -> None:
        if self.broken is not None:
            raise self.broken
        self.shown = Status("stopped")

    def start(self, handle: Handle, expires_at: float | None, ctx: Context) -> Ready | None:
        self.shown = Status("running")
        return self.reached


RESTARTED = Status("stopped", "it does not run, and the next command starts it again", ended_itself=True)


@pytest.fixture
def backend() -> Restartable:
    return Restartable()


@pytest.fixture
def here(tmp_path: Path, backend: Restartable) -> Installation:
    made = installed(tmp_path)
    made.manager.services.extensions.add("ext.fake", lambda: backend)
    return made


def test_a_restart_of_the_host_is_no_stop(here: Installation, backend: Restartable) -> None:
    record = create(here)
    backend.shown = RESTARTED
    seen = here.manager.get(record.id, refresh=True)
    assert (seen.state, seen.last_seen and seen.last_seen.detail) == (State.READY, RESTARTED.detail)
    assert here.manager.reconcile(apply=True).actions == []
    assert here.manager.get(record.id).state == State.READY
    streams = Streams(stdout=lambda _chunk: None, stderr=lambda _chunk: None)
    assert here.manager.exec(record.id, Exec(argv=("true",)), streams) == 0


def test_one_that_was_stopped_and_would_start_itself_is_not_stopped_any_more(
    here: Installation, backend: Restartable
) -> None:
    record = create(here)
    assert here.manager.stop(record.id).state == State.STOPPED
    backend.shown = RESTARTED
    (action,) = here.manager.reconcile(apply=True).actions
    assert (action.action, action.why) == ("note", f"it was stopped, and is not any more: {RESTARTED.detail}")
    assert here.manager.get(record.id).state == State.READY


@pytest.mark.parametrize("error", [BackendError("refused"), Unavailable("no answer", outcome="unknown")])
def test_a_stop_that_failed_on_one_that_ended_itself_is_no_stop(
    here: Installation, backend: Restartable, error: BackendError | Unavailable
) -> None:
    record = create(here)
    backend.shown, backend.broken = RESTARTED, error
    with pytest.raises(type(error)):
        here.manager.stop(record.id)
    settled = here.manager.get(record.id)
    assert (settled.state, settled.intent) == (State.READY, None)


def test_expire_asks_no_host_whether_what_costs_nothing_still_runs(here: Installation, backend: Restartable) -> None:
    record = create(here)
    backend.looks = 0
    assert here.manager.expire(apply=True).actions == []
    assert backend.looks == 0
    begun = here.manager.services.edit(record.id, lambda now: msgspec.structs.replace(now, intent="stop"))
    assert begun.intent == "stop"
    (action,) = here.manager.expire(apply=True).actions
    assert (action.action, action.outcome) == ("note", "done")
    assert here.manager.get(record.id).intent is None


def test_what_may_be_done_with_a_stopped_one(here: Installation) -> None:
    record = create(here)
    here.manager.stop(record.id)
    streams = Streams(stdout=lambda _chunk: None, stderr=lambda _chunk: None)
    with pytest.raises(Conflict) as caught:
        here.manager.exec(record.id, Exec(argv=("true",)), streams)
    assert caught.value.hint == f"run `sandboxer start {record.id}`"
    for inward in (True, False):
        with pytest.raises(Conflict) as caught:
            here.manager.copy(record.id, source="x", target="y", inward=inward)
        assert caught.value.hint == f"run `sandboxer start {record.id}`"
    longer = here.manager.extend_ttl(record.id, 60)
    assert (longer.state, longer.expires_at) == (State.STOPPED, (record.expires_at or 0) + 60)
    assert here.manager.rename(record.id, "web").name == "web"
    assert here.manager.destroy(record.id).state == State.DESTROYED


def test_how_it_is_reached_after_a_start_is_recorded(here: Installation, backend: Restartable) -> None:
    record = create(here)
    here.manager.stop(record.id)
    moved = Reachability(kind="local", remote_dir="/elsewhere")
    backend.reached = Ready(reachability=moved, isolation=Isolation(class_="none", network="host"))
    assert here.manager.start(record.id).reachability == moved
