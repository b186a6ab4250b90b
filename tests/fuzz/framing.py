"""The head of an HTTP request: what is taken is what one plain expression takes, however it is cut."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import h11
from h11._receivebuffer import ReceiveBuffer

from sandboxer.api.framing import MAX_HEAD, StrictBuffer
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


def run(data: bytes) -> object:
    """Give it to the parser as the server does, whole and in pieces."""
    return _judged(data, StrictBuffer)


def _judged(data: bytes, buffer: Callable[[Callable[[], bool]], ReceiveBuffer]) -> object:
    whole = _events(data, buffer, [len(data)])
    chance = random.Random(len(data))  # noqa: S311 - a repeatable sequence, nothing secret
    pieces = [chance.randint(1, 40) for _ in range(len(data))]
    cut = _events(data, buffer, pieces)
    assert cut == whole, (cut, whole)
    return whole


def _events(data: bytes, buffer: Callable[[Callable[[], bool]], ReceiveBuffer], pieces: list[int]) -> list[str]:
    connection = h11.Connection(h11.SERVER)
    connection._receive_buffer = buffer(lambda: connection.their_state is h11.IDLE)
    seen: list[str] = []
    consumed = at = 0
    for piece in pieces:
        if at >= len(data):
            break
        connection.receive_data(data[at : at + piece])
        at += piece
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError:
                return [*seen, "refused"]
            if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                break
            if event is h11.PAUSED:
                return [*seen, "paused"]
            if isinstance(event, h11.Request):
                end = min(at, len(data)) - len(connection._receive_buffer)
                _check(data[consumed:end])
            if not isinstance(event, h11.Data):
                seen.append(type(event).__name__)
            consumed = min(at, len(data)) - len(connection._receive_buffer)
    return seen


def _check(head: bytes) -> None:
    """That a head which was taken has one meaning."""
    assert len(head) <= MAX_HEAD, len(head)
    assert _HEAD.fullmatch(head), head
    framing = [(name.lower(), value) for name, value in _FRAMING.findall(head)]
    assert sum(name != b"host" for name, _ in framing) <= 1, framing
    assert sum(name == b"host" for name, _ in framing) <= 1, framing
    for name, value in framing:
        assert name != b"content-length" or re.fullmatch(rb"[0-9]+", value), value
        assert name != b"transfer-encoding" or value.lower() == b"chunked", value


def _plain(data: bytes) -> object:
    """The parser as it comes."""
    return _judged(data, lambda _begins: ReceiveBuffer())


class _OfOnePiece(StrictBuffer):
    """Checks only what comes whole."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        if self._data.endswith(b"\r\n\r\n"):
            return super().maybe_extract_lines()
        return ReceiveBuffer.maybe_extract_lines(self)


FAULTS = {
    "a parser that takes more": _plain,
    "a check of what comes in one piece only": lambda data: _judged(data, _OfOnePiece),
}
