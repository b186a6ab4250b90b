"""What goes over the wire, and what is read from it."""

from __future__ import annotations

import base64
import struct
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.errors import BackendError
from sandboxer.extensions.e2b import connect
from sandboxer.extensions.e2b.client import metadata_filter
from sandboxer.extensions.e2b.handle import seconds_until
from sandboxer.extensions.e2b.sandbox import instant, version
from tests.fakes.e2b.documents import metadata_filter as taken_apart


def test_the_metadata_filter_travels_as_e2bs_own_client_sends_it() -> None:
    # providers.md: `owner=team a/b&c=d` as seen on the wire of e2b 2.63.0
    sent = urlencode({"metadata": metadata_filter({"owner": "team a/b&c=d"})})
    assert sent == "metadata=owner%3Dteam%252520a%252Fb%252526c%25253Dd"


@given(st.dictionaries(st.text(min_size=1, max_size=12), st.text(max_size=12), min_size=1, max_size=4))
def test_any_labels_come_out_of_the_filter_as_they_went_in(labels: dict[str, str]) -> None:
    assert taken_apart(metadata_filter(labels)) == labels


@given(
    st.lists(st.tuples(st.sampled_from([0, 2]), st.binary(max_size=200)), max_size=8),
    st.lists(st.integers(min_value=1, max_value=50), min_size=1, max_size=20),
)
def test_messages_are_found_however_the_bytes_come(messages: list[tuple[int, bytes]], cuts: list[int]) -> None:
    data = b"".join(struct.pack(">BI", flag, len(body)) + body for flag, body in messages)
    chunks, at, turn = [], 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        chunks.append(data[at : at + size])
        at, turn = at + size, turn + 1
    assert list(connect.frames(chunks)) == messages


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x00\x00\x00\x00\x05abc", id="cut in a body"),
        pytest.param(b"\x00\x00", id="cut in a head"),
        pytest.param(b"\x01\x00\x00\x00\x01x", id="compressed, which we did not ask for"),
        pytest.param(b"\x00\xff\xff\xff\xffx", id="longer than anything envd sends"),
        pytest.param(b"<html>nothing of the kind</html>", id="a page"),
    ],
)
def test_what_is_not_connect_is_an_error_of_the_backend(data: bytes) -> None:
    with pytest.raises(BackendError):
        list(connect.frames([data]))


def test_messages_that_are_no_events_are_an_error_of_the_backend() -> None:
    with pytest.raises(BackendError):
        list(connect.events([connect.frame({"event": {"start": "no"}})]))


def test_events_are_read_with_what_is_unknown_left_aside() -> None:
    data = connect.frame({"event": {"start": {"pid": 7, "new": 1}}, "more": True})
    data += connect.frame({"event": {"data": {"stdout": base64.b64encode(b"\x00\xff").decode()}}})
    data += connect.frame({"event": {"keepalive": {}}})
    data += connect.frame({"event": {"end": {"exitCode": 3, "exited": True, "status": "exit status 3"}}})
    data += struct.pack(">BI", 2, 2) + b"{}"
    start, out, alive, end = connect.events([data])
    assert isinstance(start, connect.ProcessEvent)
    assert start.start == connect.StartEvent(pid=7)
    assert isinstance(out, connect.ProcessEvent)
    assert out.data == connect.DataEvent(stdout=b"\x00\xff")
    assert alive == connect.ProcessEvent()
    assert isinstance(end, connect.ProcessEvent)
    assert end.end is not None
    assert end.end.code == 3


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (connect.EndEvent(exit_code=0, exited=True, status="exit status 0"), 0),
        (connect.EndEvent(exit_code=255, exited=True, status="exit status 255"), 255),
        (connect.EndEvent(exit_code=-1, status="signal: killed"), 137),
        (connect.EndEvent(exit_code=-1, status="signal: segmentation fault (core dumped)"), 139),
        (connect.EndEvent(exit_code=-1, status="signal: signal 34"), 162),
        (connect.EndEvent(exit_code=-1, status="something new"), 255),
    ],
)
def test_the_end_of_a_process_is_told_as_a_shell_does(end: connect.EndEvent, code: int) -> None:
    assert end.code == code


@given(st.floats(min_value=1e9, max_value=4e9), st.floats(min_value=0.001, max_value=86400))
def test_a_time_out_is_never_early_and_at_most_a_second_late(now: float, left: float) -> None:
    seconds = seconds_until(now + left, now)
    assert left - 1e-4 <= seconds < left + 1.0001


def test_instants_are_read_as_go_writes_them() -> None:
    at = datetime(2026, 11, 21, 6, 0, tzinfo=UTC).timestamp()
    assert instant("2026-11-21T06:00:00Z") == at
    assert instant("2026-11-21T07:00:00.123456789+01:00") == pytest.approx(at + 0.123456)
    for other in (None, 5, "", "yesterday", "2026-11-21T06:00:00", quote("2026-11-21T06:00:00Z")):
        assert instant(other) is None


def test_versions_are_compared_as_numbers() -> None:
    assert version("0.10.2") > version("0.5.7")
    assert version("0.5.7-beta.1") == (0, 5, 7)
    assert version("") == ()
