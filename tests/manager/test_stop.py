"""Stop and start a sandbox: what is meant is durable first, and no crash leaves a record that says what is not so."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import msgspec
import pytest

from sandboxer.errors import BackendError, Conflict, SandboxerError, Unavailable, Unsupported
from sandboxer.extensions.base import Context, Exec
from sandboxer.hosts.base import Streams
from sandboxer.manager import SandboxManager
from sandboxer.models import Handle, Sandbox
from sandboxer.state import State
from tests.installations import create, installed
from tests.manager.metered import SECOND
from tests.manager.test_state_machine import Died, Life, MortalStore
from tests.manager.test_stopped_billing import NOTHING, Hotel


@pytest.fixture
def hotel(tmp_path: Path) -> Hotel:
    made = Hotel(tmp_path)
    made.provider.billed = NOTHING
    return made


def run(hotel: Hotel, record: Sandbox) -> int:
    streams = Streams(stdin=None, stdout=lambda _chunk: None, stderr=lambda _chunk: None)
    return hotel.manager.exec(record.id, Exec(argv=("true",)), streams)


def test_it_is_stopped_and_started_again_and_charged_for_the_time_that_it_ran(hotel: Hotel) -> None:
    record = hotel.create()
    hotel.now += 100
    for _ in range(2):
        stopped = hotel.manager.stop(record.id)
        assert (stopped.state, stopped.intent, stopped.expires_at) == (State.STOPPED, None, record.expires_at)
    with pytest.raises(Conflict, match="paused at Fake") as caught:
        run(hotel, record)
    assert caught.value.hint == f"run `sandboxer start {record.id}`"
    hotel.now += 300
    for _ in range(2):
        assert hotel.manager.start(record.id).state == State.READY
    assert run(hotel, record) == 0
    hotel.now += 50
    hotel.manager.destroy(record.id)
    assert hotel.spent == 150 * SECOND
    told = [event.event_type for event in hotel.manager.events() if event.event_type.startswith("sandbox.")]
    assert told[1:5] == ["sandbox.ready", "sandbox.stopped", "sandbox.started", "sandbox.active"]


def test_one_that_somebody_else_stopped_is_started(hotel: Hotel) -> None:
    """Its record says that it is ready."""
    record = hotel.create()
    hotel.provider.stopped = True
    assert hotel.manager.start(record.id).state == State.READY
    assert not hotel.provider.stopped


def test_a_backend_that_cannot_says_so_before_anything_else(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here)
    for verb in (here.manager.stop, here.manager.start):
        with pytest.raises(Unsupported) as caught:
            verb(record.id)
        assert "sandboxer extensions show" in caught.value.hint
    assert here.manager.get(record.id) == record


def test_one_whose_ttl_is_over_is_not_started_until_it_is_extended(hotel: Hotel) -> None:
    record = hotel.create()
    hotel.manager.stop(record.id)
    hotel.now += 2000
    with pytest.raises(Conflict, match="TTL") as caught:
        hotel.manager.start(record.id)
    assert "extend-ttl" in caught.value.hint
    hotel.manager.extend_ttl(record.id, 600)
    assert hotel.manager.start(record.id).state == State.READY


@pytest.mark.parametrize("verb", ["stop", "start"])
def test_one_that_has_ended_is_neither_stopped_nor_started(hotel: Hotel, verb: str) -> None:
    record = hotel.create()
    hotel.manager.destroy(record.id)
    with pytest.raises(Conflict, match="destroyed"):
        getattr(hotel.manager, verb)(record.id)


@pytest.mark.parametrize(("verb", "before"), [("stop", State.READY), ("start", State.STOPPED)])
def test_a_refusal_leaves_what_is_there(hotel: Hotel, verb: str, before: State) -> None:
    record = hotel.create()
    if verb == "start":
        hotel.manager.stop(record.id)
    hotel.provider.faults.plan[verb] = BackendError("refused")
    with pytest.raises(BackendError) as caught:
        getattr(hotel.manager, verb)(record.id)
    seen = hotel.manager.get(record.id)
    assert (seen.state, seen.intent, caught.value.outcome) == (before, None, "failed")


def test_a_stop_whose_answer_is_lost_is_a_stop(hotel: Hotel) -> None:
    record = hotel.create()
    hotel.provider.faults.plan["stop.done"] = Unavailable("no answer", outcome="unknown")
    assert hotel.manager.stop(record.id).state == State.STOPPED


def test_where_nothing_can_be_seen_it_is_settled_when_it_can(hotel: Hotel) -> None:
    record = hotel.create()
    hotel.provider.silent = True
    hotel.provider.faults.plan["stop.done"] = Unavailable("no answer", outcome="unknown")
    with pytest.raises(Unavailable) as caught:
        hotel.manager.stop(record.id)
    assert caught.value.outcome == "unknown"
    assert hotel.manager.get(record.id).intent == "stop"
    assert hotel.manager.reconcile(apply=True).remaining != []
    hotel.provider.silent = False
    assert hotel.manager.get(record.id, refresh=True).state == State.STOPPED
    assert hotel.manager.get(record.id).intent is None


def test_an_end_that_is_moved_while_it_starts_is_the_one_that_the_backend_gets(hotel: Hotel) -> None:
    record = hotel.create()
    hotel.manager.stop(record.id)
    ends: list[float | None] = []

    def begin(handle: Handle, expires_at: float | None, ctx: Context) -> None:
        ends.append(expires_at)
        hotel.provider.stopped = False
        if len(ends) == 1:
            hotel.manager.extend_ttl(record.id, 60)

    hotel.provider.start = begin  # type: ignore[method-assign]
    started = hotel.manager.start(record.id)
    assert ends == [record.expires_at, started.expires_at]
    assert started.expires_at != record.expires_at


def test_what_is_seen_while_it_is_being_started_is_not_recorded(hotel: Hotel) -> None:
    """Who looks then sees it stopped still, and would record that after the start has recorded its own."""
    record = hotel.create()
    hotel.manager.stop(record.id)
    seen: list[Sandbox] = []

    def begin(handle: Handle, expires_at: float | None, ctx: Context) -> None:
        seen.append(hotel.manager.get(record.id))
        seen.append(hotel.manager.get(record.id, refresh=True))
        hotel.provider.stopped = False

    hotel.provider.start = begin  # type: ignore[method-assign]
    assert hotel.manager.start(record.id).state == State.READY
    assert seen[0] == seen[1]
    assert seen[1].intent == "start"


def test_one_that_is_asked_to_go_while_it_is_stopped_goes(hotel: Hotel) -> None:
    record = hotel.create()
    inside, goes_on = threading.Event(), threading.Event()

    def hold(handle: Handle, ctx: Context) -> None:
        inside.set()
        assert goes_on.wait(60)
        hotel.provider.stopped = True

    hotel.provider.stop = hold  # type: ignore[method-assign]
    caught: list[SandboxerError] = []

    def stop() -> None:
        try:
            hotel.manager.stop(record.id)
        except SandboxerError as error:
            caught.append(error)

    thread = threading.Thread(target=stop)
    thread.start()
    assert inside.wait(60)
    hotel.manager.request_destroy(record.id)
    goes_on.set()
    thread.join(60)
    assert [error.code for error in caught] == ["conflict"]
    assert hotel.manager.destroy(record.id).state == State.DESTROYED


@pytest.mark.parametrize("sweep", ["reconcile", "expire"])
@pytest.mark.parametrize("verb", ["stop", "start"])
def test_a_death_at_any_step_is_settled_by_what_the_backend_shows(tmp_path: Path, verb: str, sweep: str) -> None:
    """Before and after each write, and before and after each thing that is done to the backend."""
    seen: set[tuple[bool, str]] = set()
    for step in range(60):
        hotel = Hotel(tmp_path / str(step))
        hotel.provider.billed = NOTHING
        record = hotel.create()
        if verb == "start":
            hotel.manager.stop(record.id)
        life = Life()
        life.dies_in = step
        services = hotel.manager.services
        hotel.provider.faults = life
        mortal = SandboxManager(dataclasses.replace(services, store=MortalStore(services.store, life)))
        try:
            getattr(mortal, verb)(record.id)
        except Died:
            pass
        else:
            assert not life.dead
            assert seen >= {(True, "stopped"), (False, "ready")}, "it died on both sides of the effect"
            break
        hotel.provider.faults = Life()
        getattr(hotel.manager, sweep)(apply=True)
        after = hotel.manager.get(record.id)
        stopped = hotel.provider.stopped
        assert (after.state, after.intent) == (State.STOPPED if stopped else State.READY, None)
        assert getattr(hotel.manager, sweep)(apply=True).actions == []
        seen.add((stopped, after.state))
        other = hotel.manager.start(record.id) if stopped else hotel.manager.stop(record.id)
        assert other.state != after.state, "and it can be used again"
        assert hotel.manager.destroy(record.id).state == State.DESTROYED
    else:
        pytest.fail("it never came to its end")


def test_a_record_of_before_this_is_read(hotel: Hotel) -> None:
    record = hotel.create()
    plain = msgspec.to_builtins(record)
    for name in ("intent", "last_seen", "reduced_billing"):
        del plain[name]
    assert msgspec.convert(plain, Sandbox) == record
