"""Creates whose answers are lost, refused, late or doubled: in the end there is one sandbox, or none."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sandboxer.errors import BackendError, Denied, NotFound, SandboxerError, Timeout, Unavailable
from sandboxer.extensions.e2b import E2BExtension, client, create
from sandboxer.extensions.e2b.handle import sandbox_data
from tests.extensions.e2b.harness import context, spec
from tests.fakes import Fault, Request
from tests.fakes.e2b import KEY, FakeE2B, no_room, rate_limited
from tests.testbed.waiting import eventually

CREATE = "POST (/v2)?/sandboxes"


def creates(fake: FakeE2B) -> int:
    """How many requests for a sandbox came."""
    return len(fake.asked(CREATE))


def provision(fake: FakeE2B, **more: Any) -> str:
    """E2B's id of a new sandbox."""
    return sandbox_data(E2BExtension().provision(spec(**more), context(fake))).id


@pytest.fixture
def august() -> Iterator[FakeE2B]:
    """A compatible server as of August."""
    with FakeE2B(second=False, idempotent=False) as cloud:
        yield cloud


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_create_whose_answer_is_lost_makes_one_sandbox(fake: FakeE2B, lost: int) -> None:
    """Promise 7: at most one sandbox is kept and billed, however many answers are lost."""
    fake.script.add(Fault(match=CREATE, kind="lost-answer", times=lost))
    made = provision(fake)
    assert list(fake.census()) == [made]
    assert fake.creates == 1


def test_a_lost_answer_is_found_by_the_label_before_it_is_asked_for_again(fake: FakeE2B) -> None:
    fake.script.add(Fault(match=CREATE, kind="lost-answer"))
    provision(fake)
    assert creates(fake) == 1


def test_a_lost_answer_that_no_list_shows_yet_is_asked_for_again_by_its_key(fake: FakeE2B) -> None:
    """Promise 7: the list lags behind; the idempotency key gives the same sandbox."""
    fake.script.add(Fault(match=CREATE, kind="lost-answer"), Fault(match="GET /v2/sandboxes", kind="stale-list"))
    made = provision(fake)
    assert (creates(fake), fake.creates, list(fake.census())) == (2, 1, [made])


def test_a_server_that_ignores_the_key_has_the_second_one_taken_away() -> None:
    """Promise 7: two were made, one is kept."""
    with FakeE2B(idempotent=False) as fake:
        fake.script.add(Fault(match=CREATE, kind="lost-answer"), Fault(match="GET /v2/sandboxes", kind="stale-list"))
        made = provision(fake)
        assert fake.creates == 2
        assert list(fake.census()) == [made]


def test_a_request_that_never_arrived_is_sent_again(fake: FakeE2B) -> None:
    fake.script.add(Fault(match=CREATE, kind="drop"))
    assert list(fake.census()) == [] and provision(fake) in fake.census()  # noqa: PT018 - one story


def test_an_older_server_is_looked_at_and_not_asked_twice(august: FakeE2B) -> None:
    """Promise 7: without idempotency keys a second request could make a second sandbox."""
    august.script.add(Fault(match="POST /sandboxes", kind="lost-answer"))
    made = provision(august)
    assert (august.creates, list(august.census())) == (1, [made])


def test_an_older_server_that_shows_nothing_leaves_it_open(august: FakeE2B) -> None:
    august.script.add(Fault(match="POST /sandboxes", kind="drop"))
    with pytest.raises(Unavailable) as caught:
        provision(august)
    assert caught.value.outcome == "unknown"
    assert august.creates == 0


def test_which_version_a_server_understands_is_asked_once(august: FakeE2B) -> None:
    provision(august)
    provision(august)
    assert [asked.path for asked in august.asked(CREATE)] == ["/v2/sandboxes", "/sandboxes", "/sandboxes"]
    client._first_version.discard(august.url)


def test_an_answer_that_stays_lost_leaves_it_open_and_reconcile_finds_it(fake: FakeE2B) -> None:
    fake.script.add(
        Fault(match=CREATE, kind="lost-answer", times=None),
        Fault(match="GET .*", kind="status", status=500, times=None),
    )
    wanted = spec()
    extension = E2BExtension()
    with pytest.raises(SandboxerError) as caught:
        extension.provision(wanted, context(fake, seconds=20))
    assert caught.value.outcome == "unknown"
    fake.script.clear()
    handle = extension.find(wanted.sandbox_id, context(fake))
    assert handle is not None
    extension.teardown(handle, context(fake))
    assert list(fake.census()) == []


def test_a_refusal_after_a_lost_answer_does_not_say_that_nothing_was_made(fake: FakeE2B) -> None:
    fake.script.add(
        Fault(match=CREATE, kind="lost-answer"),
        Fault(match="GET /v2/sandboxes", kind="stale-list", times=None),
        no_room(times=None),
    )
    with pytest.raises(SandboxerError) as caught:
        provision(fake)
    assert caught.value.outcome == "unknown"


def test_a_ghost_dies_at_the_providers_own_end(fake: FakeE2B) -> None:
    """Promise 7: what nobody found ends by itself."""
    fake.script.add(
        Fault(match=CREATE, kind="lost-answer", times=None),
        Fault(match="GET .*", kind="status", status=500, times=None),
    )
    with pytest.raises(SandboxerError):
        E2BExtension().provision(spec(ttl=4), context(fake))
    assert len(fake.census()) == 1
    eventually(lambda: not fake.census(), within=8, what="the end of the ghost")


def test_a_rate_limit_is_waited_for_as_long_as_it_says(fake: FakeE2B) -> None:
    fake.script.add(rate_limited(seconds=1))
    started = time.monotonic()
    provision(fake)
    assert time.monotonic() - started >= 1
    assert creates(fake) == 2


@pytest.mark.parametrize("seconds", [5, 3600])
def test_a_rate_limit_beyond_the_deadline_or_all_patience_is_told_at_once(fake: FakeE2B, seconds: int) -> None:
    fake.script.add(rate_limited(seconds=seconds, times=None))
    with pytest.raises(Unavailable) as caught:
        E2BExtension().provision(spec(), context(fake, seconds=4))
    assert (caught.value.details or {})["retry_after"] == seconds
    assert caught.value.outcome == "failed"
    assert creates(fake) == 1


def test_the_cap_of_an_account_is_a_definite_refusal() -> None:
    with FakeE2B(max_running=1) as fake:
        provision(fake)
        with pytest.raises(BackendError, match="concurrent") as caught:
            provision(fake)
        assert (caught.value.outcome, caught.value.retryable, caught.value.fault) == ("failed", True, "backend")
        assert creates(fake) == 2


def test_no_room_is_a_definite_refusal_and_leaves_the_route_its_time(fake: FakeE2B) -> None:
    fake.script.add(no_room(times=None))
    with pytest.raises(Unavailable) as caught:
        provision(fake)
    assert (caught.value.outcome, caught.value.fault, creates(fake)) == ("failed", "backend", 1)


def test_a_server_error_is_settled_before_it_is_told(fake: FakeE2B) -> None:
    fake.script.add(Fault(match=CREATE, kind="status", status=500, body={"code": 500, "message": "Internal"}))
    assert provision(fake) in fake.census()


def test_a_wrong_key_is_told_at_once(fake: FakeE2B) -> None:
    with pytest.raises(Denied) as caught:
        E2BExtension().provision(spec(), context(fake, key="e2b_wrong"))
    assert "E2B_API_KEY" in caught.value.hint
    assert "e2b_wrong" not in f"{caught.value!r}{caught.value.document()}"
    assert creates(fake) == 1


def test_a_template_that_is_not_there_is_the_callers_fault(fake: FakeE2B) -> None:
    with pytest.raises(NotFound) as caught:
        provision(fake, options={"template": "nope"})
    assert caught.value.fault == "caller"


def test_a_ttl_over_the_accounts_cap_is_refused_with_the_place_to_say_so() -> None:
    with FakeE2B(max_hours=1) as fake:
        with pytest.raises(BackendError) as caught:
            provision(fake, ttl=7200)
        assert "max_ttl" in caught.value.hint


def test_a_slow_answer_within_the_deadline_is_waited_for(fake: FakeE2B) -> None:
    fake.script.add(Fault(match=CREATE, kind="slow", seconds=1.0))
    assert provision(fake) in fake.census()
    assert creates(fake) == 1


def test_a_server_that_hangs_ends_with_the_deadline(fake: FakeE2B) -> None:
    """Promise 22: a typed answer within the deadline + 5 s."""
    fake.script.add(Fault(match=".* .*", kind="hang", times=None), Fault(match="* .*", kind="hang", times=None))
    started = time.monotonic()
    with pytest.raises((Timeout, Unavailable)) as caught:
        E2BExtension().provision(spec(), context(fake, seconds=2))
    assert caught.value.outcome == "unknown"
    assert time.monotonic() - started < 2 + 5 + 10  # with room for a busy machine


def test_a_create_that_is_still_going_on_is_waited_for(fake: FakeE2B) -> None:
    """The first request's connection broke while E2B still worked on it: it answers "in progress" for a while."""
    fake.script.add(
        Fault(
            match=CREATE,
            kind="status",
            status=409,
            body={"code": 409, "error_code": "idempotency_in_progress", "message": "in progress"},
            times=2,
        )
    )
    assert provision(fake) in fake.census()


def test_what_is_asked_for(fake: FakeE2B) -> None:
    wanted = spec(ttl=90.5, options={"template": "large", "env": {"A": "b"}, "allow_internet_access": False})
    E2BExtension().provision(wanted, context(fake))
    (asked,) = fake.asked(CREATE)
    request = Request(method="POST", path="", query_text="", headers={}, body=asked.body).json()
    assert request == {
        "templateID": "large",
        "timeout": 91,
        "metadata": dict(wanted.labels),
        "autoPause": False,
        "allow_internet_access": False,
        "envVars": {"A": "b"},
    }
    assert asked.headers["idempotency-key"] == wanted.sandbox_id
    assert asked.headers["x-api-key"] == KEY


def test_a_sandbox_without_a_ttl_still_has_an_end_at_e2b(fake: FakeE2B) -> None:
    made = provision(fake, ttl=None)
    assert fake.estate.sandboxes[made].end_at - time.time() == pytest.approx(86400, abs=5)


def test_a_planted_fake_that_forgets_keys_is_caught_by_the_count(
    fake: FakeE2B, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness sees two sandboxes where two are made: without the look for others, the count would be 2."""
    fake.idempotent = False
    monkeypatch.setattr("sandboxer.extensions.e2b.create._remove_others", lambda *_args, **_more: None)
    fake.script.add(Fault(match=CREATE, kind="lost-answer"), Fault(match="GET /v2/sandboxes", kind="stale-list"))
    provision(fake)
    assert len(fake.census()) == 2


def test_many_at_once_are_as_many_as_were_asked_for(fake: FakeE2B) -> None:
    fake.script.add(Fault(match=CREATE, kind="lost-answer", times=5), rate_limited(seconds=0, times=3))
    extension, made = E2BExtension(), []

    def one() -> None:
        made.append(sandbox_data(extension.provision(spec(), context(fake))).id)

    threads = [threading.Thread(target=one) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == sorted(fake.census())
    assert len(made) == 16


def test_a_sandbox_that_was_found_again_is_used_like_one_that_was_never_lost(fake: FakeE2B) -> None:
    wanted = spec(options={"user": "root", "ports": [80], "vcpu": 8, "template": "large"})
    extension = E2BExtension()
    data = sandbox_data(extension.provision(wanted, context(fake)))
    found = extension.find(wanted.sandbox_id, context(fake))
    assert found is not None
    again = sandbox_data(found)
    assert (
        (again.user, again.ports, again.declared)
        == (data.user, data.ports, data.declared)
        == (
            "root",
            [80],
            {"vcpu": 8},
        )
    )


@pytest.mark.parametrize("written", ["", "null", "{", '{"ports": "x"}', '{"user": 5}', "\ud800"])
def test_a_label_that_somebody_spoiled_is_that_of_a_plain_one(written: str) -> None:
    assert create.parse_use_label({create.LABEL_USE: written}) == create.UseLabel()
