"""The checks that come before every route, against the real server over real sockets (promises 29 and 30)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from httpx import Client

from sandboxer.api import middleware, protocol
from sandboxer.api.middleware import MAX_BODY
from sandboxer.api.server_context import ServerContext
from sandboxer.bootstrap import Installation
from tests.api.serving import HEAD, Answer, Served, serving
from tests.installations import installed
from tests.testbed.waiting import eventually

TOKEN = "Authorization: Bearer s3cret-token\r\n"
FOREIGN = "POST /v1/expire HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://example.org\r\n"
POST = "POST /v1/sandboxes HTTP/1.1\r\n" + HEAD + "Content-Type: application/json\r\n"


def problem(answer: Answer) -> dict[str, Any]:
    """The body, which must be a problem with all its fields."""
    assert "content-type: application/problem+json" in answer.head.lower(), answer
    document: dict[str, Any] = json.loads(answer.body)
    assert {"type", "title", "status", "detail", "instance", "code", "message", "hint", "retryable", "outcome"} <= set(
        document
    )
    assert document["status"] == answer.status
    return document


def every_route(api: Client) -> list[tuple[str, str]]:
    paths = api.get("/openapi.json").json()["paths"]
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    assert len(found) >= 17
    return [*found, ("GET", "/openapi.json"), ("GET", "/nothing"), ("GET", "/"), ("GET", "/docs")]


def test_every_route_needs_the_token(tmp_path: Path) -> None:
    """Promise 29: checked before the route, its arguments and its body are looked at."""
    here = installed(tmp_path, SANDBOXER_API_TOKEN="s3cret-token")
    with (
        serving(here) as served,
        Client(base_url=f"http://127.0.0.1:{served.port}", headers={"Authorization": "Bearer s3cret-token"}) as api,
    ):
        for method, path in every_route(api):
            for query in ("", "?token=s3cret-token", "?access_token=s3cret-token"):
                answer = served.send(f"{method} {path}{query} HTTP/1.1\r\n{HEAD}Content-Length: 3\r\n\r\n{{{{{{")
                if path == "/healthz":
                    assert answer.status == 200
                    continue
                assert (answer.status, problem(answer)["code"]) == (401, "denied"), (method, path)
                assert "www-authenticate: bearer" in answer.head.lower()
        assert served.get("/v1/sandboxes", HEAD + TOKEN).status == 200


def test_every_route_checks_host_and_origin(shared_api: Client, shared: Served) -> None:
    """Promise 29."""
    for method, path in every_route(shared_api):
        foreign = f"{method} {path} HTTP/1.1\r\n{HEAD}Origin: http://example.org\r\n\r\n"
        rebound = f"{method} {path} HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n"
        for request in (foreign, rebound):
            answer = shared.send(request)
            assert (answer.status, problem(answer)["code"]) == (403, "denied"), request


@pytest.mark.parametrize(
    "headers",
    [
        "Connection: close\r\n",
        "Host: 127.0.0.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n",
        "Host: 127.0.0.1\r\nHost: example.org\r\nConnection: close\r\n",
        "Host:\r\nConnection: close\r\n",
        "Host: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nOrigin: http://example.org\r\nConnection: close\r\n",
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_missing_and_doubled_headers_are_refused(shared: Served, headers: str, version: str) -> None:
    """Promise 29: the HTTP parser refuses some of these itself, with 400."""
    assert shared.get("/v1/sandboxes", headers, version=version).status in (400, 403)


def test_two_tokens_are_none(guarded: Served) -> None:
    assert guarded.get("/v1/sandboxes", HEAD + TOKEN + TOKEN).status == 401
    assert guarded.get("/v1/sandboxes", HEAD + TOKEN + "Authorization: Bearer x\r\n").status == 401


def test_an_absolute_target_does_not_replace_the_host(shared: Served) -> None:
    answer = shared.get("http://127.0.0.1/v1/sandboxes", "Host: example.org\r\nConnection: close\r\n")
    assert answer.status == 400  # only a proxy is asked so


def test_a_refusal_comes_before_the_body(guarded: Served) -> None:
    """Nobody without the token can make the server wait for, or hold, a body."""
    started = time.monotonic()
    answer = guarded.send(f"POST /v1/sandboxes HTTP/1.1\r\n{HEAD}Content-Length: 900000\r\n\r\n")
    assert answer.status == 401
    assert time.monotonic() - started < 15


def test_a_body_that_says_it_is_too_large_is_413(shared: Served) -> None:
    answer = shared.send(f"{POST}Content-Length: {MAX_BODY + 1}\r\n\r\n")
    assert (answer.status, problem(answer)["code"]) == (413, "invalid")


def test_a_chunked_body_is_limited_too(shared: Served) -> None:
    """Promise 30: also when it does not say how long it is."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = shared.send(POST.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 18)
    assert (answer.status, problem(answer)["code"]) == (413, "invalid")


def test_a_body_up_to_the_limit_is_read(shared: Served) -> None:
    body = b'{"profile": "profile.absent"' + b" " * (MAX_BODY - 29) + b"}"
    assert len(body) == MAX_BODY
    answer = shared.send(POST.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert answer.status == 404


def test_a_body_that_does_not_arrive_ends_the_wait(shared: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wait has a deadline."""
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.3)
    answer = shared.send(f"{POST}Content-Length: 100\r\n\r\n{{")
    assert (answer.status, problem(answer)["code"]) == (408, "timeout")


def test_half_a_request_is_not_carried_out(here: Installation) -> None:
    """A client that goes away after a part of its body: the part may be valid JSON, and mean something else."""
    calls: list[bytes] = []

    async def route(_scope: middleware.Scope, receive: middleware.Receive, _send: middleware.Send) -> None:
        calls.append((await receive())["body"])

    def deliver(*messages: dict[str, Any]) -> None:
        waiting = list(messages)

        async def receive() -> dict[str, Any]:
            return waiting.pop(0)

        async def send(_message: middleware.Message) -> None: ...

        scope = {"type": "http", "method": "POST", "path": "/v1/sandboxes", "headers": [(b"host", b"localhost")]}
        asyncio.run(middleware.ApiMiddleware(route, ServerContext(lambda: here))(scope, receive, send))

    part = {"type": "http.request", "body": b"{}", "more_body": True}
    deliver(part, {"type": "http.disconnect"})
    assert calls == []
    deliver(part, {"type": "http.request", "body": b" ", "more_body": False})
    assert calls == [b"{} "]


def test_what_is_cut_off_when_the_server_stops_is_told_so(here: Installation) -> None:
    """Whatever it was: the answer is a problem, and says that nobody knows how far it came."""
    sent: list[middleware.Message] = []

    async def route(_scope: middleware.Scope, _receive: middleware.Receive, _send: middleware.Send) -> None:
        raise asyncio.CancelledError

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: middleware.Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/expire", "headers": [(b"host", b"localhost")]}
    asyncio.run(middleware.ApiMiddleware(route, ServerContext(lambda: here))(scope, receive, send))
    assert sent[0]["status"] == 503
    document = json.loads(sent[1]["body"])
    assert (document["code"], document["outcome"]) == ("unavailable", "unknown")


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"nonsense", b'{"profile": }', b"\xff\xfe\x00", b'{"ttl": NaN}', b"[" * 100_000, b'{"a":' * 50_000,
        b'{"ttl": ' + b"9" * 10_000 + b"}", b'{"ttl": 1e999}', b'{"name": "\\ud800"}', b'{"\\ud800": 1}',
        b'{"inputs": {"greeting": "\\ud800"}, "profile": "profile.fake"}', b"\x00", b'{"name": "\\u0000"}',
        b'{"profile": "\\u0000"}', b'{"profile": "profile.fake", "host": "\\u0000"}', b'{"profile": 1, "profile": 2}',
        b'{"consumer": "agt:\\ud800"}', b'{"labels": {"\\u0000": "x"}, "profile": "profile.fake"}',
    ],
    ids=range(19),
)  # fmt: skip
def test_a_malformed_body_is_a_problem_of_the_caller(shared: Served, body: bytes) -> None:
    """Promise 30."""
    answer = shared.send(POST.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert answer.status in (403, 404, 422), answer
    problem(answer)


def test_a_body_that_is_wrong_everywhere_is_told_of_in_part(shared: Served) -> None:
    """As many complaints as values would keep the others waiting while they are written."""
    body = b'{"labels": {' + b",".join(b'"k%d":0' % n for n in range(15_000)) + b"}}"
    answer = shared.send(POST.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert answer.status == 422
    assert len(problem(answer)["details"]["errors"]) == 20


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"profile":', "Expecting value"), (b"{} {}", "Extra data"), (b'{"name": "\xff"}', "UTF-8"),
        (b'{"ttl": NaN}', "NaN"), (b'{"ttl": ' + b"9" * 5000 + b"}", "digits"), (b"[" * 10_000, "deep"),
        (b"[" * 100_000, "values"),
        (b'{"profile": "profile.absent", "profile": "profile.fake"}', "'profile' is there twice"),
        (b'{"inputs": {"greeting": "a", "greeting": "b"}}', "'greeting' is there twice"),
        (b'{"labels": {' + b",".join(b'"k%d":0' % n for n in range(20_001)) + b"}}", "more than 20000 values"),
    ],
    ids=range(10),
)  # fmt: skip
def test_a_body_that_is_not_json_is_422_and_says_why(shared: Served, body: bytes, told: str) -> None:
    """Contract §3: what is `invalid` is 422. A key that is there twice means one thing to us, another to a proxy."""
    answer = shared.send(POST.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    found = problem(answer)
    assert (answer.status, found["code"]) == (422, "invalid")
    assert told in found["message"]
    assert "JSON" in found["hint"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"), ("GET", "/", 404, "not_found"), ("GET", "/docs", 404, "not_found"),
        ("GET", "/v1/sandboxes/", 404, "not_found"), ("PATCH", "/v1/sandboxes", 405, "invalid"),
        ("BREW", "/v1/sandboxes", 405, "invalid"), ("OPTIONS", "/v1/sandboxes", 405, "invalid"),
        ("GET", "/v1/sandboxes/%00", 404, "not_found"), ("GET", "/v1/sandboxes/%ff%fe", 404, "not_found"),
        ("GET", "/v1/sandboxes/..%2f..%2fetc", 404, "not_found"), ("GET", "/v1/volumes", 404, "not_found"),
        ("GET", "/v1/sandboxes?limit=%00", 422, "invalid"), ("GET", "/v1/sandboxes/" + "a" * 5000, 422, "invalid"),
        ("POST", "/v1/expire/x", 404, "not_found"), ("GET", "/v1/hosts/..%2f", 404, "not_found"),
    ],
)  # fmt: skip
def test_what_there_is_not_is_told_in_the_same_shape(
    shared: Served, method: str, path: str, status: int, code: str
) -> None:
    answer = shared.send(f"{method} {path} HTTP/1.1\r\n{HEAD}\r\n")
    assert (answer.status, problem(answer)["code"]) == (status, code)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/sandboxes", "GET, HEAD, POST"), ("/v1/sandboxes/x123", "DELETE, GET, HEAD"), ("/v1/expire", "POST"),
        ("/v1/sandboxes/x123/leases/y", "DELETE, GET, HEAD, POST, PUT"), ("/healthz", "GET, HEAD"),
    ],
)  # fmt: skip
def test_a_method_that_is_not_taken_is_told_with_all_that_are(shared: Served, path: str, allowed: str) -> None:
    answer = shared.send(f"PATCH {path} HTTP/1.1\r\n{HEAD}\r\n")
    assert (answer.status, problem(answer)["code"]) == (405, "invalid")
    assert f"allow: {allowed.lower()}\r\n" in answer.head.lower()


@pytest.mark.parametrize(
    ("path", "status"), [("/healthz", 200), ("/v1/sandboxes", 200), ("/v1/sandboxes/x123", 404), ("/v1/expire", 405)]
)
def test_head_is_get_without_the_body(shared: Served, path: str, status: int) -> None:
    answer = shared.send(f"HEAD {path} HTTP/1.1\r\n{HEAD}\r\n")
    assert (answer.status, answer.body) == (status, "")


def test_head_needs_the_token_too(guarded: Served) -> None:
    """Promise 29."""
    assert guarded.send(f"HEAD /v1/sandboxes HTTP/1.1\r\n{HEAD}\r\n").status == 401
    assert guarded.send(f"HEAD /v1/sandboxes HTTP/1.1\r\n{HEAD}{TOKEN}\r\n").status == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"GARBAGE\r\n\r\n", b"GET /healthz HTTP/1.1\r\n\r\n", b"GET /\xe9 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"POST /v1/expire HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/expire HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n",
    ],
    ids=range(6),
)  # fmt: skip
def test_what_is_no_http_is_a_problem_too(shared: Served, request_: bytes) -> None:
    """Contract §6: errors are `application/problem+json`."""
    answer = shared.send(request_)
    assert (answer.status, problem(answer)["code"]) == (400, "invalid")


def test_rubbish_after_the_answer_ends_the_connection_and_nothing_else(
    shared: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 30."""
    answer = shared.send(f"{FOREIGN}Transfer-Encoding: chunked\r\n\r\n", then=b"no size\r\n\r\n")
    assert answer.status == 403
    assert answer.body.count("HTTP/1.1") == 0
    assert "Traceback" not in caplog.text
    assert shared.get("/healthz").status == 200


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HTT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: b"])
def test_a_request_that_never_becomes_one_does_not_hold_its_connection(
    shared: Served, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    """Every wait has a deadline; without this one, whoever opens enough connections keeps all others out."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    answer = shared.send(begun)
    assert (answer.status, problem(answer)["code"]) == (408, "timeout")


def test_a_body_that_nobody_waits_for_does_not_hold_its_connection(
    shared: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was refused by its head, and the rest dribbles in."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    assert shared.send(f"{FOREIGN}Content-Length: 100000\r\n\r\n", then=b"x").status == 403


def test_an_answer_that_is_not_read_does_not_hold_its_connection(
    shared: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "ANSWER_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as connection:
        connection.setblocking(False)
        asked = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100

        def cut() -> bool:
            with contextlib.suppress(BlockingIOError):
                connection.send(asked)  # until nobody takes more; after that it fails
            return False

        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            eventually(cut, within=20, what="the server hangs up")


def test_one_connection_serves_many_requests(shared: Served) -> None:
    """Also when a head comes in pieces, and when two come in one."""
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        for part in (whole[:20], whole[20:], whole + whole):
            connection.sendall(part)
        while received.count(b'"alive"') < 3:
            chunk = connection.recv(65536)
            assert chunk, received
            received += chunk
    assert received.count(b"HTTP/1.1 200") == 3


def test_a_body_that_is_not_said_to_be_json_is_refused_with_what_to_do(shared: Served) -> None:
    request = f"POST /v1/sandboxes HTTP/1.1\r\n{HEAD}Content-Type: application/x-www-form-urlencoded\r\n"
    answer = shared.send(request + "Content-Length: 2\r\n\r\n{}")
    assert answer.status == 422
    assert "Content-Type: application/json" in problem(answer)["hint"]


def test_no_answer_is_cached_or_sniffed(shared: Served) -> None:
    for path in ("/healthz", "/nothing", "/v1/sandboxes"):
        head = shared.get(path).head.lower()
        assert "cache-control: no-store" in head
        assert "x-content-type-options: nosniff" in head


def test_a_websocket_is_refused(shared: Served) -> None:
    headers = HEAD.replace("close", "Upgrade") + (
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    with socket.create_connection(("127.0.0.1", shared.port), timeout=5) as connection:
        connection.sendall(f"GET /v1/sandboxes HTTP/1.1\r\n{headers}\r\n".encode())
        assert b"101" not in connection.recv(4096).partition(b"\r\n")[0]


def test_an_unreadable_store_is_a_500_that_says_so_and_the_server_lives(served: Served, here: Installation) -> None:
    """Promise 13."""
    store = here.paths.data / "sandboxes.json"
    store.parent.mkdir(parents=True, exist_ok=True)
    store.write_bytes(b"\x00 not json")
    for path in ("/readyz", "/v1/sandboxes", "/v1/events"):
        answer = served.get(path)
        assert (answer.status, problem(answer)["code"]) == (500, "store_corrupt"), path
    assert served.get("/healthz").status == 200
    assert store.read_bytes() == b"\x00 not json"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_probe_by_http_1_0_without_a_host_is_answered(shared: Served, path: str) -> None:
    assert shared.get(path, "", version="1.0").status == 200
    assert shared.get("/v1/sandboxes", "", version="1.0").status == 403
