"""The server below the fakes: HTTP as clients speak it, faults as they are scripted, and speed."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.fakes import ErrorReply, FakeServer, Fault, Reply, Request, Script
from tests.testbed.waiting import eventually


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        fake.route("GET", "/plain", lambda _: Reply(json={"ok": True}))
        fake.route(
            "POST", "/echo", lambda request: Reply(body=request.body, headers={"X-Seen": request.headers["x-a"]})
        )
        fake.route("*", r"/of/(?P<who>[^/]+)/(?P<what>.*)", lambda request: Reply(json=dict(request.groups)))
        fake.route("DELETE", "/plain", lambda _: Reply(status=204))
        yield fake


def _get(server: FakeServer, path: str = "/plain", method: str = "GET") -> httpx.Response:
    return httpx.request(method, server.url + path, timeout=5, trust_env=False)


def test_routes_are_found_by_method_and_pattern(server: FakeServer) -> None:
    assert _get(server).json() == {"ok": True}
    assert _get(server, "/of/a%20b/c/d?x=1").json() == {"who": "a b", "what": "c/d"}
    assert _get(server, "/of/x/y", "PATCH").status_code == 200
    assert _get(server, "/plain", "PUT").status_code == 404
    assert _get(server, "/plain", "DELETE").status_code == 204


def test_a_connection_is_kept_and_bodies_do_not_run_into_each_other(server: FakeServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    for body in (b"one", b"", b"x" * 200_000, b"GET /plain HTTP/1.1\r\n\r\n"):
        connection.request("POST", "/echo", body=body, headers={"X-A": "ä"})
        answer = connection.getresponse()
        assert (answer.read(), answer.getheader("X-Seen")) == (body, "ä")
    connection.request("POST", "/echo", body=iter([b"in ", b"chunks"]), headers={"X-A": ""}, encode_chunked=True)
    assert connection.getresponse().read() == b"in chunks"
    connection.request("DELETE", "/plain")
    assert connection.getresponse().read() == b""
    connection.request("HEAD", "/of/a/b")
    assert connection.getresponse().read() == b""
    connection.request("GET", "/plain")
    assert json.loads(connection.getresponse().read()) == {"ok": True}
    assert server.accepted == 1


def test_a_lazy_route_reads_as_it_comes_and_may_stop(server: FakeServer) -> None:
    def first(request: Request) -> Reply:
        return Reply(body=next(iter(request.incoming())))

    server.route("POST", "/lazy", first, lazy=True)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    for _ in range(2):
        connection.request("POST", "/lazy", body=iter([b"first", b"second"]), encode_chunked=True)
        assert connection.getresponse().read() == b"first"
    assert server.accepted == 1


def test_a_client_that_waits_for_continue_is_told_so(server: FakeServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nX-A: y\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"ok")
        assert client.recv(1000).endswith(b"\r\n\r\nok")


def test_handlers_refuse_and_their_bugs_are_answers(server: FakeServer) -> None:
    def refuse(_: Request) -> Reply:
        raise ErrorReply(Reply(status=418, json={"no": 1}))

    def broken(request: Request) -> Reply:
        return Reply(json=request.json()["missing"])

    server.route("GET", "/refuse", refuse)
    server.route("POST", "/broken", broken)
    assert (_get(server, "/refuse").status_code, _get(server, "/refuse").json()) == (418, {"no": 1})
    assert "KeyError" in _get(server, "/broken", "POST").json()["message"]
    assert httpx.post(server.url + "/broken", content=b"not json", trust_env=False).status_code == 400


def test_requests_are_kept_with_what_was_answered(server: FakeServer) -> None:
    _get(server, "/plain?a=b%20c")
    _get(server, "/nope")
    first, second = server.asked("GET .*")
    assert (first.path, first.query_text, first.status) == ("/plain", "a=b%20c", 200)
    assert second.status == 404


def test_latency_is_added_to_every_answer(server: FakeServer) -> None:
    server.latency = 0.1
    started = time.monotonic()
    _get(server)
    assert time.monotonic() - started >= 0.1


def test_a_stream_ends_when_nobody_reads(server: FakeServer) -> None:
    ended = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
                time.sleep(0.005)
        finally:
            ended.set()

    server.route("GET", "/endless", lambda _: Reply(stream=endless()))
    with httpx.stream("GET", server.url + "/endless", trust_env=False) as response:
        next(response.iter_raw())
    assert ended.wait(5)


def test_after_stop_nobody_answers_and_after_start_again_at_the_same_port(server: FakeServer) -> None:
    port = server.port
    server.stop()
    with pytest.raises(httpx.ConnectError):
        _get(server)
    server.start()
    assert server.port == port
    assert _get(server).status_code == 200


# -- faults -----------------------------------------------------------------------------------------------------------


def test_a_fault_strikes_what_it_matches_as_often_as_it_says(server: FakeServer) -> None:
    server.script.add(Fault(match="GET /pl.*", kind="status", status=503, body={"e": 1}, skip=1, times=2))
    assert [_get(server).status_code for _ in range(5)] == [200, 503, 503, 200, 200]
    assert _get(server, "/plain", "DELETE").status_code == 204
    assert [where for _, where in server.script.struck] == ["GET /plain", "GET /plain"]


@pytest.mark.parametrize(("kind", "done"), [("lost-answer", True), ("drop", False), ("truncate", True)])
def test_a_broken_connection_is_seen_by_a_client_that_is_not_ours(kind: str, done: bool) -> None:
    calls: list[str] = []

    def work(request: Request) -> Reply:
        calls.append(request.path)
        return Reply(json={"a": "long enough to be cut"})

    with FakeServer() as server:
        server.route("GET", "/work", work)
        server.script.add(Fault(kind=kind))  # type: ignore[arg-type]  # the parameter is one of them
        with pytest.raises(httpx.RemoteProtocolError):
            _get(server, "/work")
        assert bool(calls) == done
        assert _get(server, "/work").status_code == 200


def test_a_slow_answer_and_one_that_never_comes(server: FakeServer) -> None:
    server.script.add(Fault(kind="slow", seconds=0.2), Fault(kind="hang"))
    started = time.monotonic()
    assert _get(server).status_code == 200
    assert time.monotonic() - started >= 0.2
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(server.url + "/plain", timeout=0.2, trust_env=False)


def test_a_stale_listing_is_told_to_the_handler(server: FakeServer) -> None:
    server.route("GET", "/list", lambda request: Reply(json=request.stale))
    server.script.add(Fault(match="GET /list", kind="stale-list"))
    assert [_get(server, "/list").json() for _ in range(2)] == [True, False]


def test_faults_of_many_threads_are_used_up_once() -> None:
    script = Script(Fault(kind="drop", times=10))
    hits: list[object] = []

    def take() -> None:
        for _ in range(20):
            if (fault := script.take("GET", "/")) is not None:
                hits.append(fault)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hits) == 10


def test_a_client_that_speaks_nonsense_does_not_disturb_others(server: FakeServer) -> None:
    for nonsense in (b"\x00\x01\x02", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"\r\n" * 50):
        with socket.create_connection(("127.0.0.1", server.port), 5) as client:
            client.sendall(nonsense)
    eventually(lambda: _get(server).status_code == 200, within=5, what="the server still serves")
