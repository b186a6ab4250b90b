"""Find where the requests of a connection begin and end, more strictly than any parser does.

Whatever two readers could understand differently (a proxy before us, and we) is refused, and the connection with it
(RFC 9112 §2.2, §3, §5, §6, §7.1). The server's own parser is given only what has passed here, one request at a time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto
from http import HTTPStatus
from typing import Final

MAX_HEAD: Final = 16 * 1024
"""The longest head of a request, and the longest trailer of a body, in bytes."""
MAX_LINES: Final = 100
"""The most lines in one."""
MAX_CHUNK_LINE: Final = 256
"""The longest line before a chunk of a body: its size, and extensions that nobody reads."""
_FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_REQUEST: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64} (/[\x21-\x7e]*) HTTP/1\.[01]")
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?[ \t]*")


class MalformedRequest(Exception):
    """Bytes that are not taken for a request, and the HTTP status that says so."""

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status


class Part(Enum):
    """Which part of a request comes next."""

    HEAD = auto()
    BODY = auto()
    CHUNK_LINE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILER = auto()
    END = auto()


class RequestFraming:
    """The state of one connection: give it what arrives, and it gives back what has passed.

    At the end of a request it keeps what follows until `begin_next`."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._left = 0
        self.part = Part.HEAD

    @property
    def in_head(self) -> bool:
        """Whether the head of a request, or its rest, comes next."""
        return self.part is Part.HEAD

    @property
    def complete(self) -> bool:
        """Whether a whole request has passed."""
        return self.part is Part.END

    @property
    def holds(self) -> bool:
        """Whether something has arrived that did not pass yet."""
        return bool(self._waiting)

    def begin_next(self) -> None:
        """Read the next request; the one before has been answered."""
        self.part = Part.HEAD

    def feed(self, data: bytes) -> bytes:
        """What of the present request has passed, now that `data` has arrived. Raises MalformedRequest."""
        self._waiting += data
        passed = bytearray()
        while self.part is not Part.END:
            part = self._next_part()
            if part is None:
                break
            passed += part
        return bytes(passed)

    def _next_part(self) -> bytes | None:
        """The next part that is there; None while it is not."""
        match self.part:
            case Part.HEAD:
                return self._head()
            case Part.BODY | Part.CHUNK:
                return self._content()
            case Part.CHUNK_LINE:
                return self._chunk_line()
            case Part.CHUNK_END:
                return self._chunk_end()
            case _:
                return self._trailer()

    def _take(self, length: int, following: Part) -> bytes:
        taken = bytes(self._waiting[:length])
        del self._waiting[:length]
        self.part = following
        return taken

    def _head(self) -> bytes | None:
        length = self._lines_end()
        if length is None:
            return None
        size = check_head(bytes(self._waiting[:length]))
        if size is None:
            return self._take(length, Part.CHUNK_LINE)
        self._left = size
        return self._take(length, Part.BODY if size else Part.END)

    def _trailer(self) -> bytes | None:
        if self._waiting.startswith(b"\r\n"):
            return self._take(2, Part.END)
        length = self._lines_end()
        if length is None:
            return None
        check_trailer(bytes(self._waiting[:length]))
        return self._take(length, Part.END)

    def _lines_end(self) -> int | None:
        """Where the lines end that stand at the beginning, with the empty one behind them. Raises MalformedRequest also
        for what cannot become a head any more."""
        end = self._waiting.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end >= 0:
            return end + 4
        if _FORBIDDEN.search(bytes(self._waiting[:MAX_HEAD]).removesuffix(b"\r").replace(b"\r\n", b"")):
            raise MalformedRequest("a control character in the head, or a line that does not end with CR LF")
        if len(self._waiting) >= MAX_HEAD:
            raise MalformedRequest("the head is too long", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        return None

    def _content(self) -> bytes | None:
        if not self._waiting:
            return None
        length = min(self._left, len(self._waiting))
        self._left -= length
        after = Part.END if self.part is Part.BODY else Part.CHUNK_END
        return self._take(length, self.part if self._left else after)

    def _chunk_line(self) -> bytes | None:
        end = self._waiting.find(b"\r\n", 0, MAX_CHUNK_LINE)
        line = bytes(self._waiting[: MAX_CHUNK_LINE if end < 0 else end])
        if end < 0 and len(line) < MAX_CHUNK_LINE and not _FORBIDDEN.search(line.removesuffix(b"\r")):
            return None
        found = _CHUNK.fullmatch(line)
        if end < 0 or found is None:
            raise MalformedRequest("a line before a chunk that is not its size")
        self._left = int(found[1], 16)
        return self._take(end + 2, Part.CHUNK if self._left else Part.TRAILER)

    def _chunk_end(self) -> bytes | None:
        if not b"\r\n".startswith(bytes(self._waiting[:2])):
            raise MalformedRequest("a chunk that is longer than it says")
        return self._take(2, Part.CHUNK_LINE) if len(self._waiting) >= 2 else None


def check_head(head: bytes) -> int | None:
    """How long the body is that belongs to a head, or None for one in chunks. Raises MalformedRequest."""
    fields = _lines(head)
    if not fields or not _REQUEST.fullmatch(fields[0]):
        raise MalformedRequest("not a request for a path, by HTTP/1.0 or HTTP/1.1")
    old = fields[0].endswith(b"0")
    named = [(_named(line), line.partition(b":")[2].strip(b" \t")) for line in fields[1:]]
    hosts = sum(name == b"host" for name, _ in named)
    if hosts > 1 or (hosts == 0 and not old):
        raise MalformedRequest("not exactly one Host")
    lengths = [value for name, value in named if name == b"content-length"]
    codings = [value for name, value in named if name == b"transfer-encoding"]
    return _body_length(lengths, codings, old=old)


def _body_length(lengths: Sequence[bytes], codings: Sequence[bytes], *, old: bool) -> int | None:
    """Where the body ends has to be the same for everybody who reads it."""
    if lengths and codings:
        raise MalformedRequest("both Content-Length and Transfer-Encoding")
    if len(lengths) > 1 or any(not _LENGTH.fullmatch(length) for length in lengths):
        raise MalformedRequest("a Content-Length that is not one number")
    if len(codings) > 1 or any(old or coding.lower() != b"chunked" for coding in codings):
        raise MalformedRequest("a Transfer-Encoding other than chunked")
    if codings:
        return None
    return int(lengths[0]) if lengths else 0


def check_trailer(trailer: bytes) -> None:
    """Raise MalformedRequest for what does not belong behind a body."""
    framing = (b"content-length", b"transfer-encoding", b"host", b"authorization")
    if any(_named(line) in framing for line in _lines(trailer)):
        raise MalformedRequest("a header that does not belong behind the body")


def _lines(block: bytes) -> list[bytes]:
    """The lines of a block, with the empty one behind them."""
    lines = block[:-4].split(b"\r\n")
    if any(_FORBIDDEN.search(line) for line in lines):
        raise MalformedRequest("a control character in the head, or a line that does not end with CR LF")
    if len(lines) > MAX_LINES:
        raise MalformedRequest("too many header lines", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    return lines


def _named(line: bytes) -> bytes:
    """The name of a header, in lower case. Raises MalformedRequest for a folded line, and for a blank before the
    colon."""
    name, colon, _ = line.partition(b":")
    if not colon or not _NAME.fullmatch(name):
        raise MalformedRequest("a line that is no header")
    return name.lower()
