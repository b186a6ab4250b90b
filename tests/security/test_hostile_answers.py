"""What a provider says over HTTP is taken in bounds: chunks, heads and lengths that are none end the call, not us."""

from __future__ import annotations

import resource
import socket

import pytest

from sandboxer.errors import BackendError, SandboxerError
from sandboxer.http import ApiClient
from sandboxer.timing import Deadline
from tests.http.peers import peer, saying

MIB = 1 << 20

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = {
    "a negative size": b"-1\r\n",
    "a size with an underscore": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "a size with 0x": b"0x2\r\n{}\r\n0\r\n\r\n",
    "a signed size": b"+2\r\n{}\r\n0\r\n\r\n",
    "a size of a thousand digits": b"f" * 1000 + b"\r\n",
    "an extension longer than a head": b"2;" + b"a" * 200_000 + b"\r\n{}\r\n0\r\n\r\n",
    "no size": b"\r\n",
    "trailers without end": b"2\r\n{}\r\n0\r\n" + b"X-A: b\r\n" * 1000,
}


@pytest.mark.parametrize("said", CHUNKS.values(), ids=CHUNKS.keys())
def test_chunks_that_are_none_are_refused(said: bytes) -> None:
    with peer(saying(HEAD + said)) as address:
        api = ApiClient(address, name="Thing")
        with pytest.raises(SandboxerError, match="Thing"):
            api.call("GET", "/x", Deadline(30))
        with pytest.raises(SandboxerError, match="Thing"), api.stream("GET", "/x", Deadline(30)) as streamed:
            list(streamed.chunks())


def test_a_chunk_of_minus_one_is_not_read_to_the_end_of_the_connection() -> None:
    """The standard library does so, past every limit: the peer says as much as there is memory for."""
    sent = [0]

    def flood(connection: socket.socket, _: bytes) -> None:
        connection.sendall(HEAD + b"-1\r\n")
        piece = b"x" * MIB
        while sent[0] < 256 * MIB:
            connection.sendall(piece)
            sent[0] += len(piece)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with peer(flood) as address, pytest.raises(SandboxerError):
        ApiClient(address, name="Thing").call("GET", "/x", Deadline(60), limit=1000)
    assert sent[0] < 128 * MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 * 1024


FLOODS = {
    "headers": b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 5000,
    "a long header": b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * MIB,
    "a status line without end": b"HTTP/1.1 200 " + b"K" * MIB,
    "a status of many digits": b"HTTP/1.1 " + b"2" * 5000 + b" OK\r\n\r\n",
    "both lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n-9\r\n",
    "a time in letters": b"HTTP/1.1 429 Slow\r\nRetry-After: " + b"9" * 5000 + b"\r\nContent-Length: 0\r\n\r\n",
    "a time beyond time": b"HTTP/1.1 429 Slow\r\nRetry-After: Mon, 99 Jan 99999 99:99:99 +9999\r\n\r\n",
}


@pytest.mark.parametrize("said", FLOODS.values(), ids=FLOODS.keys())
def test_heads_that_flood_are_refused(said: bytes) -> None:
    with peer(saying(said)) as address, pytest.raises(SandboxerError, match="Thing"):
        ApiClient(address, name="Thing").call("GET", "/x", Deadline(30)).json()


def test_a_packed_answer_is_not_unpacked() -> None:
    """We do not ask for compression; who compresses all the same is not understood."""
    import gzip

    packed = gzip.compress(b"0" * (64 * MIB))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    with peer(saying(head + packed)) as address, pytest.raises(BackendError, match="not JSON"):
        ApiClient(address, name="Thing").call("GET", "/x", Deadline(30)).json()
