"""Raw requests with the answers they get: what a proxy before us could read otherwise ends the connection."""

from __future__ import annotations

import socket

import pytest

from sandboxer.api import framing as heads
from tests.api.serving import Served

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/expire HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"

REFUSED = {
    "both lengths": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, the other way": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    "the same length twice": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": POST + b"Content-Length: 2, 2\r\n\r\n{}",
    "a signed length": POST + b"Content-Length: +2\r\n\r\n{}",
    "a negative length": POST + b"Content-Length: -2\r\n\r\n{}",
    "a hexadecimal length": POST + b"Content-Length: 0x2\r\n\r\n{}",
    "an empty length": POST + b"Content-Length:\r\n\r\n",
    "a length of many digits": POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n",
    "a length of other digits": POST + b"Content-Length: \xb2\r\n\r\n{}",
    "another coding": POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "a coding before chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked after a tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n",
    "a bare LF after the request": b"GET /healthz HTTP/1.1\nHost: localhost\r\n\r\n",
    "a bare LF after a header": GET + b"X-A: b\nX-C: d\r\n\r\n",
    "bare LFs everywhere": NEXT.replace(b"\r\n", b"\n"),
    "a bare LF at the end": GET + b"\n",
    "a bare LF at the beginning": b"\n" + NEXT,
    "a bare CR": GET + b"X-A: b\rX-C: d\r\n\r\n",
    "two CRs": GET + b"X-A: b\r\r\n\r\n",
    "two CRs at the end of a head that is not over": GET + b"X-A: b\r\n\r\r\n",
    "a folded header": GET + b"X-A: b\r\n c\r\n\r\n",
    "a folded header with a tab": GET + b"X-A: b\r\n\tc\r\n\r\n",
    "a folded length": POST + b"Content-Length:\r\n 2\r\n\r\n{}",
    "a fold at the beginning": b"GET /healthz HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "a blank before the colon": POST + b"Content-Length : 2\r\n\r\n{}",
    "a tab before the colon": POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "a header without a colon": GET + b"X-A\r\n\r\n",
    "a header without a name": GET + b": b\r\n\r\n",
    "a name with brackets": GET + b"X[A]: b\r\n\r\n",
    "a NUL in a value": GET + b"X-A: b\0c\r\n\r\n",
    "a NUL in a name": GET + b"X\0A: b\r\n\r\n",
    "a NUL in the target": b"GET /healthz\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an escape in a value": GET + b"X-A: \x1b[2J\r\n\r\n",
    "a DEL in a value": GET + b"X-A: \x7f\r\n\r\n",
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two Hosts": GET + b"Host: localhost\r\n\r\n",
    "two Hosts in HTTP/1.0": GET.replace(b"1.1", b"1.0") + b"Host: example.org\r\n\r\n",
    "a whole address as target": b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "another host in the target": b"GET http://example.org/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a target that is no path": b"GET healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an asterisk as target": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a tunnel": b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost:22\r\n\r\n",
    "two blanks": b"GET  /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a tab for a blank": b"GET\t/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a blank behind the version": b"GET /healthz HTTP/1.1 \r\nHost: localhost\r\n\r\n",
    "no version": b"GET /healthz\r\nHost: localhost\r\n\r\n",
    "HTTP/0.9": b"GET /healthz HTTP/0.9\r\nHost: localhost\r\n\r\n",
    "HTTP/2.0": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": NEXT.replace(b"1.1", b"1.2"),
    "a lower-case version": NEXT.replace(b"HTTP", b"http"),
    "a method of brackets": b"G[]T /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a chunk without a size": CHUNKED + b"\r\n\r\n",
    "a negative chunk": CHUNKED + b"-1\r\n\r\n",
    "a chunk with 0x": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk that ends with LF": CHUNKED + b"2\n{}\r\n0\r\n\r\n",
    "a chunk that is longer than it says": CHUNKED + b"2\r\n{}}}\r\n0\r\n\r\n",
    "a chunk of 2^80 bytes": CHUNKED + b"F" * 21 + b"\r\n",
    "a long extension of a chunk": CHUNKED + b"2;" + b"a" * 300 + b"\r\n{}\r\n0\r\n\r\n",
    "an extension without an end": CHUNKED + b"2;" + b"a" * 3000,
    "a length in the trailer": CHUNKED + b"2\r\n{}\r\n0\r\nContent-Length: 40\r\n\r\n",
    "a token in the trailer": CHUNKED + b"2\r\n{}\r\n0\r\nAuthorization: Bearer x\r\n\r\n",
    "a bare LF in the trailer": CHUNKED + b"2\r\n{}\r\n0\r\nX-A: b\n\r\n",
    "a folded trailer": CHUNKED + b"2\r\n{}\r\n0\r\nX-A: b\r\n c\r\n\r\n",
}  # fmt: skip
TOO_LARGE = {
    "a long target": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long name": GET + b"a" * 20_000 + b": b\r\n\r\n",
    "a long value": GET + b"a: " + b"b" * 20_000 + b"\r\n\r\n",
    "a long head that does not end": GET + b"a: " + b"b" * 20_000,
    "many headers": GET + b"a: b\r\n" * 101 + b"\r\n",
    "many headers in one packet": GET + b"a: b\r\n" * 20_000 + b"\r\n",
}
TAKEN = {
    "the plainest": (NEXT, 200),
    "HTTP/1.0": (b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
    "a probe by HTTP/1.0 without a host": (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    "a body": (POST + b"Content-Length: 2\r\n\r\n{}", 200),
    "a body in chunks": (CHUNKED + b"1\r\n{\r\n1;ext=a\r\n}\r\n0\r\n\r\n", 200),
    "a trailer": (CHUNKED + b"2\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n", 200),
    "blanks around a value": (GET + b"X-A: \t b \t\r\n\r\n", 200),
    "an empty value": (GET + b"X-A:\r\n\r\n", 200),
    "bytes beyond ASCII in a value": (GET + b"X-A: \xff\xfe\r\n\r\n", 200),
    "chunked in capitals": (CHUNKED.replace(b"chunked", b"Chunked") + b"2\r\n{}\r\n0\r\n\r\n", 200),
    "nearly a hundred headers": (GET + b"a: b\r\n" * 96 + b"\r\n", 200),
}


def exchange(served: Served, data: bytes, *, last: bool = False) -> bytes:
    """All that comes back until the server hangs up, which it has to do by itself; `last`: we say that we are done."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        received = b""
        try:
            connection.sendall(data)
            if last:
                connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                received += chunk
        except (ConnectionResetError, BrokenPipeError):
            pass  # it hangs up while we still send
    return received


def statuses(received: bytes) -> list[int]:
    """The statuses of the answers."""
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED.keys())
def test_what_can_be_read_in_two_ways_is_refused_and_ends_the_connection(shared: Served, request_: bytes) -> None:
    """RFC 9112 §6.1 and §11.2. What follows on the same connection is never answered: it may be another's request."""
    received = exchange(shared, request_ + NEXT)
    assert statuses(received) == [400], received
    assert b"connection: close" in received.lower()


@pytest.mark.parametrize("request_", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_a_head_that_is_too_large_is_refused(shared: Served, request_: bytes) -> None:
    assert statuses(exchange(shared, request_ + NEXT)) in ([431], []), "answered, or reset while it was sent"


@pytest.mark.parametrize(("request_", "status"), TAKEN.values(), ids=TAKEN.keys())
def test_what_every_client_says_is_taken(shared: Served, request_: bytes, status: int) -> None:
    closing = request_.replace(b"Host: localhost\r\n", b"Host: localhost\r\nConnection: close\r\n")
    assert statuses(exchange(shared, closing)) == [status]


def test_requests_in_one_packet_are_answered_in_their_order(shared: Served) -> None:
    last = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    body = CHUNKED + b"2\r\n{}\r\n0\r\nX-A: b\r\n\r\n"
    assert statuses(exchange(shared, NEXT + body + NEXT + last)) == [200, 200, 200, 404]


def test_a_bad_request_behind_a_good_one_is_seen(shared: Served) -> None:
    assert statuses(exchange(shared, NEXT + REFUSED["both lengths"] + NEXT)) == [200, 400]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_request_is_the_same_however_it_is_cut(size: int) -> None:
    """By the reader itself: each of the table, in pieces."""

    def outcome(data: bytes, piece: int) -> str:
        framing, passed = heads.RequestFraming(), b""
        try:
            for at in range(0, len(data), piece):
                passed += framing.feed(data[at : at + piece])
        except heads.MalformedRequest:
            return "refused"
        assert data.startswith(passed)
        return f"{framing.part} of {len(passed)}"

    for name, data in REFUSED.items():
        assert outcome(data, size) == outcome(data, len(data)), name
    for name, (data, _) in TAKEN.items():
        assert outcome(data, size) == outcome(data, len(data)) == f"{heads.Part.END} of {len(data)}", name
