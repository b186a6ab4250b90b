"""What must hold at every provider, whatever it does: by the manager, on the three fakes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from sandboxer.bootstrap import Installation, install
from sandboxer.errors import SandboxerError
from sandboxer.models import Request, Sandbox
from sandboxer.state import State
from sandboxer.timing import Deadline
from tests.fakes import Fault
from tests.fakes.daytona import FakeDaytona
from tests.fakes.e2b import FakeE2B
from tests.fakes.modal import FakeModal
from tests.installations import environment, lay_out

Clouds = FakeE2B | FakeDaytona | FakeModal
MAKES: dict[str, tuple[type[Clouds], str]] = {
    "e2b": (FakeE2B, "profile.e2b-burst"),
    "daytona": (FakeDaytona, "profile.daytona-dev"),
    "modal": (FakeModal, "profile.modal-gpu"),
}
REMOVALS = {
    "e2b": "DELETE /sandboxes/[^/]+",
    "daytona": "DELETE /api/sandbox/[^/]+",
    "modal": "POST .*/SandboxTerminate.*",
}

REQUESTS = {"e2b": 2, "daytona": 2, "modal": 5}
"""How many requests a create makes at least."""


class Estate:
    """A provider, and installations that use it."""

    def __init__(self, root: Path, kind: str) -> None:
        make, self.profile = MAKES[kind]
        self.kind = kind
        self.root = root
        self.cloud: Clouds = make()
        self.cloud.start()

    def installation(self, name: str = "one") -> Installation:
        """An installation with money."""
        root = self.root / name
        if not root.exists():
            lay_out(root)
        here = install(environment(root, **self.cloud.environment()), relay_in_background=False)
        if here.manager.services.credits.show().added_usd == "0":
            here.manager.services.credits.add(Decimal(100))
        return here

    def create(self, here: Installation) -> Sandbox:
        """A sandbox."""
        return here.manager.create(here.manager.plan(Request(profile=self.profile)))


@pytest.fixture(params=list(MAKES))
def estate(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Estate]:
    made = Estate(tmp_path, request.param)
    yield made
    made.cloud.stop()


def test_a_teardown_that_fails_or_lies_keeps_the_record(estate: Estate) -> None:
    """Promise 5: and the next one that works ends it, with one settlement (promise 4)."""
    here = estate.installation()
    record = estate.create(here)
    status = 503 if estate.kind == "modal" else 204
    estate.cloud.script.add(Fault(match=REMOVALS[estate.kind], kind="status", status=status, body=b"", times=None))
    with pytest.raises(SandboxerError):
        here.manager.destroy(record.id, timeout=6)
    assert here.manager.get(record.id).state == State.DESTROYING
    assert len(estate.cloud.census()) == 1
    estate.cloud.script.clear()
    assert here.manager.destroy(record.id).state == State.DESTROYED
    assert here.manager.destroy(record.id).state == State.DESTROYED
    assert list(estate.cloud.census()) == []
    kinds = [event.event_type for event in here.store.events()]
    assert kinds.count("sandbox.destroyed") == 1
    assert kinds.count("usage.metered") == 1


@pytest.mark.parametrize("heard", [0, 1, 3])
def test_a_create_at_a_provider_that_falls_silent_is_back_in_its_time(estate: Estate, heard: int) -> None:
    """Promise 22: within the deadline + 5 s, here with room for a busy machine. What may exist stays recorded (promise
    5), and is settled when the provider answers again."""
    heard = min(heard, REQUESTS[estate.kind] - 1)
    here = estate.installation()
    plan = here.manager.plan(Request(profile=estate.profile, timeout=3))
    estate.cloud.script.add(Fault(kind="hang", times=None, skip=heard))
    started = time.monotonic()
    with pytest.raises(SandboxerError) as caught:
        here.manager.create(plan)
    assert time.monotonic() - started < 3 + 5 + 10
    assert caught.value.code in ("timeout", "unavailable")
    estate.cloud.script.clear()
    (record,) = here.manager.list()
    assert record.state == State.FAILED
    assert here.manager.reconcile(apply=True).remaining == []
    assert here.manager.destroy(record.id).state == State.DESTROYED
    assert estate.cloud.census() == []
    assert here.manager.services.credits.show().reserved_usd == "0"


def test_what_ran_on_after_the_wish_is_overrun_and_not_charged(estate: Estate) -> None:
    """Promise 20."""
    here = estate.installation()
    record = estate.create(here)
    here.manager.request_destroy(record.id)
    wished = here.manager.get(record.id).wished_at
    assert wished is not None
    later = msgspec.structs.replace(here.manager.get(record.id), wished_at=wished - 5, ready_at=wished - 10)
    here.manager.services.edit(record.id, lambda _now: later)
    ended = here.manager.destroy(record.id)
    assert ended.usage is not None
    assert ended.usage.ended_at == wished - 5
    assert Decimal(ended.usage.overrun_usd) > 0
    assert here.manager.services.credits.show().spent_usd == ended.usage.actual_usd


def test_what_no_record_knows_is_found_and_removed_when_it_is_old_enough(estate: Estate) -> None:
    """Promises 6 and 8: what belongs to another installation, or is young, stays."""
    mine, other = estate.installation(), estate.installation("two")
    lost, theirs = estate.create(mine), estate.create(other)
    (mine.paths.data / "sandboxes.json").unlink()
    again = estate.installation()
    assert [a.action for a in again.manager.reconcile(apply=True).actions if a.sandbox_id == lost.id] == []
    assert len(estate.cloud.census()) == 2
    done = again.manager.reconcile(apply=True, grace=-5, force=True)
    assert (lost.id, "remove", "done") in [(a.sandbox_id, a.action, a.outcome) for a in done.actions]
    assert len(estate.cloud.census()) == 1
    assert other.manager.destroy(theirs.id).state == State.DESTROYED


def test_a_provider_that_is_down_clears_no_record(estate: Estate) -> None:
    """Promise 6: silence is not absence."""
    here = estate.installation()
    record = estate.create(here)
    estate.cloud.script.add(Fault(match="* .*", kind="drop", times=None))
    report = here.manager.reconcile(apply=True)
    assert report.remaining
    assert here.manager.get(record.id).state == State.READY
    estate.cloud.script.clear()
    assert here.manager.reconcile(apply=True).remaining == []
    here.manager.destroy(record.id)
    assert list(estate.cloud.census()) == []


def test_a_sandbox_that_the_provider_has_ended_is_failed_and_charged_no_more(estate: Estate) -> None:
    here = estate.installation()
    record = estate.create(here)
    context = here.manager.services.context(record, Deadline(60))
    assert record.handle is not None
    here.manager.services.extension(record).teardown(record.handle, context)  # somebody else did it
    here.manager.reconcile(apply=True)
    assert here.manager.get(record.id).state == State.FAILED
    assert here.manager.services.credits.show().reservations == []
