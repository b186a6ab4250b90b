"""Making and removing a sandbox while things go wrong on the way."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sandboxer.errors import (
    BackendError,
    Conflict,
    Denied,
    NotFound,
    SandboxerError,
    Timeout,
    Unavailable,
)
from sandboxer.extensions.daytona import DaytonaExtension
from sandboxer.http import ApiClient
from sandboxer.models import Handle
from sandboxer.names import LABEL_INSTALL, new_id, resource_name
from sandboxer.timing import Deadline
from tests.extensions.daytona.harness import context, made, spec
from tests.fakes import Fault
from tests.fakes.daytona import KEY, FakeDaytona, Quota

CREATE = "POST /api/sandbox"
ONE = r"GET /api/sandbox/[^/]+"


def provision(fake: FakeDaytona, *, seconds: float = 30, **more: Any) -> Handle:
    return DaytonaExtension().provision(spec(**more), context(fake, seconds=seconds))


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(match=CREATE, kind="lost-answer")],
        [Fault(match=CREATE, kind="lost-answer", times=3)],
        [Fault(match=CREATE, kind="truncate")],
        [Fault(match=CREATE, kind="drop", times=2)],
        [Fault(match=CREATE, kind="status", status=503)],
        [Fault(match=CREATE, kind="status", status=500, times=2)],
        [
            Fault(match=CREATE, kind="lost-answer"),
            Fault(match=ONE, kind="status", status=404, body={"message": "none"}),
        ],
    ],
    ids=lambda faults: "+".join(fault.kind + str(fault.times) for fault in faults),
)
def test_a_create_whose_answer_is_lost_makes_one_sandbox(daytona_cloud: FakeDaytona, faults: list[Fault]) -> None:
    """Promise 7: at most one is kept and billed, and it is the one that is known."""
    daytona_cloud.script.add(*faults)
    sandbox_id = new_id()
    handle = provision(daytona_cloud, sandbox_id=sandbox_id)
    assert daytona_cloud.script.struck
    DaytonaExtension().wait_ready(handle, context(daytona_cloud))
    assert daytona_cloud.creates == 1
    assert len(daytona_cloud.census()) == 1
    assert DaytonaExtension().find(sandbox_id, context(daytona_cloud)) is not None
    DaytonaExtension().teardown(handle, context(daytona_cloud))
    assert daytona_cloud.census() == []


def test_a_create_that_cannot_be_settled_in_time_is_unknown_and_can_be_found(daytona_cloud: FakeDaytona) -> None:
    """Promise 7: what may exist is never said not to."""
    daytona_cloud.script.add(Fault(match=CREATE, kind="lost-answer"), Fault(match=CREATE, kind="hang", times=None))
    sandbox_id = new_id()
    with pytest.raises(SandboxerError) as caught:
        provision(daytona_cloud, sandbox_id=sandbox_id, seconds=1.5)
    assert caught.value.outcome == "unknown"
    handle = DaytonaExtension().find(sandbox_id, context(daytona_cloud))
    assert handle is not None
    DaytonaExtension().teardown(handle, context(daytona_cloud))
    assert (daytona_cloud.census(), daytona_cloud.creates) == ([], 1)


def test_a_ghost_dies_at_daytonas_own_timer(daytona_cloud: FakeDaytona) -> None:
    """Promise 7: nobody knows of it, and it is not billed beyond its TTL (rounded up to minutes)."""
    provision(daytona_cloud, ttl=90)
    (ghost,) = [line.split()[1] for line in daytona_cloud.census()]
    daytona_cloud.forward(100)
    assert len(daytona_cloud.census()) == 1
    daytona_cloud.forward(25)
    assert daytona_cloud.census() == []
    assert 115 <= daytona_cloud.billed_seconds(ghost) <= 125


def test_the_handle_is_saved_before_anything_is_asked_for(daytona_cloud: FakeDaytona) -> None:
    saved: list[tuple[Handle, int]] = []

    def save(handle: Handle) -> None:
        saved.append((handle, daytona_cloud.creates))

    handle = DaytonaExtension().provision(spec(), context(daytona_cloud, save=save))
    assert [creates for _, creates in saved] == [0, 1]
    assert saved[-1][0] == handle
    # the first one is enough to look and to remove
    early = saved[0][0]
    assert DaytonaExtension().status(early, context(daytona_cloud)).presence == "running"
    DaytonaExtension().teardown(early, context(daytona_cloud))
    assert daytona_cloud.census() == []


def test_a_name_that_somebody_else_has_is_neither_taken_nor_removed(daytona_cloud: FakeDaytona) -> None:
    """Promise 8."""
    sandbox_id = new_id()
    api = ApiClient(daytona_cloud.url, name="the fake", headers={"Authorization": f"Bearer {KEY}"})
    labels = {LABEL_INSTALL: "another", "sandboxer.id": sandbox_id}
    api.call("POST", "/api/sandbox", Deadline(5), json={"name": resource_name(sandbox_id), "labels": labels})
    with pytest.raises(Conflict) as caught:
        provision(daytona_cloud, sandbox_id=sandbox_id)
    assert caught.value.fault == "backend"
    assert DaytonaExtension().find(sandbox_id, context(daytona_cloud)) is None
    assert len(daytona_cloud.census()) == 1


@pytest.mark.parametrize(
    ("status", "body", "headers", "error", "retryable"),
    [
        (401, {"message": "Invalid credentials"}, {}, Denied, False),
        (403, {"message": "Organization is suspended: Depleted credits"}, {}, Denied, False),
        (403, {"message": "Total CPU limit exceeded. Maximum allowed: 10."}, {}, BackendError, True),
        (400, {"message": "Sandbox resource limit reached (16), please try again later."}, {}, Unavailable, True),
        (400, {"message": "No available runners"}, {}, Unavailable, True),
        (400, {"message": "Snapshot mine not found. Did you add it?"}, {}, NotFound, False),
        (400, {"message": ["cpu must be an integer"]}, {}, BackendError, False),
        (429, {"message": "Too many"}, {"Retry-After-Sandbox-Create": "3600"}, Unavailable, True),
        (429, {"message": "Too many"}, {}, Unavailable, True),
    ],
)
def test_a_refusal_is_told_as_what_it_is_and_nothing_is_made(
    daytona_cloud: FakeDaytona,
    status: int,
    body: dict[str, Any],
    headers: dict[str, str],
    error: type[SandboxerError],
    retryable: bool,
) -> None:
    daytona_cloud.script.add(Fault(match=CREATE, kind="status", status=status, body=body, headers=headers, times=None))
    with pytest.raises(error) as caught:
        provision(daytona_cloud, seconds=5)
    assert caught.value.retryable is retryable
    assert caught.value.outcome == "failed"
    assert caught.value.hint
    assert len(daytona_cloud.script.struck) == 1, "what was refused is not asked again"
    if headers:
        assert caught.value.details is not None
        assert caught.value.details["retry_after"] == 3600
    assert daytona_cloud.creates == 0


def test_a_rate_limit_that_ends_in_time_is_waited_for(daytona_cloud: FakeDaytona) -> None:
    daytona_cloud.script.add(
        Fault(match=CREATE, kind="status", status=429, headers={"Retry-After-Sandbox-Create": "1"}),
        Fault(match=ONE, kind="status", status=429, headers={"Retry-After-General": "1"}),
    )
    started = time.monotonic()
    handle = made(daytona_cloud)
    assert time.monotonic() - started >= 1
    assert daytona_cloud.creates == 1
    DaytonaExtension().teardown(handle, context(daytona_cloud))


def test_what_is_beyond_a_quota_is_refused_with_what_to_do() -> None:
    with FakeDaytona(quota=Quota(cpu=1)) as fake:
        handle = provision(fake)
        with pytest.raises(BackendError) as caught:
            provision(fake)
        assert "limit exceeded" in caught.value.message
        assert caught.value.retryable is True
        DaytonaExtension().teardown(handle, context(fake))
        DaytonaExtension().teardown(provision(fake), context(fake))


@pytest.mark.parametrize("state", ["error", "build_failed"])
def test_what_does_not_come_up_says_why(daytona_cloud: FakeDaytona, state: str) -> None:
    daytona_cloud.comes_to(state, "the runner lost its disk")
    handle = provision(daytona_cloud)
    with pytest.raises(BackendError, match="the runner lost its disk"):
        DaytonaExtension().wait_ready(handle, context(daytona_cloud))
    assert DaytonaExtension().status(handle, context(daytona_cloud)).presence == "stopped"
    DaytonaExtension().teardown(handle, context(daytona_cloud))
    assert daytona_cloud.census() == []


def test_what_never_starts_is_a_timeout() -> None:
    with FakeDaytona(create_seconds=60) as fake:
        handle = provision(fake)
        with pytest.raises(Timeout):
            DaytonaExtension().wait_ready(handle, context(fake, seconds=1))
        DaytonaExtension().teardown(handle, context(fake))
        assert fake.census() == []


def test_a_snapshot_that_is_not_there_is_the_callers_fault(daytona_cloud: FakeDaytona) -> None:
    with pytest.raises(NotFound) as caught:
        provision(daytona_cloud, options={"snapshot": "no-such"})
    assert caught.value.fault == "caller"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(match="DELETE .*", kind="lost-answer"),
        Fault(match="DELETE .*", kind="drop"),
        Fault(match="DELETE .*", kind="status", status=409, body={"message": "Sandbox state change in progress"}),
        Fault(match="DELETE .*", kind="status", status=400, body={"message": "Sandbox state change in progress"}),
        Fault(match="DELETE .*", kind="status", status=503),
        Fault(match=ONE, kind="status", status=500),
        Fault(match=ONE, kind="truncate"),
    ],
    ids=lambda fault: f"{fault.match.split()[0]}-{fault.kind}-{fault.status}",
)
def test_a_teardown_comes_to_its_end_whatever_happens_once(daytona_cloud: FakeDaytona, fault: Fault) -> None:
    """Promise 4."""
    handle = made(daytona_cloud)
    daytona_cloud.script.add(fault)
    try:
        DaytonaExtension().teardown(handle, context(daytona_cloud))
    except SandboxerError:
        DaytonaExtension().teardown(handle, context(daytona_cloud))
    assert daytona_cloud.script.struck
    assert daytona_cloud.census() == []


def test_a_teardown_that_daytona_does_not_carry_out_is_never_said_to_be_done(daytona_cloud: FakeDaytona) -> None:
    """Promise 5: an answer of 200 is not believed; the sandbox has to be gone."""
    handle = made(daytona_cloud)
    daytona_cloud.script.add(Fault(match="DELETE .*", kind="status", status=200, body={"id": "x"}, times=None))
    with pytest.raises(SandboxerError):
        DaytonaExtension().teardown(handle, context(daytona_cloud, seconds=1))
    assert len(daytona_cloud.census()) == 1
    assert DaytonaExtension().status(handle, context(daytona_cloud)).presence == "running"


@pytest.mark.parametrize(
    "body",
    [b"<html>not here</html>", {"message": "Cannot GET /sandbox/x", "statusCode": 404}, {"detail": "Not Found"}],
    ids=["a web server", "a path that is not known", "another API"],
)
def test_a_404_that_is_not_daytonas_own_proves_nothing(daytona_cloud: FakeDaytona, body: Any) -> None:
    """Promise 5: a proxy or a wrong address in Daytona's place does not make sandboxes disappear."""
    handle = made(daytona_cloud)
    daytona_cloud.script.add(Fault(match="* .*", kind="status", status=404, body=body, times=None))
    ctx = context(daytona_cloud, seconds=3)
    assert DaytonaExtension().status(handle, ctx).presence == "unknown"
    with pytest.raises(SandboxerError):
        DaytonaExtension().find(new_id(), ctx)
    with pytest.raises(SandboxerError):
        DaytonaExtension().teardown(handle, ctx)


def test_a_slow_answer_is_waited_for_and_a_silent_one_is_not(daytona_cloud: FakeDaytona) -> None:
    """Promise 22."""
    daytona_cloud.script.add(Fault(match=CREATE, kind="slow", seconds=0.5))
    handle = made(daytona_cloud)
    daytona_cloud.script.add(Fault(match="* .*", kind="hang", times=None))
    started = time.monotonic()
    assert DaytonaExtension().status(handle, context(daytona_cloud, seconds=1)).presence == "unknown"
    assert time.monotonic() - started < 30


def test_a_toolbox_without_an_answer_to_where_commands_run_can_be_used(daytona_cloud: FakeDaytona) -> None:
    daytona_cloud.script.add(
        Fault(match="GET .*/work-dir", kind="status", status=404, body={"message": "x"}, times=None)
    )
    extension, sandbox = DaytonaExtension(), spec()
    handle = extension.provision(sandbox, context(daytona_cloud))
    assert extension.wait_ready(handle, context(daytona_cloud)).reachability.remote_dir is None
    extension.teardown(handle, context(daytona_cloud))
