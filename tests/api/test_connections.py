"""Many connections that say nothing do not keep others out."""

from __future__ import annotations

import contextlib
import http.client
import resource
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.api.connections import ConnectionLimits, ConnectionState, choose_to_close, connection_limits, peer_of
from sandboxer.bootstrap import Installation
from tests.api.serving import serving
from tests.api.test_server import ROOT, START, started
from tests.installations import environment, lay_out

DESCRIPTORS = 256
MANY = 400
SECONDS = 3.0
TOKEN = {"Authorization": "Bearer s3cret"}
SAID = {
    "nothing": b"",
    "half a head": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: b",
    "half a body without a token": b"POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
    "half a body": b"POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer s3cret\r\n"
    b"Content-Length: 1000\r\n\r\n{",
    "a whole request, and nothing more": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
}  # fmt: skip


FEW = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}))\n"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[int]:
    """The port of a server with a token and few descriptors."""
    lay_out(tmp_path)
    program = f"{FEW}{START}serve(installed(pathlib.Path(sys.argv[1]), SANDBOXER_API_TOKEN='s3cret'), '127.0.0.1', 0)"
    environ = environment(tmp_path)
    environ["PYTHONPATH"] = f"{ROOT}:{environ.get('PYTHONPATH', '')}"
    with started([sys.executable, "-c", program, str(tmp_path)], environ) as (_, port):
        yield port


@pytest.fixture
def by_hand(tmp_path: Path) -> Iterator[int]:
    """The same of `uvicorn sandboxer.api.app:app`, the other way in of contract §6."""
    lay_out(tmp_path)
    program = f"{FEW}from uvicorn.main import main; main(['sandboxer.api.app:app', '--port', '0'])"
    with started([sys.executable, "-c", program], environment(tmp_path, SANDBOXER_API_TOKEN="s3cret")) as (_, port):
        yield port


@pytest.mark.parametrize("said", ["nothing", "half a head"])
def test_nor_where_somebody_else_started_uvicorn(by_hand: int, said: str) -> None:
    """They stopped everybody there for as long as they were open."""
    assert ask(by_hand, "/healthz", source="127.0.0.1", within=30) == 200
    with contextlib.ExitStack() as stack:
        for _ in range(MANY):
            opened(by_hand, stack, SAID[said])
        for path, source in (("/healthz", "127.0.0.1"), ("/healthz", "127.0.0.2"), ("/v1/sandboxes", "127.0.0.3")):
            assert ask(by_hand, path, source=source, within=15) == 200


def test_heads_are_as_strict_where_somebody_else_started_uvicorn(by_hand: int) -> None:
    head = b"POST /v1/expire HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", by_hand), timeout=30) as connection:
        connection.sendall(head + b"2\r\n{}\r\n0\r\n\r\n")
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"urn:sandboxer:error:invalid" in received


def ask(port: int, path: str, *, source: str, within: float) -> int:
    """The status of a GET from one of this machine's own addresses."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=within, source_address=(source, 0))
    with contextlib.closing(connection):
        connection.request("GET", path, headers=TOKEN)
        return connection.getresponse().status


def opened(port: int, stack: contextlib.ExitStack, said: bytes, *, source: str = "127.0.0.1") -> None:
    """One more connection that says this and waits."""
    one = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30, source_address=(source, 0)))
    with contextlib.suppress(ConnectionError):
        one.sendall(said)


@pytest.mark.parametrize("said", SAID.values(), ids=SAID.keys())
def test_half_said_connections_of_one_address_stop_nobody(small: int, said: bytes) -> None:
    """With 256 descriptors, 400 of them stopped everybody for 30 s."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 2 * MANY, "this test itself needs descriptors"
    assert ask(small, "/healthz", source="127.0.0.1", within=30) == 200  # it has started
    with contextlib.ExitStack() as stack:
        for _ in range(MANY):
            opened(small, stack, said)
        # a generous wait for a busy machine; without the limits all three take 30 s
        begun = time.monotonic()
        assert ask(small, "/healthz", source="127.0.0.1", within=15) == 200
        assert ask(small, "/healthz", source="127.0.0.2", within=15) == 200
        assert ask(small, "/v1/sandboxes", source="127.0.0.3", within=15) == 200
        assert time.monotonic() - begun < 15


def test_they_stop_nobody_while_they_are_renewed(small: int) -> None:
    with contextlib.ExitStack() as stack:
        for round_ in range(4):
            for _ in range(MANY // 4):
                opened(small, stack, SAID["half a head"], source=f"127.0.1.{round_ + 1}")
            assert ask(small, "/healthz", source="127.0.0.2", within=15) == 200
            assert ask(small, "/v1/sandboxes", source="127.0.0.3", within=15) == 200


def test_a_request_that_is_worked_on_is_not_cut_off(here: Installation) -> None:
    """And connections that are kept for later are not missed by a client that asks again."""
    with serving(here) as served, contextlib.ExitStack() as stack:
        kept = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
        for _ in range(50):
            opened(served.port, stack, SAID["half a head"])
        for _ in range(3):
            kept.request("GET", "/v1/sandboxes")
            assert kept.getresponse().read()
        kept.close()


def test_half_of_the_descriptors_are_for_connections() -> None:
    assert connection_limits(256) == ConnectionLimits(total=128, each=64)
    assert connection_limits(1024) == ConnectionLimits(total=512, each=256)
    assert connection_limits(1 << 20) == ConnectionLimits(total=2048, each=1024)
    assert connection_limits(20) == ConnectionLimits(total=16, each=8)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("127.0.0.1", "127.0.0.1", True), ("127.0.0.1", "127.0.0.2", False), ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True), ("2001:db8::1", "2001:db8:0:1::1", False), ("/run/x", "", False),
    ],
)  # fmt: skip
def test_a_peer_is_an_address_or_a_network_of_ipv6(one: str, other: str, same: bool) -> None:
    assert (peer_of(one) == peer_of(other)) is same


def test_the_oldest_that_waits_goes_and_that_of_whoever_holds_most() -> None:
    most = ConnectionLimits(total=5, each=3)
    old, young, works = (
        ConnectionState("a", 1, waits=True),
        ConnectionState("a", 2, waits=True),
        ConnectionState("a", 0, waits=False),
    )
    new = ConnectionState("a", 9, waits=True)
    assert choose_to_close(new, [old, works], most) is None
    assert choose_to_close(new, [young, old, works], most) is old
    assert choose_to_close(new, [works, works, works], most) is new
    other = ConnectionState("b", 0, waits=True)
    assert choose_to_close(new, [other, other, other, works, works], most) is other
    assert choose_to_close(ConnectionState("c", 9, waits=True), [old, young, works, other, other], most) is old
    assert choose_to_close(ConnectionState("c", 9, waits=True), [works] * 5, most).peer == "c"  # type: ignore[union-attr]


held = st.builds(ConnectionState, st.sampled_from("abc"), st.floats(0, 100), waits=st.booleans())


@given(newcomer=held, others=st.lists(held, max_size=12))
def test_what_is_worked_on_is_never_closed_and_the_limits_hold(
    newcomer: ConnectionState, others: list[ConnectionState]
) -> None:
    most = ConnectionLimits(total=6, each=3)
    closed = choose_to_close(newcomer, others, most)
    within = len(others) < most.total and sum(one.peer == newcomer.peer for one in others) < most.each
    assert (closed is None) is within
    assert closed is None or closed is newcomer or closed.waits
