"""Where requests begin and end: however they are cut, and as a parser understands them that shares no code with it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from itertools import pairwise

import h11

from sandboxer.api.framing import MAX_HEAD, MalformedRequest, Part, RequestFraming
from tests.api.test_framing import REFUSED, TAKEN

INPUTS = 2000
SEEDS = [*REFUSED.values(), *(data for data, _ in TAKEN.values())]
TOKENS = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b":", b"Content-Length: 2\r\n",
    b"Transfer-Encoding: chunked\r\n", b"0\r\n", b"Host: localhost\r\n", b"GET /healthz HTTP/1.1\r\n", b"HTTP/1.0",
    b"\0", b"\x0b", b"\x7f", b"\x85", b"chunked", b", ", b"+", b"Expect: 100-continue\r\n",
    b"Connection: close\r\n", b"Upgrade: h2c\r\n", b";", b"2\r\n{}\r\n",
]  # fmt: skip
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEAD = re.compile(rb"%s /[\x21-\x7e]* HTTP/1\.[01]\r\n(?:%s:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n" % (_TOKEN, _TOKEN))
"""RFC 9112 §3 and §5, as one expression: for texts of 16 KiB, and in a test, it is the oracle."""
_FRAMING = re.compile(rb"\r\n(content-length|transfer-encoding|host):[\t ]*([^\r]*?)[\t ]*(?=\r\n)", re.IGNORECASE)
_ENDED = {"DONE", "MUST_CLOSE", "MIGHT_SWITCH_PROTOCOL"}


def run(data: bytes) -> object:
    """Give it to the reader as the server does, whole and in pieces."""
    return _judged(data, RequestFraming)


def _judged(data: bytes, framing: Callable[[], RequestFraming]) -> object:
    whole = _requests(framing(), [data])
    chance = random.Random(len(data))  # noqa: S311 - a repeatable sequence, nothing secret
    cuts = sorted({0, len(data), *(chance.randrange(len(data) + 1) for _ in range(len(data) // 20 + 2))})
    cut = _requests(framing(), [data[a:b] for a, b in pairwise(cuts)])
    assert cut == whole, (cut, whole)
    for request in whole:
        if request != b"refused":
            _check_head(request[: request.index(b"\r\n\r\n") + 4])
            _check_end(request)
    return whole


def _requests(framing: RequestFraming, pieces: Iterable[bytes]) -> list[bytes]:
    """The whole requests that passed, one after another; the last one may be `refused`."""
    seen: list[bytes] = []
    passed = bytearray()
    for piece in pieces:
        try:
            passed += framing.feed(piece)
            while framing.complete:
                seen.append(bytes(passed))
                passed.clear()
                framing.begin_next()
                passed += framing.feed(b"")
        except MalformedRequest:
            return [*seen, b"refused"]
    return seen


def _check_head(head: bytes) -> None:
    """That a head which was taken has one meaning."""
    assert len(head) <= MAX_HEAD, len(head)
    assert _HEAD.fullmatch(head), head
    framing = [(name.lower(), value) for name, value in _FRAMING.findall(head)]
    assert sum(name != b"host" for name, _ in framing) <= 1, framing
    assert sum(name == b"host" for name, _ in framing) <= 1, framing
    for name, value in framing:
        assert name != b"content-length" or re.fullmatch(rb"[0-9]+", value), value
        assert name != b"transfer-encoding" or value.lower() == b"chunked", value


def _check_end(request: bytes) -> None:
    """That h11 takes it too, and ends where it ends: it is what uvicorn reads with."""
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(request)
    while parser.next_event() not in (h11.NEED_DATA, h11.PAUSED):
        pass
    assert str(parser.their_state) in _ENDED, request
    assert parser.trailing_data[0] == b"", request


class _TakesMore(RequestFraming):
    """Looks for the end of a head, and not at it."""

    def _head(self) -> bytes | None:
        end = self._waiting.find(b"\r\n\r\n")
        return None if end < 0 else self._take(end + 4, Part.END)


class _OfOnePiece(RequestFraming):
    """Checks only what comes whole."""

    def _head(self) -> bytes | None:
        if self._waiting.endswith(b"\r\n\r\n"):
            return super()._head()
        return _TakesMore._head(self)  # type: ignore[arg-type]  # the same attributes


FAULTS = {
    "a reader that takes more": lambda data: _judged(data, _TakesMore),
    "a check of what comes in one piece only": lambda data: _judged(data, _OfOnePiece),
}
