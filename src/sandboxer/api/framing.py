"""What the head of a request may look like, stricter than the parser: whatever two readers could understand differently
(a proxy before us, and we) is refused, and the connection with it (RFC 9112 §2.2, §3, §5, §6.1, §6.3).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

import h11
from h11._receivebuffer import ReceiveBuffer

MAX_HEAD: Final = 16 * 1024
"""The longest head of a request, and the longest trailer of a body, in bytes."""
MAX_LINES: Final = 100
"""The most lines in one."""
MAX_CHUNK_LINE: Final = 256
"""The longest line before a chunk of a body: its size, and extensions that nobody reads."""
TOO_LARGE: Final = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
_FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_REQUEST: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64} (/[\x21-\x7e]*) HTTP/1\.[01]")
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")


class MalformedHead(h11.LocalProtocolError):
    """A head that is not taken. The parser makes a RemoteProtocolError of it."""


class StrictBuffer(ReceiveBuffer):
    """The parser's buffer. It gives out heads, trailers and the lines before chunks, and so sees each of them whole, as
    they were sent, also those of requests that follow one another in one packet. `begins` says whether the next lines
    are the head of a request; else they are the trailer of a body."""

    def __init__(self, begins: Callable[[], bool]) -> None:
        super().__init__()
        self._begins = begins

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """The lines of a head, checked. Raises Refused."""
        before = bytes(self._data[: MAX_HEAD + 4])
        held = len(self._data)
        lines = super().maybe_extract_lines()
        if lines is None:
            if _FORBIDDEN.search(before.replace(b"\r\n", b"").removesuffix(b"\r")):
                raise MalformedHead("a control character in the head")
            if held > MAX_HEAD:
                raise MalformedHead("the head is too long", error_status_hint=TOO_LARGE)
            return None
        check(before, length=held - len(self._data), trailer=not self._begins())
        return lines

    def maybe_extract_next_line(self) -> bytearray | None:
        """The line before a chunk, checked. Raises Refused."""
        line = super().maybe_extract_next_line()
        if len(self._data if line is None else line) > MAX_CHUNK_LINE:
            raise MalformedHead("the line before a chunk is too long")
        return line


def check(data: bytes, *, length: int, trailer: bool = False) -> None:
    """Raise Refused for the head, with the empty line that ends it, in the first `length` bytes of `data`."""
    if length > MAX_HEAD:
        raise MalformedHead("the head is too long", error_status_hint=TOO_LARGE)
    lines = data[:length].split(b"\r\n")
    if any(_FORBIDDEN.search(line) for line in lines):
        raise MalformedHead("a control character in the head, or a line that does not end with CR LF")
    fields = [line for line in lines if line]
    if len(fields) > MAX_LINES:
        raise MalformedHead("too many header lines", error_status_hint=TOO_LARGE)
    if not trailer:
        if not fields or not _REQUEST.fullmatch(fields[0]):
            raise MalformedHead("not a request for a path, by HTTP/1.0 or HTTP/1.1")
        _check_framing(fields[1:], old=fields[0].endswith(b"0"))
    elif any(_named(line) in (b"content-length", b"transfer-encoding", b"host", b"authorization") for line in fields):
        raise MalformedHead("a header that does not belong behind the body")


def _check_framing(fields: Sequence[bytes], *, old: bool) -> None:
    """Where the body ends has to be the same for everybody who reads it."""
    names = [_named(line) for line in fields]
    lengths = [line.partition(b":")[2].strip(b" \t") for line in fields if _named(line) == b"content-length"]
    codings = [line.partition(b":")[2].strip(b" \t") for line in fields if _named(line) == b"transfer-encoding"]
    if names.count(b"host") > 1:
        raise MalformedHead("more than one Host")
    if lengths and codings:
        raise MalformedHead("both Content-Length and Transfer-Encoding")
    if len(lengths) > 1 or any(not _LENGTH.fullmatch(length) for length in lengths):
        raise MalformedHead("a Content-Length that is not one number")
    if len(codings) > 1 or any(old or coding.lower() != b"chunked" for coding in codings):
        raise MalformedHead("a Transfer-Encoding other than chunked")


def _named(line: bytes) -> bytes:
    """The name of a header, in lower case. Raises Refused for a folded line, and for a blank before the colon."""
    name, colon, _ = line.partition(b":")
    if not colon or not _NAME.fullmatch(name):
        raise MalformedHead("a line that is no header")
    return name.lower()
