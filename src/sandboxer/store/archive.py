"""Where ended records go: `archive/YYYY-MM.jsonl`, one record a line, by the month in which it was destroyed.

Only ever appended to, under the store's lock, and before the records leave the document; so after a crash a record
may be in both (the document wins) or twice in here (the last line wins), but never nowhere. Events that could not
stay in the document are kept in `archive/events.jsonl`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sandboxer.errors import StoreCorrupt
from sandboxer.names import ID
from sandboxer.store import codec, private_files
from sandboxer.timing import rfc3339

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxer.models import Consumer, RecordSummary, Sandbox

_EVENTS = "events.jsonl"
_MONTH = re.compile(r"\d{4}-\d{2}\.jsonl")
_IDS = re.compile(rb'^\{"id":("[^"\\]*")', re.MULTILINE)
_KEYS = re.compile(rb'"idempotency_key":("(?:[^"\\]|\\.)*")')
"""What is looked for in the archive again and again, as records have it; other texts may look like it."""
_START = b'{"id":"'
_Version = tuple[int, int, int, int]


class ArchivedLine(NamedTuple):
    """A record of the archive of which its summary alone is decoded."""

    summary: RecordSummary
    line: bytes
    path: Path

    def record(self) -> Sandbox:
        """All of it; raises StoreCorrupt."""
        return codec.decode_sandbox(self.line, self.path)


class Archive:
    """The files of one archive directory. Reading needs no lock; raises StoreCorrupt, Denied and Unavailable."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._indexes: dict[tuple[Path, re.Pattern[bytes]], tuple[_Version, frozenset[bytes] | None]] = {}

    def append(self, lines: Iterable[bytes]) -> None:
        """Make these ended records durable here. Raises OSError, with nothing half-written where it can be helped."""
        by_month: dict[str, list[bytes]] = {}
        for line in lines:
            record = codec.decode_sandbox(line, self._directory)
            by_month.setdefault(_month(record), []).append(line)
        for month, ended in by_month.items():
            self._append(self._directory / f"{month}.jsonl", ended)

    def append_events(self, lines: Iterable[bytes]) -> None:
        """Make these events durable here. Raises OSError, as `append` does."""
        self._append(self._directory / _EVENTS, lines)

    def append_credits(self, month: str, lines: Iterable[bytes]) -> None:
        """Make these entries of the credits' book durable here, in a file of their month (`2027-01`). Raises OSError,
        as `append` does."""
        self._append(self._directory / f"credits-{month}.jsonl", lines)

    def get(self, sandbox_id: str) -> Sandbox | None:
        """The record with this id."""
        sought = (_IDS, codec.quoted(sandbox_id)) if ID.fullmatch(sandbox_id) else None
        found = self._search(b'{"id":' + codec.quoted(sandbox_id), sought)
        return next((record for record in found if record.id == sandbox_id), None)

    def starting_with(self, prefix: str) -> dict[str, Sandbox]:
        """The records whose id starts with `prefix`, by id."""
        found: dict[str, Sandbox] = {}
        for record in self._search(b'{"id":' + codec.quoted(prefix)[:-1]):
            found.setdefault(record.id, record)
        return found

    def by_idempotency_key(self, key: str, *, consumer: Consumer | None = None) -> Sandbox | None:
        """The newest record that was created with this key (by `consumer`, when that is given)."""
        found = self._search(codec.field("idempotency_key", key), (_KEYS, codec.quoted(key)))
        fits = (record for record in found if record.idempotency_key == key)
        return next((record for record in fits if consumer in (None, record.consumer)), None)

    def summaries(self, *, name: str | None = None, without: Container[str] = ()) -> Iterator[ArchivedLine]:
        """Every record, as its newest line has it, but those with an id in `without`; with `name` those alone that have
        it. What a record holds besides is not decoded."""
        needle = b"" if name is None else codec.field("name", name)
        seen: set[str] = set()
        for path in self._months():
            lines = private_files.read_file(path).split(b"\n")
            if lines[-1] and _decode(lines[-1], path) is None:
                lines.pop()  # a crash cut it short
            for line in reversed(lines):
                begins = _id_of(line)
                if not line or begins in seen or begins in without:
                    continue
                if begins is not None and needle not in line:
                    seen.add(begins)  # what an older line says of it does not hold
                    continue
                summary = codec.decode_summary(line, path)
                if summary.id not in seen and summary.id not in without and name in (None, summary.name):
                    yield ArchivedLine(summary, line, path)
                seen.add(summary.id)

    def _search(self, needle: bytes, sought: tuple[re.Pattern[bytes], bytes] | None = None) -> Iterator[Sandbox]:
        """Records whose line has these bytes (`{` first: starts with them), the newest month and line first; `sought`
        when only those are of interest in which a pattern finds this value.

        A search for bytes, because decoding every record that ever was takes a hundred times as long."""
        at_start = needle.startswith(b"{")
        for path in self._months():
            if sought is not None and not self._may_have(path, *sought):
                continue
            for line in reversed(list(_lines_with(private_files.read_file(path), needle))):
                if at_start and not line.startswith(needle):
                    continue
                record = _decode(line, path)
                if record is not None:
                    yield record

    def _may_have(self, path: Path, pattern: re.Pattern[bytes], value: bytes) -> bool:
        """Whether a file is worth a search. Whoever asks of the same file again is likely to go on: a server asks with
        each create, under the store's lock. Then what the pattern finds is kept, as long as the file is as it was."""
        try:
            status = path.stat()
        except OSError:
            return True  # reading it says what is wrong
        version = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known, values = self._indexes.get((path, pattern), (None, None))
        if known != version:
            self._indexes[path, pattern] = version, None
            return True
        if values is None:
            values = frozenset(pattern.findall(private_files.read_file(path)))
            self._indexes[path, pattern] = version, values
        return value in values

    def _months(self) -> list[Path]:
        """The files, newest first. Not by `glob`, which takes a directory that it may not read for an empty one."""
        with private_files.refusals("read", self._directory):
            try:
                found = [path for path in self._directory.iterdir() if _MONTH.fullmatch(path.name)]
            except FileNotFoundError:
                return []
        return sorted(found, reverse=True)

    def _append(self, path: Path, lines: Iterable[bytes]) -> None:
        private_files.ensure_directory(self._directory)
        descriptor = private_files.open_private(path, os.O_RDWR)
        try:
            size = _mend(descriptor)
            try:
                os.lseek(descriptor, size, os.SEEK_SET)
                private_files.write_all(descriptor, b"".join(line + b"\n" for line in lines))
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            private_files.close(descriptor)
        private_files.flush_directory(self._directory)
        private_files.flush_directory(self._directory.parent)


def _id_of(line: bytes) -> str | None:
    """The id with which a line starts, as ours do; None for one that is written in another way."""
    if not line.startswith(_START):
        return None
    return line[len(_START) : line.find(b'"', len(_START))].decode(errors="replace")


def _month(record: Sandbox) -> str:
    ended = record.created_at if record.destroyed_at is None else record.destroyed_at
    return str(rfc3339(min(max(ended, 0.0), codec.LAST_INSTANT)))[:7]


def _lines_with(data: bytes, needle: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(data):
        found = data.find(needle, position)
        if found < 0:
            return
        start = data.rfind(b"\n", position, found) + 1 or position
        end = data.find(b"\n", found)
        if end < 0:
            yield data[start:]
            return
        yield data[start : end + 1]
        position = end + 1


def _decode(line: bytes, path: Path) -> Sandbox | None:
    """A record of an archive; None for a last line that a crash cut short: its record is still in the document."""
    try:
        return codec.decode_sandbox(line, path)
    except StoreCorrupt:
        if line.endswith(b"\n"):
            raise
        return None


def _mend(descriptor: int) -> int:
    """The size up to which the file is good; ends a last line that lacks its end, and takes away one cut short."""
    data = private_files.read_all(descriptor)
    whole = data.rfind(b"\n") + 1
    if whole == len(data):
        return whole
    try:
        msgspec.json.decode(data[whole:])
    except codec.UNREADABLE:
        os.ftruncate(descriptor, whole)
        return whole
    os.lseek(descriptor, len(data), os.SEEK_SET)
    private_files.write_all(descriptor, b"\n")
    return len(data) + 1
