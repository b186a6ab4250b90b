"""Reading a tar stream that a stranger wrote: every length, count and map in it is bounded before it is worked on.

Formats: ustar, GNU (long names, old sparse), pax (also GNU's sparse 0.0, 0.1 and 1.0). Global pax headers are skipped.
Python's tarfile reads what is said to be a header into memory at whatever length, and goes one call deeper for each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["file", "directory", "link", "symlink", "device", "pipe", "other"]
Extents = tuple[tuple[int, int], ...]
"""Offset and length of each piece of a file that is sent; the rest are holes."""

BLOCK: Final = 512
MAX_HEADER: Final = 2 << 20
"""The longest extended header, in bytes; the map of a file with many holes is the longest honest one."""
MAX_HEADERS: Final = 256 << 20
"""All extended headers of one archive together, in bytes."""
MAX_IN_A_ROW: Final = 16
"""How many extended headers one entry may have."""
MAX_EXTENTS: Final = 65_536
MAX_SIZE: Final = 1 << 44
"""The largest file, in bytes with its holes."""
MAX_NAME: Final = 4096
MAX_TRAILING: Final = 64 << 20
"""How much may follow the end of the archive: tar fills its last record."""
_CHUNK: Final = 64 << 10
_KINDS: Final[dict[bytes, Kind]] = {b"0": "file", b"\0": "file", b"7": "file", b"S": "file", b"1": "link",
    b"2": "symlink", b"3": "device", b"4": "device", b"5": "directory", b"6": "pipe"}  # fmt: skip
_BARE: Final = b"12346"
"""Types that have no contents, whatever size they tell."""


class BrokenArchive(ValueError):
    """The stream is no archive that we read; nothing more is known of it."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """One entry. `size` is with holes; `stored` is what the stream holds of it, in the pieces of `extents`."""

    name: str
    kind: Kind
    linkname: str
    mode: int
    size: int
    stored: int
    extents: Extents


class TarReader:
    """An archive, read from front to back. `read(n)` gives at most n bytes, and none at the end.

    Everything raises BrokenArchive for what cannot be read."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._left = 0  # of the entry's contents
        self._padding = 0
        self._extents: Extents = ()
        self._headers = 0
        self.count = 0

    def members(self) -> Iterator[TarMember]:
        """Each entry; contents that were not asked for are passed over."""
        while True:
            self._pass(self._left + self._padding)
            self._left = self._padding = 0
            member = self._next()
            if member is None:
                return
            self.count += 1
            yield member

    def contents(self) -> Iterator[tuple[int, bytes]]:
        """The pieces of the entry's contents, none across a multiple of 64 KiB: offset in the file, bytes."""
        for offset, length in self._extents:
            at, end = offset, offset + length
            while at < end:
                data = self._exactly(min(_CHUNK - at % _CHUNK, end - at))
                self._left -= len(data)
                yield at, data
                at += len(data)

    def drain(self) -> None:
        """Read what follows the end."""
        rest = 0
        while data := self._read(_CHUNK):
            rest += len(data)
            if rest > MAX_TRAILING:
                raise BrokenArchive("it goes on after its end")

    def _next(self) -> TarMember | None:
        extended: list[tuple[bytes, bytes]] = []
        for _ in range(MAX_IN_A_ROW):
            block = self._exactly(BLOCK, may_end=not extended)
            if not block or block.count(0) == BLOCK:
                if extended:
                    raise BrokenArchive("a header describes nothing")
                return None
            _check(block)
            kind, size = block[156:157], _number(block[124:136])
            if kind not in b"LKxgX" or not kind:
                return self._entry(block, kind, size, extended)
            data = self._header(size)
            if kind in b"LK":
                extended.append((b"path" if kind == b"L" else b"linkpath", data.split(b"\0", 1)[0]))
            elif kind != b"g":
                extended += _records(data)
        raise BrokenArchive(f"an entry has more than {MAX_IN_A_ROW} headers")

    def _header(self, size: int) -> bytes:
        self._headers += size
        if size > MAX_HEADER or self._headers > MAX_HEADERS:
            raise BrokenArchive("its headers are too long")
        data = self._exactly(size)
        self._pass(-size % BLOCK)
        return data

    def _entry(self, block: bytes, kind: bytes, size: int, extended: list[tuple[bytes, bytes]]) -> TarMember:
        told = dict(extended)
        name = told.get(b"GNU.sparse.name") or told.get(b"path") or _own_name(block)
        linkname = told.get(b"linkpath") or block[157:257].split(b"\0", 1)[0]
        if max(len(name), len(linkname)) > MAX_NAME:
            raise BrokenArchive("a name is too long")
        size = _decimal(told[b"size"]) if b"size" in told else size
        what = _KINDS.get(kind, "other")
        if what == "file" and kind == b"\0" and name.endswith(b"/"):
            what = "directory"
        stored = 0 if kind in _BARE or kind == b"5" else size
        self._left, self._padding, self._extents = stored, -stored % BLOCK, ((0, stored),) if stored else ()
        whole = stored
        if kind == b"S":
            whole, self._extents = _number(block[483:495]), self._old_map(block)
        elif what == "file" and any(key.startswith(b"GNU.sparse.") for key in told):
            whole, self._extents = self._pax_map(told, extended)
        if whole > MAX_SIZE:
            raise BrokenArchive("a file is too large")
        if kind == b"S" or self._extents != (((0, stored),) if stored else ()):
            _check_map(self._extents, whole=whole, stored=self._left)
        return TarMember(
            name=os.fsdecode(name),
            kind=what,
            linkname=os.fsdecode(linkname),
            mode=_number(block[100:108]) & 0o7777,
            size=whole,
            stored=self._left,
            extents=self._extents,
        )

    def _old_map(self, block: bytes) -> Extents:
        found = _pairs(block[386:482], 4)
        more = block[482]
        while more:
            block = self._exactly(BLOCK)
            found += _pairs(block, 21)
            more = block[504]
            if len(found) > MAX_EXTENTS:
                raise BrokenArchive("a file has too many holes")
        return tuple(found)

    def _pax_map(self, told: dict[bytes, bytes], records: list[tuple[bytes, bytes]]) -> tuple[int, Extents]:
        if told.get(b"GNU.sparse.major") == b"1":
            return _decimal(told.get(b"GNU.sparse.realsize", b"")), self._map_in_contents()
        whole = _decimal(told.get(b"GNU.sparse.size", b""))
        numbers = told.get(b"GNU.sparse.map")
        if numbers is not None:
            flat = numbers.split(b",") if numbers else []
        else:
            flat = [value for key, value in records if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes")]
        if len(flat) > 2 * MAX_EXTENTS or len(flat) % 2:
            raise BrokenArchive("a file has too many holes")
        return whole, tuple((_decimal(flat[at]), _decimal(flat[at + 1])) for at in range(0, len(flat), 2))

    def _map_in_contents(self) -> Extents:
        """The map of GNU's sparse 1.0: decimal lines before the contents, in whole blocks."""
        text, lines, wanted = b"", list[bytes](), 1
        while len(lines) < wanted:
            if self._left < BLOCK:
                raise BrokenArchive("a map of holes is cut off")
            *more, text = (text + self._exactly(BLOCK)).split(b"\n")
            self._left -= BLOCK
            lines += more
            if lines:
                wanted = 1 + 2 * _decimal(lines[0])
            if wanted > 1 + 2 * MAX_EXTENTS:
                raise BrokenArchive("a file has too many holes")
            if len(lines) < wanted and len(text) > 20:
                raise BrokenArchive("a map of holes makes no sense")
        numbers = [_decimal(line) for line in lines[1:wanted]]
        return tuple(zip(numbers[::2], numbers[1::2], strict=True))

    def _exactly(self, size: int, *, may_end: bool = False) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = self._read(min(_CHUNK, size - len(data)))
            if not more:
                if may_end and not data:
                    return b""
                raise BrokenArchive("it ends in the middle")
            data += more
        return bytes(data)

    def _pass(self, size: int) -> None:
        while size:
            data = self._read(min(_CHUNK, size))
            if not data:
                raise BrokenArchive("it ends in the middle")
            size -= len(data)


def _check(block: bytes) -> None:
    told = _number(block[148:156])
    unsigned = sum(block) - sum(block[148:156]) + 8 * 32
    if told == unsigned:
        return
    # some old programs summed signed characters
    if told != unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:]):
        raise BrokenArchive("a header is damaged")


def _number(field: bytes) -> int:
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
    elif field[0] & 0x80:
        raise BrokenArchive("a number makes no sense")
    else:
        digits = field.split(b"\0", 1)[0].strip(b" ")
        if not set(digits) <= set(b"01234567"):
            raise BrokenArchive("a number makes no sense")
        value = int(digits or b"0", 8)
    if value >= 1 << 62:
        raise BrokenArchive("a number is too large")
    return value


def _decimal(text: bytes) -> int:
    if not 0 < len(text) <= 18 or not text.isdigit():
        raise BrokenArchive("a number makes no sense")
    return int(text)


def _own_name(block: bytes) -> bytes:
    name, prefix = block[:100].split(b"\0", 1)[0], block[345:500].split(b"\0", 1)[0]
    return prefix + b"/" + name if block[257:263] == b"ustar\0" and prefix else name


def _records(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 0
    while at < len(data) and data[at]:
        space = data.find(b" ", at, at + 20)
        length = _decimal(data[at:space]) if space > 0 else 0
        end = at + length
        record = data[space + 1 : end]
        if length < 5 or end > len(data) or end <= space or not record.endswith(b"\n"):
            raise BrokenArchive("a header makes no sense")
        key, equals, value = record[:-1].partition(b"=")
        if not equals:
            raise BrokenArchive("a header makes no sense")
        found.append((key, value))
        at = end
    return found


def _pairs(field: bytes, count: int) -> list[tuple[int, int]]:
    found = []
    for at in range(0, 24 * count, 24):
        if not field[at]:
            break
        found.append((_number(field[at : at + 12]), _number(field[at + 12 : at + 24])))
    return found


def _check_map(extents: Extents, *, whole: int, stored: int) -> None:
    end = 0
    for offset, length in extents:
        if offset < end:
            raise BrokenArchive("a map of holes makes no sense")
        end = offset + length
    if end > whole or sum(length for _, length in extents) != stored:
        raise BrokenArchive("a map of holes makes no sense")
