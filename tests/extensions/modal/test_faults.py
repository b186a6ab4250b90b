"""What goes wrong at Modal or on the way there, and what is left of it."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from sandboxer.errors import (
    BackendError,
    Conflict,
    Denied,
    NotConfigured,
    NotFound,
    SandboxerError,
    Timeout,
    Unavailable,
    Unsupported,
)
from sandboxer.extensions.modal import ModalExtension
from sandboxer.models import Handle
from sandboxer.names import new_id
from sandboxer.secrets import Secret
from tests.extensions.modal.harness import KEYS, context, made, run, spec
from tests.fakes import Fault
from tests.fakes.modal import FakeModal
from tests.testbed.waiting import eventually

CONTROL = "POST /modal.client.ModalClient"
CREATE = f"{CONTROL}/SandboxCreate(V2)?"
NAMES = f"{CONTROL}/SandboxGetFromName(V2)?"
EXTENSION = ModalExtension()


@pytest.fixture(autouse=True)
def warm(clean: FakeModal) -> None:
    """The App and the image are looked up already: what fails then is the create."""
    EXTENSION.teardown(made(clean), context(clean))


@pytest.mark.parametrize("gpu", [None, "T4"])
@pytest.mark.parametrize("deduplicates", [True, False])
@pytest.mark.parametrize("times", [1, None])
def test_a_create_whose_answer_is_lost_is_one_sandbox(
    clean: FakeModal, gpu: str | None, deduplicates: bool, times: int | None
) -> None:
    """Promise 7: also when the server does not know the request again, and when no answer ever comes."""
    before, wanted = clean.creates, spec(gpu=gpu)
    clean.world.deduplicates = deduplicates
    clean.script.add(Fault(match=CREATE, kind="lost-answer", times=times))
    handle = EXTENSION.provision(wanted, context(clean))
    EXTENSION.wait_ready(handle, context(clean))
    assert clean.creates == before + 1
    assert [handle.data["provider_id"]] == clean.census()
    EXTENSION.teardown(handle, context(clean))
    assert clean.census() == []


def test_a_create_that_nobody_can_settle_is_unknown_and_found_later(clean: FakeModal) -> None:
    """Promise 7: nothing is said to have failed that may be running."""
    saved: list[Handle] = []
    clean.script.add(Fault(match=CREATE, kind="lost-answer", times=None), Fault(match=NAMES, kind="drop", times=None))
    with pytest.raises(Unavailable) as caught:
        EXTENSION.provision(spec(), context(clean, save=saved.append))
    assert caught.value.outcome == "unknown"
    assert EXTENSION.status(saved[-1], context(clean)).presence == "unknown"
    clean.script.clear()
    assert EXTENSION.status(saved[-1], context(clean)).presence == "running"
    EXTENSION.teardown(saved[-1], context(clean))
    assert clean.census() == []


def test_a_server_that_is_down_is_asked_a_few_times_and_nothing_is_there(clean: FakeModal) -> None:
    before = len(clean.calls)
    clean.script.add(Fault(match=CREATE, kind="status", status=14, body="down", times=None))
    with pytest.raises(Unavailable) as caught:
        EXTENSION.provision(spec(), context(clean))
    assert (caught.value.outcome, caught.value.retryable, caught.value.fault) == ("failed", True, "backend")
    assert sum(call.method == "SandboxCreateV2" for call in clean.calls[before:]) == 4
    assert clean.census() == []


def test_a_server_that_wants_us_to_wait_long_is_not_waited_for(clean: FakeModal) -> None:
    slow_down = Fault(match=CREATE, kind="status", status=8, body="Rate limit", headers={"Retry-After": "900"})
    clean.script.add(slow_down)
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        EXTENSION.provision(spec(), context(clean))
    assert time.monotonic() - started < 10
    assert caught.value.details == {"retry_after": 900.0}
    assert (caught.value.retryable, caught.value.outcome) == (True, "failed")


def test_a_server_that_wants_us_to_wait_a_moment_gets_it(clean: FakeModal) -> None:
    clean.script.add(Fault(match=CREATE, kind="status", status=8, body="Rate limit", headers={"Retry-After": "0.1"}))
    EXTENSION.teardown(EXTENSION.provision(spec(), context(clean)), context(clean))


def test_a_quota_is_the_backends_no_and_may_be_tried_again(clean: FakeModal) -> None:
    clean.world.quota = 0
    with pytest.raises(BackendError, match="limit of 0") as caught:
        EXTENSION.provision(spec(), context(clean))
    assert (caught.value.retryable, caught.value.outcome, caught.value.fault) == (True, "failed", "backend")


def test_without_a_machine_for_a_gpu_the_create_ends_in_its_own_time_and_leaves_nothing(clean: FakeModal) -> None:
    """The SDK itself would wait for 21 minutes."""
    clean.world.gpus = 0
    started = time.monotonic()
    with pytest.raises(Unavailable, match="no free T4") as caught:
        EXTENSION.provision(spec(gpu="T4", capacity_timeout="1s"), context(clean))
    assert time.monotonic() - started < 30
    assert caught.value.retryable
    assert clean.census() == []


def test_a_deadline_that_passes_while_a_gpu_is_waited_for_leaves_nothing(clean: FakeModal) -> None:
    clean.world.gpus = 0
    with pytest.raises(Timeout):
        EXTENSION.provision(spec(gpu="T4"), context(clean, seconds=1))
    assert clean.census() == []


@pytest.mark.parametrize("method", ["AppGetOrCreate", "SandboxCreateV2"])
def test_a_server_that_never_answers_holds_nobody_longer_than_the_deadline(clean: FakeModal, method: str) -> None:
    """Promise 22."""
    clean.script.add(Fault(match=f"{CONTROL}/{method}", kind="hang", times=None))
    started, install = time.monotonic(), new_id()
    with pytest.raises(Timeout) as caught:
        EXTENSION.provision(spec(install=install), context(clean, seconds=1, install=install))
    assert time.monotonic() - started < 30
    assert caught.value.hint


def test_a_name_that_somebody_else_holds_is_a_conflict_and_stays_theirs(clean: FakeModal) -> None:
    sandbox_id = new_id()
    theirs = made(clean, sandbox_id=sandbox_id)
    clean.world.sandboxes[theirs.data["provider_id"]].tags = {"whose": "theirs"}
    with pytest.raises(Conflict):
        EXTENSION.provision(spec(sandbox_id), context(clean))
    assert EXTENSION.find(sandbox_id, context(clean)) is None
    assert clean.census() == [theirs.data["provider_id"]]
    EXTENSION.teardown(theirs, context(clean))


@pytest.mark.parametrize(
    ("status", "error"),
    [(16, Denied), (7, Denied), (3, BackendError), (5, NotFound), (9, BackendError), (12, BackendError)],
)
def test_a_no_is_said_in_our_words_with_a_hint(clean: FakeModal, status: int, error: type[SandboxerError]) -> None:
    clean.script.add(Fault(match=CREATE, kind="status", status=status, body="because", times=None))
    with pytest.raises(error, match="because") as caught:
        EXTENSION.provision(spec(), context(clean))
    assert caught.value.hint != type(caught.value).default_hint
    assert caught.value.outcome == "failed"


def test_an_image_that_cannot_be_had_is_told(clean: FakeModal) -> None:
    with pytest.raises(BackendError, match="manifest unknown") as caught:
        EXTENSION.provision(spec(image="no-such:1"), context(clean))
    assert "image" in caught.value.hint


def test_nobody_at_the_address_is_a_definite_failure(clean: FakeModal) -> None:
    nowhere = context(clean, endpoints={"server": "http://127.0.0.1:1"})
    with pytest.raises(Unavailable) as caught:
        EXTENSION.provision(spec(), nowhere)
    assert (caught.value.outcome, caught.value.fault) == ("failed", "backend")


def test_a_sandbox_of_another_server_is_not_looked_for_here(clean: FakeModal) -> None:
    handle = made(clean)
    elsewhere = context(clean, endpoints={"server": "https://modal.example"})
    with pytest.raises(NotConfigured, match="MODAL_SERVER_URL"):
        EXTENSION.teardown(handle, elsewhere)
    assert EXTENSION.status(handle, elsewhere).presence == "unknown"
    EXTENSION.teardown(handle, context(clean))


def test_with_other_credentials_not_found_proves_nothing_until_its_end_is_over(clean: FakeModal) -> None:
    """Promise 5: another workspace's "not found" drops no record."""
    handle = made(clean)
    with FakeModal(token_id="ak-other", token_secret="as-other") as other:
        told = other.environment()
        server = told["MODAL_SERVER_URL"]
        stranger = context(clean, secrets={name: Secret(told[name]) for name in KEYS}, endpoints={"server": server})
        moved = msgspec.structs.replace(handle, data={**handle.data, "server": server})
        assert EXTENSION.status(moved, stranger).presence == "unknown"
        with pytest.raises(BackendError) as caught:
            EXTENSION.teardown(moved, stranger)
        assert caught.value.outcome == "unknown"
        over = msgspec.structs.replace(moved, data={**moved.data, "ends": time.time() - 3600})
        assert EXTENSION.status(over, stranger).presence == "absent"
        EXTENSION.teardown(over, stranger)
    EXTENSION.teardown(handle, context(clean))


def test_a_teardown_that_fails_raises_and_can_be_repeated(clean: FakeModal) -> None:
    """Promise 5."""
    handle = made(clean)
    clean.script.add(Fault(match=f"{CONTROL}/SandboxTerminateV2", kind="status", status=13, times=4))
    with pytest.raises(SandboxerError):
        EXTENSION.teardown(handle, context(clean))
    assert clean.census() == [handle.data["provider_id"]]
    EXTENSION.teardown(handle, context(clean))
    assert clean.census() == []


def test_a_teardown_whose_answer_is_lost_is_verified(clean: FakeModal) -> None:
    handle = made(clean)
    clean.script.add(Fault(match=f"{CONTROL}/SandboxTerminateV2", kind="lost-answer"))
    EXTENSION.teardown(handle, context(clean))
    assert EXTENSION.status(handle, context(clean)).presence == "absent"


@pytest.mark.parametrize("kind", ["truncate", "drop", "status"])
@pytest.mark.parametrize("method", ["SandboxListV2", "SandboxTagsGetV2"])
def test_a_listing_that_cannot_be_had_in_full_raises(clean: FakeModal, method: str, kind: Any) -> None:
    """Promise 6."""
    clean.world.page = 1
    handles = [made(clean) for _ in range(3)]
    clean.script.add(Fault(match=f"{CONTROL}/{method}", kind=kind, status=13, skip=1, times=None))
    with pytest.raises(SandboxerError):
        EXTENSION.inventory(context(clean))
    clean.script.clear()
    listed = EXTENSION.inventory(context(clean))
    assert {found.handle.data["provider_id"] for found in listed} == set(clean.census())
    for handle in handles:
        EXTENSION.teardown(handle, context(clean))


def test_a_stale_listing_does_not_make_a_sandbox_absent(clean: FakeModal) -> None:
    """Promise 6: whether one exists is asked by its id or name, never by a list."""
    sandbox_id = new_id()
    handle = made(clean, sandbox_id=sandbox_id)
    clean.script.add(Fault(match=f"{CONTROL}/SandboxListV2", kind="stale-list", times=None))
    assert EXTENSION.inventory(context(clean)) == []
    assert EXTENSION.status(handle, context(clean)).presence == "running"
    assert EXTENSION.find(sandbox_id, context(clean)) is not None
    EXTENSION.teardown(handle, context(clean))


def test_a_sandbox_ends_by_itself_at_its_ttl_though_modal_would_let_it_live(clean: FakeModal) -> None:
    """Promise 7: a ghost dies at its own end, with nobody of ours there."""
    handle = made(clean, ttl=1.2, max_life="4h")
    assert clean.world.sandboxes[handle.data["provider_id"]].definition.timeout_secs == 4 * 3600
    eventually(lambda: clean.census() == [], within=10, what="its keeper ends it")
    assert EXTENSION.status(handle, context(clean)).presence == "absent"
    EXTENSION.teardown(handle, context(clean))


def test_without_max_life_modal_is_told_the_ttl_itself(clean: FakeModal) -> None:
    handle = made(clean, ttl=600)
    assert 599 <= clean.world.sandboxes[handle.data["provider_id"]].definition.timeout_secs <= 601
    with pytest.raises(Unsupported, match="prolongs nothing") as caught:
        EXTENSION.renew(handle, time.time() + 900, context(clean))
    assert "max_life" in caught.value.hint
    EXTENSION.teardown(handle, context(clean))


def test_a_life_can_be_prolonged_within_what_modal_was_told(clean: FakeModal) -> None:
    """Promise 16: a renewal that was answered holds."""
    handle = made(clean, ttl=2, max_life="1h")
    until = time.time() + 600
    EXTENSION.renew(handle, until, context(clean))
    code, out, _ = run(clean, handle, "cat", "/tmp/.sandboxer-end", "/proc/uptime")
    end, up = (float(line.split()[0]) for line in out.splitlines())
    assert code == 0
    assert until - 0.1 <= time.time() + end - up < until + 4
    eventually(lambda: time.time() > until - 597, within=5, every=0.1, what="its first end is over")
    assert EXTENSION.status(handle, context(clean)).presence == "running"
    with pytest.raises(Unsupported):
        EXTENSION.renew(handle, time.time() + 7200, context(clean))
    EXTENSION.teardown(handle, context(clean))


def test_a_main_program_that_cannot_run_is_told_when_it_is_waited_for(clean: FakeModal) -> None:
    handle = EXTENSION.provision(spec(env={"PATH": "/nowhere"}), context(clean))
    with pytest.raises(BackendError, match="ended before it was ready"):
        EXTENSION.wait_ready(handle, context(clean))
    EXTENSION.teardown(handle, context(clean))


def test_what_is_found_again_knows_what_it_is(clean: FakeModal) -> None:
    sandbox_id = new_id()
    handle = made(clean, sandbox_id=sandbox_id, ports=[8080], max_life="2h", gpu="H100:2")
    found = EXTENSION.find(sandbox_id, context(clean))
    assert found is not None
    ready = EXTENSION.wait_ready(found, context(clean))
    assert [service.container_port for service in ready.reachability.services] == [8080]
    assert abs(found.data["ends"] - handle.data["ends"]) < 2
    assert any("GPU" in note for note in ready.isolation.notes)
    EXTENSION.teardown(found, context(clean))
    closed = made(clean, block_network=True)
    assert EXTENSION.wait_ready(closed, context(clean)).isolation.network == "none"
    EXTENSION.teardown(closed, context(clean))


def test_the_census_sees_what_a_create_that_stops_half_way_leaves(clean: FakeModal) -> None:
    """The harness has been seen to fail: without a teardown there is something left, and billed."""
    handle = made(clean)
    provider_id = handle.data["provider_id"]
    assert clean.census() == [provider_id]
    assert clean.billed_seconds(provider_id) > 0
    EXTENSION.teardown(handle, context(clean))
    assert clean.census() == []


def test_looking_makes_nothing(clean: FakeModal) -> None:
    fresh = new_id()
    EXTENSION.check(context(clean, install=fresh))
    assert EXTENSION.inventory(context(clean, install=fresh)) == []
    assert EXTENSION.find(new_id(), context(clean, install=fresh)) is None
    assert not any(fresh in name for _, name in clean.world.apps)


def test_one_that_was_never_answered_is_looked_for_in_the_environment_where_it_was_asked_for(clean: FakeModal) -> None:
    saved: list[Handle] = []
    there = {**context(clean).endpoints, "environment": "dev"}
    EXTENSION.provision(spec(), context(clean, save=saved.append, endpoints=there))
    intent, final = saved
    assert EXTENSION.status(intent, context(clean)).presence == "unknown"
    assert EXTENSION.status(intent, context(clean, endpoints=there)).presence == "running"
    assert EXTENSION.status(final, context(clean)).presence == "running"
    EXTENSION.teardown(intent, context(clean, endpoints=there))
    assert clean.census() == []


@pytest.mark.parametrize("what", ["apps", "images"])
def test_what_somebody_removed_at_modal_is_made_again(clean: FakeModal, what: str) -> None:
    """A long-lived process does not go on with an App or an image that is gone."""
    getattr(clean.world, what).clear()
    EXTENSION.teardown(made(clean), context(clean))
