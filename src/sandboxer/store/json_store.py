"""The default store: JSON documents in one directory, for one operator with any number of processes.

A change is decided under the lock and written as one new `sandboxes.json`, which holds the records and the events
that tell of them; the changes of threads that come at once share one write (`group_commit`). Readers take the file as
it is, and keep what they parsed until it changes.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sandboxer.errors import Conflict, Denied, Internal, StoreCorrupt, Unavailable
from sandboxer.models import Consumer, Event, Sandbox
from sandboxer.state import State
from sandboxer.store import codec, outbox, private_files
from sandboxer.store.archive import Archive, ArchivedLine
from sandboxer.store.base import OtherRecords, Predicate, Store, UpdateFn, holds_name
from sandboxer.store.codec import Content
from sandboxer.store.document import AtomicDocument
from sandboxer.store.group_commit import GroupCommit
from sandboxer.store.parse_cache import ParseCache
from sandboxer.store.private_files import DOCTOR
from sandboxer.timing import now, rfc3339

if TYPE_CHECKING:
    from pathlib import Path

ENDED_KEPT = 64
"""How many ended records stay in the document; with one more, all of them move to the archive."""

_MIN_PREFIX = 4
_ENDED = b'"state":"destroyed"'


class JsonStore(Store):
    """Records and outbox in `directory/sandboxes.json`; see `codec` for its form and `document` for its writing.

    Only a missing file is an empty store. Raises Denied where the operating system refuses this user."""

    def __init__(self, directory: Path, *, document: AtomicDocument | None = None) -> None:
        self._path = directory / "sandboxes.json"
        self._document = document or AtomicDocument(self._path)
        self._commits = GroupCommit(self._document, read=self._draft, write=self._commit)
        self._identity = AtomicDocument(directory / "install")
        self._archive = Archive(directory / "archive")
        self._install: str | None = None
        self._parsed = ParseCache(self._document, self._parse)

    @property
    def install_id(self) -> str:
        """The random id of this installation; kept in a file of its own, so that it survives a lost store."""
        if self._install is None:
            self._install = self._read_install()
        if self._install is None:
            with self._document.locked():
                self._settle_install(self._content())
        return str(self._install)

    def get(self, sandbox_id: str) -> Sandbox | None:
        line = self._content().records.get(sandbox_id)
        if line is not None:
            return self._decode(sandbox_id, line)
        return self._archive.get(sandbox_id)

    def others(self) -> OtherRecords:
        return _Others(self, self._content(), without=None)

    def find(self, text: str) -> Sequence[Sandbox]:
        content = self._content()
        if text in content.records:
            return [self._decode(text, content.records[text])]
        others = _Others(self, content, without=None)
        named = others.by_name(text)
        found = {} if named is None else {named.id: named}
        if len(text) < _MIN_PREFIX:
            return list(found.values())
        found |= {key: self._decode(key, line) for key, line in content.records.items() if key.startswith(text)}
        return _oldest_first((found or self._archive.starting_with(text)).values())

    def list(
        self, *, ended: bool = False, name: str | None = None, only: Predicate | None = None, limit: int | None = None
    ) -> Sequence[Sandbox]:
        content = self._content()
        needle = b"" if name is None else codec.field("name", name)
        there = (self._decode(key, line) for key, line in content.records.items() if needle in line)
        live = (record for record in there if ended or record.state != State.DESTROYED)
        found: builtins.list[Sandbox | ArchivedLine] = [
            record for record in live if name in (None, record.name) and (only is None or only(record))
        ]
        if ended:
            archived = self._archive.summaries(name=name, without=content.records)
            found += (one for one in archived if only is None or only(one.summary))
        chosen = sorted(found, key=_place)[:limit]
        return [one.record() if isinstance(one, ArchivedLine) else one for one in chosen]

    def update(self, sandbox_id: str, fn: UpdateFn, *, must_succeed: bool = False) -> Sandbox | None:
        def decide(draft: _Draft) -> tuple[_Draft, Sandbox | None]:
            content = draft.content
            line = content.records.get(sandbox_id)
            current = self._archive.get(sandbox_id) if line is None else self._decode(sandbox_id, line)
            change = fn(current, _Others(self, content, without=sandbox_id))
            if change.record is None and not change.events:
                return draft, current
            records, stored = content.records, current
            if change.record is not None:
                if change.record.id != sandbox_id:
                    raise Internal(f"an update of {sandbox_id!r} gave a record with the id {change.record.id!r}")
                line = codec.encode_sandbox(change.record)
                records = {**records, sandbox_id: line}
                stored = self._decode(sandbox_id, line)
            lines = [*content.outbox, *map(codec.encode_event, change.events)]
            ended = stored is not None and stored.state == State.DESTROYED
            return draft.with_content(records=records, outbox=lines, ended=ended), stored

        return self._commits.change(decide, must_succeed=must_succeed)

    def events(self, *, limit: int | None = None) -> Sequence[Event]:
        lines = self._content().outbox
        chosen = lines if limit is None else lines[max(0, len(lines) - limit) :]
        return [codec.decode_event(line, self._path) for line in chosen]

    def settle_events(self, settled: Iterable[Event]) -> None:
        news = list(settled)
        if not news:
            return

        def decide(draft: _Draft) -> tuple[_Draft, None]:
            lines = outbox.settled(draft.content.outbox, news, self._path)
            if lines == draft.content.outbox:
                return draft, None
            return draft.with_content(records=draft.content.records, outbox=lines), None

        self._commits.change(decide)

    def set_aside(self) -> Path:
        """Move a document that cannot be read out of the way, as it is; returns where to. The store is empty then.

        Only for a person who asked for it (`doctor --repair`). Raises Conflict when the document can be read, when
        there is none, and when a newer sandboxer wrote it: that one can read it."""
        with self._document.locked():
            try:
                self.list()
                self.events()
            except StoreCorrupt as error:
                if error.details is not None:
                    raise Conflict(error.message, hint="upgrade sandboxer") from error
                aside = self._path.with_name(f"{self._path.name}.unreadable-{rfc3339(now())}")
                with private_files.refusals("move", self._path):
                    self._path.rename(aside)
                    private_files.flush_directory(self._path.parent)
                return aside
            raise Conflict(f"{self._path} can be read, or is not there", hint="run `sandboxer doctor`")

    # -- reading ----------------------------------------------------------------------------------------------

    def _content(self) -> Content:
        """The document as it is now; parsed again only when it has changed."""
        return self._parsed.read() or Content(install="", revision=0, records={}, outbox=[])

    def _parse(self, data: bytes) -> Content:
        content = codec.parse(data, self._path)
        self._check_install(content)
        return content

    def _decode(self, sandbox_id: str, line: bytes) -> Sandbox:
        return codec.decode_sandbox(line, self._path, sandbox_id=sandbox_id)

    # -- whose it is ------------------------------------------------------------------------------------------

    def _read_install(self) -> str | None:
        reading = self._identity.read()
        if reading is None:
            return None
        text = (reading.data or b"").decode(errors="replace").strip()
        if not (text.isascii() and text.isalnum() and len(text) <= 64):
            raise StoreCorrupt(
                f"{self._identity.path} does not hold the id of an installation",
                hint=f"the value of `install` in {self._path.name} belongs there, or {DOCTOR}",
            )
        return text

    def _check_install(self, content: Content) -> None:
        if self._install is None:
            self._install = self._read_install()
        if self._install is not None and content.install != self._install:
            raise StoreCorrupt(
                f"{self._path} belongs to another installation ({content.install!r}; this one is {self._install!r})",
                hint=DOCTOR,
            )

    def _settle_install(self, content: Content) -> Content:
        """`content` with an installation's id, which is durable before anything carries it. Under the lock."""
        on_disk = self._read_install()
        if on_disk is None:
            on_disk = content.install or os.urandom(8).hex()
            self._identity.replace(on_disk.encode() + b"\n")
        self._install = on_disk
        if content.install:
            self._check_install(content)
            return content
        return msgspec.structs.replace(content, install=on_disk)

    # -- writing, under the lock ------------------------------------------------------------------------------

    def _draft(self) -> _Draft:
        return _Draft(self._settle_install(self._content()))

    def _commit(self, _before: _Draft, after: _Draft, must_succeed: bool) -> None:
        written = self._write(after.content, must_succeed=must_succeed)
        if after.ended:
            self._archive_ended(written)

    def _write(self, content: Content, *, must_succeed: bool = False) -> Content:
        """Write `content` as the next revision of what it was made of."""
        lines = outbox.trimmed(self._without_overflow(content.outbox))
        new = msgspec.structs.replace(content, revision=content.revision + 1, outbox=lines)
        self._parsed.replace(new, codec.render(new), must_succeed=must_succeed)
        return new

    def _without_overflow(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        """`lines` with those that have waited longest parked, when too many wait; the archive has them before."""
        positions = outbox.overflow(lines)
        if not positions:
            return lines
        try:
            self._archive.append_events([lines[position] for position in positions])
        except OSError:  # then they go on waiting in the document
            return lines
        return outbox.parked(lines, positions, self._path)

    def _archive_ended(self, content: Content) -> None:
        """Move the ended records to the archive when there are many. What fails here is tried again next time."""
        maybe = {key: line for key, line in content.records.items() if _ENDED in line}
        if len(maybe) <= ENDED_KEPT:
            return
        with suppress(OSError, Unavailable, Denied, StoreCorrupt):
            ended = {key: line for key, line in maybe.items() if self._decode(key, line).state == State.DESTROYED}
            if len(ended) <= ENDED_KEPT:
                return
            self._archive.append(ended.values())
            records = {key: line for key, line in content.records.items() if key not in ended}
            self._write(msgspec.structs.replace(content, records=records))


class _Draft(NamedTuple):
    """The document as it will be; `ended` when one of the changes that led to it left an ended record."""

    content: Content
    ended: bool = False

    def with_content(self, *, records: Mapping[str, bytes], outbox: Sequence[bytes], ended: bool = False) -> _Draft:
        content = msgspec.structs.replace(self.content, records=records, outbox=outbox)
        return _Draft(content, self.ended or ended)


class _Others:
    """The live records but one, read-only; the ended ones can be asked for by their idempotency key."""

    def __init__(self, store: JsonStore, content: Content, *, without: str | None) -> None:
        self._store = store
        self._content = content
        self._without = without

    def __iter__(self) -> Iterator[Sandbox]:
        return iter(_oldest_first(self._matching(b"")))

    def by_name(self, name: str) -> Sandbox | None:
        named = (record for record in self._matching(codec.field("name", name)) if record.name == name)
        return max(named, key=lambda record: (holds_name(record), record.created_at), default=None)

    def by_beginning(self, text: str, *, consumer: Consumer | None = None) -> Sandbox | None:
        for key, line in self._content.records.items():
            if key.startswith(text) and key != self._without:
                record = self._store._decode(key, line)
                if record.state != State.DESTROYED and consumer in (None, record.consumer):
                    return record
        return None

    def of_consumer(self, consumer: Consumer) -> Iterator[Sandbox]:
        needle = b'"consumer":' + msgspec.json.encode(consumer)
        return (record for record in self._matching(needle) if record.consumer == consumer)

    def by_idempotency_key(self, key: str, *, consumer: Consumer | None = None) -> Sandbox | None:
        needle = codec.field("idempotency_key", key)
        found = [
            record
            for record in self._matching(needle, ended=True)
            if record.idempotency_key == key and consumer in (None, record.consumer)
        ]
        if found:
            return max(found, key=lambda record: (record.state != State.DESTROYED, record.created_at))
        archived = self._store._archive.by_idempotency_key(key, consumer=consumer)
        return None if archived is None or archived.id == self._without else archived

    def _matching(self, needle: bytes, *, ended: bool = False) -> Iterator[Sandbox]:
        for key, line in self._content.records.items():
            if key == self._without or needle not in line:
                continue
            record = self._store._decode(key, line)
            if ended or record.state != State.DESTROYED:
                yield record


def _oldest_first(records: Iterable[Sandbox]) -> builtins.list[Sandbox]:
    return sorted(records, key=_place)


def _place(one: Sandbox | ArchivedLine) -> tuple[float, str]:
    record = one.summary if isinstance(one, ArchivedLine) else one
    return record.created_at, record.id
