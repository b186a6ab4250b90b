"""The parts that need no server: crews, output limits, cursors."""

from __future__ import annotations

import base64
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.api import pagination
from sandboxer.api.workers import WorkerPool
from sandboxer.documents import OutputCapture
from sandboxer.errors import Invalid, OverQuota, Unavailable
from sandboxer.models import Consumer, Request, Sandbox
from sandboxer.timing import Deadline
from tests.testbed.waiting import eventually


def test_a_full_crew_refuses_before_anything_is_begun() -> None:
    crew, go_on = WorkerPool("jobs", threads=2, waiting=1), threading.Event()
    work = [crew.submit(lambda: go_on.wait(5)) for _ in range(2)]
    slot = crew.reserve()
    with pytest.raises(Unavailable) as refused:
        crew.reserve()
    assert refused.value.retryable is True
    slot.close()
    slot.close()
    work.append(crew.submit(lambda: go_on.wait(5)))
    with pytest.raises(Unavailable):
        crew.reserve()
    go_on.set()
    assert [future.result(5) for future in work] == [True, True, True]
    assert crew.submit(lambda: 7).result(5) == 7


def test_a_caller_has_its_share_and_no_more_and_the_others_their_turn() -> None:
    crew, go_on = WorkerPool("jobs", threads=4, waiting=8, each=2, share=3), threading.Event()
    hers = [crew.submit(lambda: go_on.wait(30), "ann") for _ in range(3)]
    with pytest.raises(OverQuota):
        crew.reserve("ann")
    eventually(lambda: hers[0].running() and hers[1].running(), within=30, what="two of hers run")
    assert crew.submit(lambda: 7, "bob").result(30) == 7
    assert not hers[2].running()
    go_on.set()
    assert [work.result(30) for work in hers] == [True, True, True]
    assert crew.submit(lambda: 7, "ann").result(30) == 7


def test_callers_that_wait_are_served_in_turn() -> None:
    crew, go_on, order = WorkerPool("jobs", threads=1, waiting=20), threading.Event(), []

    def one(name: str) -> None:
        order.append(name)

    first = crew.submit(lambda: go_on.wait(30), "ann")
    eventually(first.running, within=30, what="the first one runs")
    waiting = [crew.submit(lambda: one("ann"), "ann") for _ in range(5)]
    waiting += [crew.submit(lambda: one("bob"), "bob") for _ in range(2)]
    go_on.set()
    for work in waiting:
        work.result(30)
    assert order == ["ann", "bob", "ann", "bob", "ann", "ann", "ann"]


def test_an_error_belongs_to_whoever_waits_and_the_crew_lives_on() -> None:
    crew = WorkerPool("jobs", threads=1, waiting=1)

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        crew.submit(fail).result(5)
    assert crew.submit(lambda: 7).result(5) == 7


def test_work_that_was_cancelled_before_its_turn_gives_its_room_back() -> None:
    crew, go_on = WorkerPool("jobs", threads=1, waiting=1), threading.Event()
    first = crew.submit(lambda: go_on.wait(5))
    eventually(first.running, within=5, what="the first one runs")
    assert crew.submit(lambda: 7).cancel()
    go_on.set()
    first.result(5)
    assert crew.close(Deadline(5)) == 0


def test_a_crew_closes_at_its_deadline_whoever_still_works() -> None:
    crew, go_on = WorkerPool("jobs", threads=1, waiting=1), threading.Event()
    crew.submit(lambda: go_on.wait(30))
    assert crew.close(Deadline(0.1)) == 1
    with pytest.raises(Unavailable):
        crew.reserve()
    go_on.set()
    assert crew.close(Deadline(5)) == 0


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(0, 60))
def test_output_keeps_the_first_bytes_and_says_what_it_is(chunks: list[bytes], limit: int) -> None:
    capture, whole = OutputCapture(limit), b"".join(chunks)
    for chunk in chunks:
        capture(chunk)
    assert capture.truncated is (len(whole) > limit)
    if capture.base64 is not None:
        assert base64.b64decode(capture.base64) == whole[:limit]
    elif not capture.truncated:
        assert capture.text.encode() == whole


@given(st.text(min_size=1, max_size=30), st.integers(0, 60))
def test_a_limit_inside_a_character_does_not_make_text_binary(text: str, limit: int) -> None:
    capture = OutputCapture(limit)
    capture(text.encode())
    assert capture.base64 is None
    assert text.startswith(capture.text)


def record(at: float, letter: str) -> Sandbox:
    return Sandbox(
        id=letter * 12, request=Request(profile="profile.fake"), profile="profile.fake", profile_version="1.0.0",
        extension="ext.fake", state="ready", consumer=Consumer(actor="adm", name="x"), host="local", created_at=at,
    )  # fmt: skip


def test_a_cursor_survives_writing_and_names_an_exact_place() -> None:
    one = record(1763697600.123456789, "a")
    assert pagination.decode_cursor(pagination.encode_cursor(one)) == (one.created_at, one.id)


def test_the_last_page_has_no_next_one() -> None:
    records = [record(float(at), "abcd"[at]) for at in range(4)]
    shown, following = pagination.page(records[:3], limit=2)
    assert [item.id[0] for item in shown] == ["a", "b"]
    assert following == pagination.encode_cursor(records[1])
    shown, following = pagination.page(records[2:], limit=2)
    assert ([item.id[0] for item in shown], following) == (["c", "d"], None)


@given(st.text(max_size=60))
def test_any_other_text_is_no_cursor(text: str) -> None:
    """Promise 30."""
    with pytest.raises(Invalid):
        pagination.decode_cursor(text)
