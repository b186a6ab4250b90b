"""What a call does when all is well, and what it says when it is not."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from sandboxer.errors import (
    BackendError,
    Denied,
    Invalid,
    NotConfigured,
    NotFound,
    SandboxerError,
    Timeout,
    Unavailable,
)
from sandboxer.http import ApiClient, Response, segment
from sandboxer.http.address import destination_of, parse_base_url, proxy_for
from sandboxer.http.pool import KEPT_ALL, HTTPConnectionPool
from sandboxer.timing import Deadline
from tests.fakes import FakeServer, Fault, Reply, Request
from tests.http.peers import nobody, peer, saying, silent

HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        fake.route("GET", "/thing", lambda _: Reply(json={"a": 1}))
        fake.route("POST", "/thing", _echo)
        fake.route("*", r"/things/(?P<id>.+)", lambda request: Reply(json={"id": request.groups["id"]}))
        yield fake


def _echo(request: Request) -> Reply:
    return Reply(status=201, json={"got": request.body.decode(), "kind": request.headers.get("content-type")})


def _api(server: FakeServer, **more: str) -> ApiClient:
    return ApiClient(server.url, name="Thing", headers={"X-API-Key": more.get("key", "k")})


def test_json_goes_out_and_comes_back(server: FakeServer) -> None:
    answer = _api(server).call("POST", "/thing", Deadline(5), json={"é": [1, None]}, expect=(201,))
    assert answer.json() == {"got": '{"é":[1,null]}', "kind": "application/json"}
    assert answer.asked == "POST /thing"


def test_an_empty_object_is_a_body_and_none_is_no_body(server: FakeServer) -> None:
    api = _api(server)
    assert api.call("POST", "/thing", Deadline(5), json={}, expect=(201,)).json()["got"] == "{}"
    assert api.call("POST", "/thing", Deadline(5), expect=(201,)).json() == {"got": "", "kind": None}


def test_content_of_unknown_length_travels_in_chunks(server: FakeServer) -> None:
    parts = iter([b"one ", b"", b"two"])
    answer = _api(server).call("POST", "/thing", Deadline(5), content=parts, expect=(201,))
    assert answer.json()["got"] == "one two"


def test_parameters_and_path_segments_are_quoted_once(server: FakeServer) -> None:
    name = "a/b?c#d é%2F&="
    answer = _api(server).call("GET", f"/things/{segment(name)}", Deadline(5), params={"q": name, "l": ["1", "2"]})
    assert answer.json() == {"id": name}
    (asked,) = server.asked("GET /things/.*")
    assert asked.query_text == "q=a%2Fb%3Fc%23d+%C3%A9%252F%26%3D&l=1&l=2"


def test_a_connection_is_used_again(server: FakeServer) -> None:
    api = _api(server)
    for _ in range(20):
        api.call("GET", "/thing", Deadline(5))
    assert server.accepted == 1


def test_fifty_threads_share_at_most_fifty_connections(server: FakeServer) -> None:
    """The figure of 200 creates from 50 threads rests on this."""
    api = _api(server)
    server.latency = 0.005

    def ask() -> None:
        for _ in range(5):
            api.call("GET", "/thing", Deadline(20))

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 250
    assert server.accepted <= 50


def test_a_connection_that_the_server_ended_meanwhile_is_not_used(server: FakeServer) -> None:
    api = _api(server)
    api.call("POST", "/thing", Deadline(5), expect=(201,))
    server.stop()
    server.start()
    assert api.call("POST", "/thing", Deadline(5), expect=(201,)).status == 201


def test_an_answer_that_is_the_last_of_its_connection_is_read_whole() -> None:
    body = b'{"x": "' + b"y" * 200_000 + b'"}'
    with peer(saying(HEAD + b"Connection: close\r\n\r\n", body[:1000], body[1000:])) as url:
        assert ApiClient(url, name="Thing").call("GET", "/", Deadline(5)).body == body


# -- what may have happened -------------------------------------------------------------------------------------------


def test_a_refused_connection_has_surely_failed() -> None:
    """Promise 7: only what may have arrived is unknown."""
    with pytest.raises(Unavailable) as caught:
        ApiClient(nobody(), name="Thing").call("POST", "/thing", Deadline(5))
    assert caught.value.outcome == "failed"


def test_a_connection_cut_after_sending_leaves_the_outcome_unknown(server: FakeServer) -> None:
    """Promise 7."""
    server.script.add(Fault(match="POST /thing", kind="lost-answer"))
    with pytest.raises(Unavailable) as caught:
        _api(server).call("POST", "/thing", Deadline(5))
    assert caught.value.outcome == "unknown"
    assert len(server.asked("POST /thing")) == 1


def test_a_look_that_broke_off_has_changed_nothing(server: FakeServer) -> None:
    server.script.add(Fault(match="GET /thing", kind="drop"))
    with pytest.raises(Unavailable) as caught:
        _api(server).call("GET", "/thing", Deadline(5))
    assert caught.value.outcome == "failed"


@pytest.mark.parametrize(("method", "outcome"), [("GET", "failed"), ("POST", "unknown"), ("DELETE", "unknown")])
def test_a_dead_peer_costs_the_deadline_and_no_more(method: str, outcome: str) -> None:
    """Promise 22: a peer that takes the request and never answers."""
    with peer(silent) as url:
        started = time.monotonic()
        with pytest.raises(Timeout) as caught:
            ApiClient(url, name="Thing").call(method, "/thing", Deadline(0.6))
        assert 0.5 < time.monotonic() - started < 2
    assert caught.value.outcome == outcome


@pytest.mark.parametrize("where", ["head", "body", "chunks"])
def test_a_peer_that_trickles_does_not_outlive_the_deadline(where: str) -> None:
    """Promise 22: no single read ever takes long, and the whole is over in time."""
    heads = {
        "head": b"HTTP/1.1 200 OK\r\nX: ",
        "body": HEAD + b"Content-Length: 100000\r\n\r\n",
        "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
    }

    def trickle(connection: socket.socket, _: bytes) -> None:
        connection.sendall(heads[where])
        while True:
            connection.sendall(b"1\r\nx\r\n" if where == "chunks" else b"x")
            threading.Event().wait(0.02)

    with peer(trickle) as url:
        started = time.monotonic()
        with pytest.raises(Timeout):
            ApiClient(url, name="Thing").call("GET", "/thing", Deadline(0.6))
        assert time.monotonic() - started < 2


def test_a_peer_that_does_not_read_does_not_outlive_the_deadline() -> None:
    """Promise 22: sending has an end too."""

    def deaf(_connection: socket.socket, _: bytes) -> None:
        threading.Event().wait(5)

    with peer(deaf) as url:
        started = time.monotonic()
        with pytest.raises(Timeout):
            ApiClient(url, name="Thing").call("POST", "/thing", Deadline(0.6), content=b"x" * 50_000_000)
        assert time.monotonic() - started < 2


def test_a_cancelled_deadline_ends_a_call_within_a_second() -> None:
    with peer(silent) as url:
        deadline = Deadline(60)
        threading.Timer(0.2, deadline.cancel).start()
        started = time.monotonic()
        with pytest.raises(Timeout):
            ApiClient(url, name="Thing").call("GET", "/thing", deadline)
        assert time.monotonic() - started < 1.2


def test_without_time_nothing_is_sent(server: FakeServer) -> None:
    with pytest.raises(Timeout) as caught:
        _api(server).call("POST", "/thing", Deadline(0))
    assert caught.value.outcome == "failed"
    assert not server.requests


# -- answers that are not what they should be -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Content-Length: 5000\r\n\r\n" + b"x" * 5000,
        HEAD + b"Content-Length: 99999999999\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1388\r\n" + b"x" * 5000 + b"\r\n0\r\n\r\n",
        HEAD + b"\r\n" + b"x" * 5000,
    ],
    ids=["length", "absurd length", "chunked", "to the end"],
)
def test_a_huge_body_is_not_read(answer: bytes) -> None:
    with peer(saying(answer)) as url, pytest.raises(BackendError, match="more than 1000 bytes"):
        ApiClient(url, name="Thing").call("GET", "/thing", Deadline(5), limit=1000)


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Content-Length: 100\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{}",
        HEAD + b"Content-Type: text/plain\r\nContent-Le",
        HEAD,
        b"HTTP/1.1 2",
        b"",
    ],
    ids=["length", "chunk", "headers", "headers whole lines", "status line", "nothing"],
)
def test_a_truncated_answer_is_not_taken_for_a_whole_one(answer: bytes) -> None:
    with peer(saying(answer)) as url, pytest.raises(SandboxerError) as caught:
        ApiClient(url, name="Thing").call("POST", "/thing", Deadline(5))
    assert caught.value.outcome == "unknown"
    assert caught.value.fault == "backend"


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n", HEAD + b"X: y\r\n" * 200 + b"\r\n"]
)
def test_what_is_not_http_is_a_backend_error(answer: bytes) -> None:
    with peer(saying(answer)) as url, pytest.raises(SandboxerError) as caught:
        ApiClient(url, name="Thing").call("GET", "/thing", Deadline(5))
    assert caught.value.fault == "backend"
    assert caught.value.code in ("backend_error", "unavailable")


@pytest.mark.parametrize("body", [b"<html>", b"{", b"", b"\xff", b"[" * 100_000])
def test_what_is_not_json_says_so(server: FakeServer, body: bytes) -> None:
    server.route("GET", "/odd", lambda _: Reply(body=body))
    answer = _api(server).call("GET", "/odd", Deadline(5))
    with pytest.raises(BackendError, match="not JSON"):
        answer.json()


def test_a_redirection_is_not_followed(server: FakeServer) -> None:
    server.script.add(Fault(kind="status", status=302, headers={"Location": f"{server.url}/elsewhere"}))
    with pytest.raises(BackendError, match="redirection"):
        _api(server).call("GET", "/thing", Deadline(5))
    assert [asked.path for asked in server.requests] == ["/thing"]


@pytest.mark.parametrize(
    ("status", "kind", "outcome"),
    [
        (400, BackendError, "failed"),
        (401, Denied, "failed"),
        (403, Denied, "failed"),
        (404, NotFound, "failed"),
        (409, BackendError, "failed"),
        (429, Unavailable, "failed"),
        (500, BackendError, "unknown"),
        (502, Unavailable, "unknown"),
        (503, Unavailable, "unknown"),
    ],
)
def test_a_status_that_was_not_expected_is_an_error_of_its_own(
    server: FakeServer, status: int, kind: type[SandboxerError], outcome: str
) -> None:
    server.script.add(Fault(kind="status", status=status, body={"message": "the provider's words"}))
    with pytest.raises(kind) as caught:
        _api(server).call("POST", "/thing", Deadline(5), expect=(201,))
    assert "the provider's words" in caught.value.message
    assert caught.value.outcome == outcome
    assert caught.value.fault == "backend"


PAGE = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body></html>"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html; charset=utf-8", b"Bad Gateway"),
        ("text/html", PAGE),
        (None, PAGE),
        ("text/plain", b"\n <!DOCTYPE HTML>" + PAGE),
        (None, b"<h1>Not here</h1>"),
    ],
)
@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 502, 503])
def test_a_page_for_browsers_is_named_and_not_printed(
    server: FakeServer, status: int, kind: str | None, body: bytes
) -> None:
    """What stands before an API answers for it in HTML."""
    headers = {} if kind is None else {"Content-Type": kind}
    server.route("GET", "/page", lambda _: Reply(status=status, body=body, headers=headers))
    with pytest.raises(SandboxerError) as caught:
        _api(server).call("GET", "/page", Deadline(20))
    assert caught.value.message == f"Thing answered GET /page with {status}: (a page of HTML)"


def test_words_with_a_mark_are_no_page(server: FakeServer) -> None:
    server.route("GET", "/words", lambda _: Reply(status=400, body=b"<id> is not a header"))
    with pytest.raises(BackendError, match="with 400: <id> is not a header"):
        _api(server).call("GET", "/words", Deadline(20))


def test_an_adapter_makes_its_own_errors_of_answers(server: FakeServer) -> None:
    def refuse(answer: Response) -> SandboxerError:
        return Denied(f"own: {answer.status}", hint="x")

    api = ApiClient(server.url, name="Thing", refuse=refuse)
    with pytest.raises(Denied, match="own: 404"):
        api.call("GET", "/nope", Deadline(5))
    assert api.call("GET", "/nope", Deadline(5), expect=None).status == 404


# -- again ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="drop", times=2),
        Fault(kind="lost-answer", times=2),
        Fault(kind="truncate", times=2),
        Fault(kind="status", status=503, times=2),
        Fault(kind="status", status=429, headers={"Retry-After": "0.1"}, times=2),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status}",
)
def test_what_is_safe_to_repeat_is_repeated(server: FakeServer, fault: Fault) -> None:
    server.script.add(fault)
    assert _api(server).call("GET", "/thing", Deadline(20), retry="safe").json() == {"a": 1}
    assert len(server.requests) == 3


def test_what_is_not_safe_is_asked_once(server: FakeServer) -> None:
    """Promise 7: a create that may have arrived is not sent twice."""
    for fault in (Fault(kind="status", status=503), Fault(kind="drop"), Fault(kind="status", status=429)):
        server.script.add(fault)
        with pytest.raises(SandboxerError):
            _api(server).call("POST", "/thing", Deadline(5), expect=(201,))
    assert len(server.requests) == 3


def test_a_refusal_is_not_repeated(server: FakeServer) -> None:
    for status in (400, 401, 404, 409, 500):
        server.script.add(Fault(kind="status", status=status))
        with pytest.raises(SandboxerError):
            _api(server).call("GET", "/thing", Deadline(5), retry="safe")
    assert len(server.requests) == 5


def test_repeating_has_an_end(server: FakeServer) -> None:
    server.script.add(Fault(kind="status", status=429, headers={"Retry-After": "0"}, times=None))
    with pytest.raises(Unavailable) as caught:
        _api(server).call("GET", "/thing", Deadline(20), retry="safe")
    assert len(server.requests) == 5
    assert caught.value.details == {"status": 429, "retry_after": 0.0}


def test_a_retry_after_that_is_too_late_is_told_at_once(server: FakeServer) -> None:
    server.script.add(Fault(kind="status", status=429, headers={"Retry-After": "30"}))
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        _api(server).call("GET", "/thing", Deadline(5), retry="safe")
    assert time.monotonic() - started < 2
    assert caught.value.details == {"status": 429, "retry_after": 30.0}
    assert caught.value.retryable


def test_a_retry_after_is_waited_for(server: FakeServer) -> None:
    server.script.add(Fault(kind="status", status=429, headers={"Retry-After": "0.5"}))
    _api(server).call("GET", "/thing", Deadline(20), retry="safe")
    first, second = list(server.requests)
    assert second.at - first.at >= 0.5


# -- what must not be seen or sent ------------------------------------------------------------------------------------


def test_a_key_is_in_no_error_and_no_repr(server: FakeServer) -> None:
    """Promise 28: a key is in the header, and nowhere else; not when the header cannot be sent either."""
    canary = "canary-of-the-key"
    texts: list[str] = []
    for fault in (Fault(kind="status", status=401), Fault(kind="drop"), Fault(kind="truncate"), Fault(kind="hang")):
        server.script.add(fault)
        with pytest.raises(SandboxerError) as caught:
            _api(server, key=canary).call("POST", "/thing", Deadline(0.5))
        texts += [repr(caught.value), json.dumps(caught.value.document()), repr(caught.value.__cause__)]
    broken = _api(server, key=f"{canary}\nX-Other: y")
    with pytest.raises(NotConfigured) as refused:
        broken.call("GET", "/thing", Deadline(5))
    texts += [repr(refused.value), refused.value.message, repr(broken)]
    answer = _api(server, key=canary).call("GET", "/thing", Deadline(5))
    texts += [repr(answer)]
    assert not [text for text in texts if canary in text]
    assert server.requests[-1].headers["x-api-key"] == canary


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/é", "nothing"])
def test_a_path_that_would_break_the_request_is_not_sent(server: FakeServer, path: str) -> None:
    """Promise 24."""
    with pytest.raises(Invalid):
        _api(server).call("GET", path, Deadline(5))
    assert not server.requests


@pytest.mark.parametrize(
    "base",
    ["ftp://x", "x.org", "https://", "https://user:pw@x.org", "https://x.org?a=1", "https://x.org#a", "https://x y.org",
     "https://x.org:99999", "https://-x\n.org", "file:///etc/passwd"],
)  # fmt: skip
def test_an_address_that_cannot_be_used_is_invalid_and_not_quoted(base: str) -> None:
    with pytest.raises(Invalid) as caught:
        ApiClient(base, name="Thing")
    assert "pw" not in caught.value.message


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, nobody())
    assert _api(server).call("GET", "/thing", Deadline(5)).status == 200


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.0.0.9", True),
        ("[::1]", True),
        ("hub", False),
        ("192.0.2.1", False),
    ],
)
def test_this_machine_is_told_from_others(host: str, here: bool) -> None:
    assert parse_base_url(f"http://{host}:80", what="it").loopback is here


def test_a_proxy_is_asked_for_other_machines(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one above would also pass if no proxy were ever asked."""
    monkeypatch.setenv("HTTP_PROXY", server.url.replace("http://", "http://me:secret@"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    answer = ApiClient("http://api.invalid:81/v1", name="Thing").call("GET", "/thing", Deadline(5), expect=None)
    assert answer.status == 404
    asked = server.requests[-1]
    assert (asked.path, asked.headers["host"]) == ("/v1/thing", "api.invalid:81")
    assert asked.headers["proxy-authorization"] == "Basic bWU6c2VjcmV0"
    monkeypatch.setenv("NO_PROXY", "other.org, .invalid")
    with pytest.raises(Unavailable):
        ApiClient("http://api.invalid:81/v1", name="Thing").call("GET", "/thing", Deadline(5))


def test_a_name_that_nobody_knows_has_surely_failed() -> None:
    with pytest.raises(Unavailable) as caught:
        ApiClient("http://no-such-host.invalid", name="Thing").call("POST", "/thing", Deadline(10))
    assert caught.value.outcome == "failed"
    assert "no-such-host.invalid" in caught.value.message


def test_a_machine_that_does_not_answer_costs_seconds_and_not_the_whole_deadline() -> None:
    """Promise 22: connecting has an end of its own, so that a dead address is known soon. A full backlog drops what
    comes, as a machine that is off does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        started = time.monotonic()
        with pytest.raises(Timeout) as caught:
            ApiClient(f"http://127.0.0.1:{port}", name="Thing").call("POST", "/thing", Deadline(0.7))
        assert time.monotonic() - started < 2
        assert caught.value.outcome == "failed"
        for each in waiting:
            each.close()


def test_a_child_process_does_not_share_connections(server: FakeServer) -> None:
    api = _api(server)
    api.call("GET", "/thing", Deadline(5))
    pid = os.fork()
    if pid == 0:
        os._exit(0 if api.call("GET", "/thing", Deadline(5)).status == 200 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert api.call("GET", "/thing", Deadline(5)).status == 200
    assert server.accepted == 2


def test_idle_connections_are_bounded_and_age(server: FakeServer) -> None:
    pool = HTTPConnectionPool()
    destination = destination_of(_api(server).base)
    connections = [pool.take(destination, Deadline(5), repeatable=True) for _ in range(KEPT_ALL + 10)]
    for connection in connections:
        pool.give(destination, connection)
    assert pool.idle == KEPT_ALL
    pool.close()
    assert pool.idle == 0


def test_what_failed_last_is_told_where_no_time_is_left_to_ask_again(server: FakeServer) -> None:
    server.script.add(Fault(kind="drop", times=None))
    with pytest.raises(Unavailable, match="broke"):
        _api(server).call("GET", "/thing", Deadline(2), retry="safe")


@pytest.mark.parametrize(
    ("no_proxy", "base", "excepted"),
    [
        ("*", "https://x.org", True),
        ("x.org", "https://x.org", True),
        ("x.org", "https://a.x.org", True),
        ("x.org", "https://ax.org", False),
        (".x.org, y.org", "https://a.x.org", True),
        ("*.x.org", "https://a.x.org", True),
        ("X.ORG:8443", "https://x.org:8443", True),
        ("x.org:8443", "https://x.org", False),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.0.0.0/8", "https://x.org", False),
        ("10.1.2.3", "https://10.1.2.3:99", True),
        ("fd00::1", "https://[fd00::1]", True),
        ("[fd00::1]:443", "https://[fd00::1]", True),
        ("[fd00::1]:444", "https://[fd00::1]", False),
        ("fd00::/8", "https://[fd00::1]", True),
        ("", "https://x.org", False),
        (", .,:,/", "https://x.org", False),
    ],
)
def test_no_proxy_names_domains_ports_numbers_and_ranges(no_proxy: str, base: str, excepted: bool) -> None:
    environment = {"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": no_proxy}
    assert (proxy_for(parse_base_url(base, what="it"), environment) is None) is excepted
