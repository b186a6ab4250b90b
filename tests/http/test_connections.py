"""How a connection is made, given up, and not used again."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sandboxer.errors import BackendError, SandboxerError, Timeout, Unavailable
from sandboxer.http import ApiClient, Response
from sandboxer.timing import Deadline
from tests.http.peers import peer, saying

HEAD = b"HTTP/1.1 200 OK\r\n"


def _call(url: str, deadline: Deadline, method: str = "GET") -> Response:
    return ApiClient(url, name="Thing").call(method, "/thing", deadline)


@contextmanager
def unreachable() -> Iterator[str]:
    """An address that does not answer: a full backlog drops what comes, as a machine that is off does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        yield f"http://127.0.0.1:{port}"
        for each in waiting:
            each.close()


def test_connecting_is_cancelled_within_a_second() -> None:
    """It has 5 s otherwise."""
    deadline = Deadline(60)
    threading.Timer(0.2, deadline.cancel).start()
    with unreachable() as url:
        started = time.monotonic()
        with pytest.raises(Timeout) as caught:
            _call(url, deadline, "POST")
    assert time.monotonic() - started < 4
    assert caught.value.outcome == "failed"


@pytest.mark.parametrize("ending", ["deadline", "cancel"])
def test_a_resolver_that_never_answers_is_left_behind(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's resolver knows no deadline, and cannot be interrupted."""
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(60) and [])
    deadline = Deadline(0.6 if ending == "deadline" else 60)
    if ending == "cancel":
        threading.Timer(0.2, deadline.cancel).start()
    started = time.monotonic()
    with pytest.raises(SandboxerError) as caught:
        _call("http://api.invalid", deadline, "POST")
    released.set()
    assert time.monotonic() - started < 4
    assert (caught.value.outcome, caught.value.code in ("unavailable", "timeout")) == ("failed", True)


def test_a_peer_that_speaks_another_protocol_is_told_from_one_that_is_slow() -> None:
    """It says its greeting, without a line's end, and waits for ours."""
    over = threading.Event()

    def greet(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"220 mail")
        over.wait(60)

    with peer(greet) as url, pytest.raises(BackendError, match="not HTTP"):
        _call(url, Deadline(60))
    over.set()


def test_what_is_said_before_the_answer_is_passed_over() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    with peer(saying(early + HEAD + b"Content-Length: 2\r\n\r\n{}")) as url:
        assert _call(url, Deadline(20)).json() == {}


def test_bytes_behind_an_answer_are_not_the_next_one() -> None:
    """Or who stands between could answer a request that was not asked yet."""
    own = HEAD + b"Content-Length: 3\r\n\r\n"

    def answer(connection: socket.socket, first: bytes) -> None:
        asked = first
        while asked:
            connection.sendall(own + b"own" + own + b"not")
            asked = connection.recv(65536)

    with peer(answer) as url:
        assert [_call(url, Deadline(20)).body for _ in range(3)] == [b"own"] * 3


def test_an_answer_before_the_whole_request_was_read_is_heard() -> None:
    """A server that refuses a body does not read it, and ends the connection while it is sent."""

    def refuse(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 413 Too large\r\nContent-Length: 8\r\nConnection: close\r\n\r\nat most 1")

    with peer(refuse) as url, pytest.raises(BackendError, match=r"413: at most") as caught:
        ApiClient(url, name="Thing").call("POST", "/thing", Deadline(20), content=b"x" * 30_000_000)
    assert caught.value.outcome == "failed"


@pytest.mark.parametrize("status", [b"500 Failed", b"413 Too large"])
def test_what_may_not_be_repeated_never_follows_an_error_on_its_connection(status: bytes) -> None:
    """A server may close behind an error, without saying so: here as late as it can, when the next request is there and
    unread, which resets the connection."""
    refused: list[bytes] = []

    def fail_once(connection: socket.socket, first: bytes) -> None:
        if refused:
            connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")
            return
        refused.append(first)
        connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")
        connection.recv(1, socket.MSG_PEEK)

    with peer(fail_once) as url:
        api = ApiClient(url, name="Thing")
        assert api.call("POST", "/thing", Deadline(20), json={}, expect=None).status >= 400
        assert api.call("POST", "/thing", Deadline(20), json={}).status == 200


def test_an_answer_that_something_is_not_there_costs_no_connection() -> None:
    """Looking until it is there, or gone, is what is asked most."""
    connections: list[int] = []

    def absent(connection: socket.socket, first: bytes) -> None:
        connections.append(connection.fileno())
        while first:
            connection.sendall(b"HTTP/1.1 404 Absent\r\nContent-Length: 2\r\n\r\n{}")
            first = connection.recv(65536)

    with peer(absent) as url:
        for _ in range(3):
            assert ApiClient(url, name="Thing").call("GET", "/thing", Deadline(20), expect=None).status == 404
    assert len(connections) == 1


def test_a_body_whose_source_fails_ends_the_connection() -> None:
    """The failure is the caller's own, and half a request is followed by nothing."""
    got: list[bytes] = []

    def read(connection: socket.socket, first: bytes) -> None:
        got.append(first)
        while data := connection.recv(65536):
            got.append(data)
        got.append(b"end")

    def failing() -> Iterator[bytes]:
        yield b"half"
        raise LookupError

    with peer(read) as url:
        with pytest.raises(LookupError):
            ApiClient(url, name="Thing").call("POST", "/thing", Deadline(20), content=failing())
        until = time.monotonic() + 20
        while got[-1:] != [b"end"] and time.monotonic() < until:
            threading.Event().wait(0.01)
    assert b"".join(got).endswith(b"half\r\nend")


def test_blanks_around_a_key_do_not_travel() -> None:
    got: list[bytes] = []

    def note(connection: socket.socket, head: bytes) -> None:
        got.append(head)
        connection.sendall(HEAD + b"Content-Length: 0\r\n\r\n")

    with peer(note) as url:
        ApiClient(url, name="Thing", headers={"X-API-Key": " key\t"}).call("GET", "/thing", Deadline(20))
    assert b"X-API-Key: key\r\n" in got[0]


def test_an_address_without_an_answer_is_unavailable_and_the_deadline_is_not_used_up() -> None:
    """Promise 22: 5 s for connecting, whatever time is left."""
    with unreachable() as url:
        started = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            _call(url, Deadline(300), "POST")
    assert time.monotonic() - started < 60
    assert caught.value.outcome == "failed"


def test_the_client_imports_no_library_that_a_command_does_not_need() -> None:
    """A create at a provider is a short process: httpcore would cost it a fifth more (decision 0028)."""
    heavy = {"anyio", "trio", "httpcore", "httpx", "email.parser", "http.client", "ssl"}
    code = f"import sys, sandboxer.http; print(*[m for m in sys.modules if m in {heavy}])"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == []
