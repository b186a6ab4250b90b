"""Answers that are read as they come."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from sandboxer.errors import Denied, Timeout, Unavailable
from sandboxer.http import ApiClient
from sandboxer.timing import Deadline
from tests.fakes import FakeServer, Fault, Reply, Request
from tests.testbed.waiting import eventually


class Streaming(FakeServer):
    """Streams; tells how many of its streams are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open = 0
        self.route("POST", "/short", lambda _: Reply(stream=iter([b"one", b"", b"two"])))
        self.route("POST", "/endless", lambda request: Reply(stream=self._endless(request)))

    def _endless(self, request: Request) -> Iterator[bytes]:
        self.open += 1
        try:
            yield b"begun"
            while not request.gone and self.pause(0.02):
                continue
        finally:
            self.open -= 1


@pytest.fixture
def server() -> Iterator[Streaming]:
    with Streaming() as fake:
        yield fake


def _api(server: FakeServer) -> ApiClient:
    return ApiClient(server.url, name="Thing")


def test_chunks_arrive_as_they_are_sent(server: Streaming) -> None:
    with _api(server).stream("POST", "/short", Deadline(5), json={}) as streamed:
        assert streamed.status == 200
        assert b"".join(streamed.chunks()) == b"onetwo"


def test_the_first_chunk_is_there_before_the_last_is_sent(server: Streaming) -> None:
    with _api(server).stream("POST", "/endless", Deadline(5)) as streamed:
        assert next(streamed.chunks()) == b"begun"


def test_the_connection_of_a_stream_read_to_its_end_is_used_again(server: Streaming) -> None:
    for _ in range(3):
        with _api(server).stream("POST", "/short", Deadline(5)) as streamed:
            assert len(list(streamed.chunks())) == 2
    assert server.accepted == 1


def test_leaving_early_closes_the_connection(server: Streaming) -> None:
    with _api(server).stream("POST", "/endless", Deadline(5)) as streamed:
        next(streamed.chunks())
    eventually(lambda: server.open == 0, within=2, what="the server sees that nobody reads")
    assert _api(server).call("POST", "/short", Deadline(5)).body == b"onetwo"


def test_a_stream_ends_with_its_deadline(server: Streaming) -> None:
    """Promise 22: a stream in which nothing comes any more."""
    started = time.monotonic()
    with pytest.raises(Timeout), _api(server).stream("POST", "/endless", Deadline(0.6)) as streamed:
        list(streamed.chunks())
    assert 0.5 < time.monotonic() - started < 1.6
    eventually(lambda: server.open == 0, within=2, what="the server sees that nobody reads")


def test_a_stream_is_cancelled_within_a_second(server: Streaming) -> None:
    deadline = Deadline(60)
    threading.Timer(0.1, deadline.cancel).start()
    started = time.monotonic()
    with pytest.raises(Timeout), _api(server).stream("POST", "/endless", deadline) as streamed:
        list(streamed.chunks())
    assert time.monotonic() - started < 1.2


def test_an_interrupt_closes_the_connection(server: Streaming) -> None:
    """Promise 3: Ctrl-C while a stream is read."""
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    with suppress(KeyboardInterrupt), _api(server).stream("POST", "/endless", Deadline(20)) as streamed:
        timer.start()
        list(streamed.chunks())
        pytest.fail("it was not interrupted")
    eventually(lambda: server.open == 0, within=2, what="the server sees that nobody reads")


def test_a_stream_that_is_cut_says_so(server: Streaming) -> None:
    server.script.add(Fault(match="POST /short", kind="truncate"))
    with pytest.raises(Unavailable) as caught, _api(server).stream("POST", "/short", Deadline(5)) as streamed:
        list(streamed.chunks())
    assert caught.value.outcome == "unknown"


def test_a_body_of_known_length_can_be_read_as_it_comes(server: Streaming) -> None:
    server.route("GET", "/file", lambda _: Reply(body=b"x" * 300_000))
    for _ in range(2):
        with _api(server).stream("GET", "/file", Deadline(5)) as streamed:
            assert sum(len(chunk) for chunk in streamed.chunks()) == 300_000
    assert server.accepted == 1
    server.script.add(Fault(match="GET /file", kind="truncate"))
    with pytest.raises(Unavailable), _api(server).stream("GET", "/file", Deadline(5)) as streamed:
        list(streamed.chunks())


def test_a_refused_stream_is_an_error_with_the_providers_words(server: Streaming) -> None:
    server.script.add(Fault(kind="status", status=403, body={"message": "not you"}))
    with pytest.raises(Denied, match="not you"), _api(server).stream("POST", "/short", Deadline(5)):
        pytest.fail("it was refused")
