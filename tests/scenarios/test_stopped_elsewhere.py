"""A sandbox that somebody else stopped, and started again, at its provider: seen, recorded and told, by the manager and
the command, on the fakes of the providers that stop sandboxes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from sandboxer.bootstrap import Installation
from sandboxer.errors import Conflict, Unavailable
from sandboxer.extensions.base import CanStop, Exec, Status
from sandboxer.hosts.base import Streams
from sandboxer.manager.presence import record_presence
from sandboxer.models import Sandbox
from sandboxer.state import State
from sandboxer.timing import Deadline
from tests.api.serving import called
from tests.cli.running import Command
from tests.fakes import Fault
from tests.scenarios.test_clouds import Estate

WORDS = {"e2b": "paused at E2B", "daytona": "stopped at Daytona"}


@pytest.fixture(params=list(WORDS))
def estate(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Estate]:
    made = Estate(tmp_path, request.param)
    yield made
    made.cloud.stop()


def stop_elsewhere(here: Installation, record: Sandbox) -> None:
    """Stop it as somebody with the provider's own page would."""
    extension = here.manager.services.extension(record)
    assert isinstance(extension, CanStop)
    assert record.handle is not None
    extension.stop(record.handle, here.manager.services.context(record, Deadline(60)))


def start_elsewhere(here: Installation, record: Sandbox) -> None:
    """Start it as somebody with the provider's own page would."""
    extension = here.manager.services.extension(record)
    assert isinstance(extension, CanStop)
    assert record.handle is not None
    extension.start(record.handle, record.expires_at, here.manager.services.context(record, Deadline(60)))


def run(here: Installation, record: Sandbox) -> int:
    streams = Streams(stdin=None, stdout=lambda _chunk: None, stderr=lambda _chunk: None)
    return here.manager.exec(record.id, Exec(argv=("true",)), streams)


def events(here: Installation) -> list[str]:
    return [event.event_type for event in here.store.events() if event.event_type.startswith("sandbox.")]


def swept(sweep: Callable[..., object]) -> list[tuple[str, str]]:
    return [(one.action, one.outcome) for one in sweep().actions]  # type: ignore[attr-defined]


@pytest.mark.parametrize("sweep", ["reconcile", "expire"])
def test_a_sweep_tells_it_and_records_it_once(estate: Estate, sweep: str) -> None:
    here = estate.installation()
    record = estate.create(here)
    stop_elsewhere(here, record)
    verb = getattr(here.manager, sweep)
    (planned,) = verb(apply=False).actions
    assert (planned.action, planned.outcome) == ("note", "planned")
    assert WORDS[estate.kind] in planned.why
    assert here.manager.get(record.id).state == State.READY, "a dry run changes nothing, and `get` asks nobody"
    assert swept(lambda: verb(apply=True)) == [("note", "done")]
    seen = here.manager.get(record.id)
    assert (seen.state, seen.expires_at) == (State.STOPPED, record.expires_at)
    shown = here.manager.document(seen)
    assert (shown["state"], shown["last_seen"]["presence"]) == ("stopped", "stopped")
    assert shown["last_seen"]["detail"] == WORDS[estate.kind]
    assert verb(apply=True).actions == []
    start_elsewhere(here, record)
    assert swept(lambda: verb(apply=True)) == [("note", "done")]
    assert here.manager.get(record.id).state == State.READY
    assert events(here) == ["sandbox.provisioning", "sandbox.ready", "sandbox.stopped", "sandbox.started"]
    assert run(here, record) == 0


def test_a_verb_that_fails_on_it_records_it(estate: Estate) -> None:
    here = estate.installation()
    record = estate.create(here)
    stop_elsewhere(here, record)
    with pytest.raises(Conflict, match=WORDS[estate.kind].split()[0]):
        run(here, record)
    assert here.manager.get(record.id).state == State.STOPPED
    estate.cloud.script.add(Fault(match="* .*", kind="drop", times=None))
    with pytest.raises(Conflict, match=WORDS[estate.kind]):  # what is known to be stopped is not asked
        run(here, record)
    estate.cloud.script.clear()


def test_a_refresh_asks_and_records_both_ways(estate: Estate) -> None:
    here = estate.installation()
    record = estate.create(here)
    assert here.manager.document(record)["last_seen"] is None
    assert here.manager.get(record.id, refresh=True).state == State.READY
    stop_elsewhere(here, record)
    assert here.manager.get(record.id).state == State.READY
    first = here.manager.get(record.id, refresh=True)
    again = here.manager.get(record.id, refresh=True)
    assert first.last_seen is not None
    assert again.last_seen is not None
    assert (first.state, again.state) == (State.STOPPED, State.STOPPED)
    assert again.last_seen.since == first.last_seen.since
    assert again.last_seen.at > first.last_seen.at
    start_elsewhere(here, record)
    assert here.manager.get(record.id, refresh=True).state == State.READY
    assert events(here).count("sandbox.stopped") == 1


def test_a_refresh_of_one_that_is_gone_says_so_and_leaves_it_to_reconcile(estate: Estate) -> None:
    here = estate.installation()
    record = estate.create(here)
    assert record.handle is not None
    here.manager.services.extension(record).teardown(record.handle, here.manager.services.context(record, Deadline(60)))
    seen = here.manager.get(record.id, refresh=True)
    assert seen.state == State.READY
    assert here.manager.document(seen)["last_seen"]["presence"] == "absent"
    here.manager.reconcile(apply=True)
    assert here.manager.get(record.id).state == State.FAILED


def test_a_refresh_at_a_provider_that_is_silent_ends_in_its_time_and_changes_nothing(estate: Estate) -> None:
    here = estate.installation()
    record = estate.create(here)
    estate.cloud.script.add(Fault(match="* .*", kind="hang", times=None))
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        here.manager.get(record.id, refresh=True)
    assert time.monotonic() - began < 5 + 10
    assert f"sandboxer get {record.id}" in caught.value.hint
    assert here.manager.get(record.id) == record
    assert here.manager.expire(apply=True).actions == [], "silence is no pause"
    estate.cloud.script.clear()


def test_a_stopped_one_lives_as_long_as_it_is_told_to_and_is_then_ended(estate: Estate) -> None:
    here = estate.installation()
    record = estate.create(here)
    stop_elsewhere(here, record)
    here.manager.get(record.id, refresh=True)
    longer = here.manager.extend_ttl(record.id, 600)
    assert record.expires_at is not None
    assert longer.expires_at == record.expires_at + 600
    over = time.time() - 1
    here.manager.services.edit(record.id, lambda now: _ending(now, over))
    assert swept(lambda: here.manager.expire(apply=True)) == [("expire", "done")]
    assert estate.cloud.census() == []


def _ending(record: Sandbox, at: float) -> Sandbox:
    return msgspec.structs.replace(record, expires_at=at)


def test_the_command_tells_it(estate: Estate) -> None:
    here = estate.installation("command")
    record = estate.create(here)
    stop_elsewhere(here, record)
    sandboxer = Command(estate.root / "command", more=estate.cloud.environment())
    assert "paused" not in sandboxer("get", record.id).stdout
    assert WORDS[estate.kind] in sandboxer("reconcile").stdout
    shown = sandboxer("get", "--refresh", record.id).stdout
    assert WORDS[estate.kind] in shown
    assert sandboxer("get", record.id).stdout == shown
    assert sandboxer("list", "--state", "stopped", "--json").document["sandboxes"][0]["id"] == record.id
    assert sandboxer("exec", record.id, "--", "true").status == 125


def test_one_that_runs_again_with_an_earlier_end_is_recorded_with_both(estate: Estate) -> None:
    here = estate.installation()
    record = estate.create(here)
    stop_elsewhere(here, record)
    here.manager.get(record.id, refresh=True)
    assert record.expires_at is not None
    start_elsewhere(here, msgspec.structs.replace(record, expires_at=time.time() + 600))
    assert swept(lambda: here.manager.reconcile(apply=True)) == [("shorten", "done")]
    seen = here.manager.get(record.id)
    assert seen.state == State.READY
    assert seen.expires_at == pytest.approx(time.time() + 600, abs=120)


def test_it_shows_over_http_when_it_is_asked_for(estate: Estate) -> None:
    here = estate.installation()
    record = estate.create(here)
    stop_elsewhere(here, record)
    with called(here) as api:
        assert api.get(f"/v1/sandboxes/{record.id}").json()["state"] == "ready"
        refused = api.post(f"/v1/sandboxes/{record.id}/exec", json={"argv": ["true"]})
        assert (refused.status_code, refused.json()["details"]["presence"]) == (409, "stopped")
        assert api.get(f"/v1/sandboxes/{record.id}").json()["state"] == "stopped"
        start_elsewhere(here, record)
        assert api.get(f"/v1/sandboxes/{record.id}", params={"refresh": True}).json()["state"] == "ready"


def test_a_look_that_is_older_than_what_is_recorded_changes_nothing(estate: Estate) -> None:
    """A command may learn of a pause just before somebody else sees that it is over."""
    here = estate.installation()
    record = estate.create(here)
    newer = here.manager.get(record.id, refresh=True)
    assert record_presence(here.manager.services, record, Status("stopped", "an old look")) == newer
    assert here.manager.get(record.id) == newer


def test_it_is_stopped_and_started_by_the_command_and_over_http(estate: Estate) -> None:
    here = estate.installation("command")
    record = estate.create(here)
    sandboxer = Command(estate.root / "command", more=estate.cloud.environment())
    assert "is stopped" in sandboxer("stop", record.id).stdout
    assert sandboxer("stop", record.id, "--json").document["last_seen"]["detail"] == WORDS[estate.kind]
    refused = sandboxer("exec", record.id, "--json", "--", "true").document["error"]
    assert (refused["code"], refused["hint"]) == ("conflict", f"run `sandboxer start {record.id}`")
    assert "is ready" in sandboxer("start", record.id).stdout
    assert sandboxer("exec", record.id, "--", "true").status == 0
    with called(here) as api:
        assert api.post(f"/v1/sandboxes/{record.id}/stop").json()["state"] == "stopped"
        assert api.post(f"/v1/sandboxes/{record.id}/start").json()["state"] == "ready"
    audited = [(entry.action, entry.outcome, entry.from_) for entry in here.manager.audit()]
    assert {("stop", "ok", "cli"), ("start", "ok", "cli"), ("stop", "ok", "http"), ("start", "ok", "http")} <= {
        *audited
    }
    here.manager.destroy(record.id)
    assert estate.cloud.census() == []


def test_what_a_verb_hints_at_works(estate: Estate) -> None:
    here = estate.installation()
    record = estate.create(here)
    stop_elsewhere(here, record)
    with pytest.raises(Conflict) as caught:
        run(here, record)
    assert caught.value.hint == f"run `sandboxer start {record.id}`"
    assert here.manager.start(record.id).state == State.READY
    assert run(here, record) == 0
    assert here.manager.reconcile(apply=True).actions == []
