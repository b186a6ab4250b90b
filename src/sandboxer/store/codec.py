"""`sandboxes.json`: from bytes to records and back. Pure; a record is decoded only when somebody looks at it.

    {"schema_version":1,"install":"...","revision":7,
    "sandboxes":{
    "<id>":{...},
    ...
    },
    "outbox":[
    {...},
    ...
    ]}

One record a line, compact and with the defaults written out: a person's diff shows what changed, and a search for
the bytes of a field finds the records that may have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from sandboxer.errors import Invalid, StoreCorrupt
from sandboxer.models import Event, RecordSummary, Sandbox
from sandboxer.names import ID
from sandboxer.state import State
from sandboxer.store.private_files import DOCTOR

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 1
DEEPEST = 64
"""How many lists and objects in one another a record may have. Without an end, what is written from a shallow stack
could be too deep to be read from a deeper one: the whole store would be lost to that process."""

LAST_INSTANT = 253402300799.0
"""The end of the year 9999, in unix seconds: later ones cannot be told."""
_FIRST_INSTANT = -62135596800.0
_STORED = frozenset(State) - {State.ACTIVE}

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what they should be: bad text and bad nesting have no class of its own."""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What the document holds: records by id and events in the order they happened, both as encoded."""

    install: str
    revision: int
    """Counts the writes, so that two versions never look alike."""
    records: Mapping[str, bytes]
    outbox: Sequence[bytes]


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    # Unknown keys are refused: the next write would drop them.
    schema_version: int
    install: str
    revision: int
    sandboxes: dict[str, msgspec.Raw]
    outbox: list[msgspec.Raw]


class _Version(msgspec.Struct, frozen=True):
    schema_version: int


_encode = msgspec.json.Encoder().encode
_envelope = msgspec.json.Decoder(_Envelope).decode
_version = msgspec.json.Decoder(_Version).decode
_sandbox = msgspec.json.Decoder(Sandbox).decode
_summary = msgspec.json.Decoder(RecordSummary).decode
_event = msgspec.json.Decoder(Event).decode


def encode_sandbox(record: Sandbox) -> bytes:
    """One record as stored; raises Invalid for text that is not UTF-8 and for what is nested too deep."""
    return _encoded(record, _sandbox)


def encode_event(event: Event) -> bytes:
    """One event as stored; raises Invalid for text that is not UTF-8 and for what is nested too deep."""
    return _encoded(event, _event)


def _encoded(value: Sandbox | Event, decode: Any) -> bytes:
    try:
        line = _encode(value)
    except UnicodeEncodeError as error:
        raise Invalid(f"a value cannot be stored: {error}", hint="use valid UTF-8 text") from error
    except RecursionError as error:
        raise _too_deep() from error
    if line.count(b"[") + line.count(b"{") > DEEPEST and _depth(line) > DEEPEST:
        raise _too_deep()
    decode(line)  # what cannot be read back must not be written; a wrong type here is a bug, and escapes as one
    return line


def _depth(line: bytes) -> int:
    depth, level = 0, [msgspec.json.decode(line)]
    while level:
        inner = (
            value.values() if isinstance(value, dict) else value for value in level if isinstance(value, dict | list)
        )
        level = [value for values in inner for value in values]
        depth += 1
    return depth - 1  # the innermost values are no level of their own


def _too_deep() -> Invalid:
    return Invalid(f"a value cannot be stored: it is nested more than {DEEPEST} deep", hint="nest it less")


def decode_sandbox(line: bytes, path: Path, *, sandbox_id: str | None = None) -> Sandbox:
    """One record; raises StoreCorrupt when it is not one, or not the one with this id."""
    try:
        record = _sandbox(line)
    except UNREADABLE as error:
        which = "a record" if sandbox_id is None else f"the record {sandbox_id!r}"
        raise StoreCorrupt(f"{path}: {which} cannot be read: {error}", hint=DOCTOR) from error
    if sandbox_id is not None:
        flaw = _flaw(record, line, sandbox_id)
        if flaw is not None:
            raise StoreCorrupt(f"{path}: the record {sandbox_id!r} {flaw}", hint=DOCTOR)
    return record


def _flaw(record: Sandbox, line: bytes, sandbox_id: str) -> str | None:
    """What no type says: a person's edit may leave it, and every verb would stumble over it in its own way."""
    if record.id != sandbox_id:
        return f"says that its id is {record.id!r}"
    if not ID.fullmatch(sandbox_id):
        return "has an id that is none"
    if record.state not in _STORED:
        return f"says that its state is {record.state!r}"
    times = (record.created_at, record.ready_at, record.expires_at, record.max_expires_at)
    others = (record.last_active_at, record.destroyed_at, record.wished_at)
    if any(at is not None and not _FIRST_INSTANT <= at <= LAST_INSTANT for at in times + others):
        return "has a time that is in no calendar"
    if _encode(record) != line:  # written by a person, or by another version
        try:
            check_keys(line)
        except ValueError as error:
            return f"cannot be read: {error}"
    return None


def decode_summary(line: bytes, path: Path) -> RecordSummary:
    """What a record is chosen by; raises StoreCorrupt when it is none."""
    try:
        return _summary(line)
    except UNREADABLE as error:
        raise StoreCorrupt(f"{path}: a record cannot be read: {error}", hint=DOCTOR) from error


def decode_event(line: bytes, path: Path) -> Event:
    """One event; raises StoreCorrupt when it is not one."""
    try:
        return _event(line)
    except UNREADABLE as error:
        raise StoreCorrupt(f"{path}: an event cannot be read: {error}", hint=DOCTOR) from error


def field(name: str, value: str) -> bytes:
    """The bytes that every encoded record with this field contains (others may too: decode and look)."""
    return quoted(name) + b":" + quoted(value)


def quoted(text: str) -> bytes:
    """A text as it stands in an encoded record; raises Invalid when it is not UTF-8, and so can be in none."""
    try:
        return _encode(text)
    except UnicodeEncodeError as error:
        raise Invalid(f"{text[:80]!a} is not valid UTF-8", hint="use valid UTF-8 text") from error


def render(content: Content) -> bytes:
    """The document."""
    parts = [
        b'{"schema_version":%d,"install":%s,"revision":%d,\n"sandboxes":{'
        % (SCHEMA_VERSION, _encode(content.install), content.revision)
    ]
    separator = b"\n"
    for sandbox_id, line in content.records.items():
        parts += (separator, _encode(sandbox_id), b":", line)
        separator = b",\n"
    parts.append(b'\n},\n"outbox":[')
    separator = b"\n"
    for line in content.outbox:
        parts += (separator, line)
        separator = b",\n"
    parts.append(b"\n]}\n")
    return b"".join(parts)


def parse(data: bytes, path: Path) -> Content:
    """The document; raises StoreCorrupt when it is not one of ours, complete, and of this version.

    A file laid out exactly as `render` does is taken at its word, record by record, until somebody looks at one.
    Any other (a person's edit) is checked in full first."""
    try:
        envelope = _envelope(data)
    except UNREADABLE as error:
        _refuse(data, path, error)
    if envelope.schema_version != SCHEMA_VERSION:
        _refuse(data, path, None)
    content = Content(
        install=envelope.install,
        revision=envelope.revision,
        records={sandbox_id: bytes(raw) for sandbox_id, raw in envelope.sandboxes.items()},
        outbox=[bytes(raw) for raw in envelope.outbox],
    )
    if _is_ours(data, content):
        return content
    return _checked(data, content, path)


def _refuse(data: bytes, path: Path, error: Exception | None) -> NoReturn:
    version = None
    with suppress(*UNREADABLE):
        version = _version(data).schema_version
    if version is not None and version > SCHEMA_VERSION:
        raise StoreCorrupt(
            f"{path} was written by a newer sandboxer (schema version {version}; this one knows {SCHEMA_VERSION})",
            hint=f"upgrade sandboxer, or {DOCTOR}",
            details={"schema_version": version},
        ) from error
    if not data:
        raise StoreCorrupt(f"{path} is empty", hint=DOCTOR) from error
    raise StoreCorrupt(f"{path} is not a store of ours: {error or f'schema version {version}'}", hint=DOCTOR) from error


def _is_ours(data: bytes, content: Content) -> bool:
    """Whether the bytes are what `render` makes: then no id is there twice, and each line starts with its own id."""
    if render(content) != data or not (data.isascii() or _is_text(data)):
        return False
    return all(line.startswith(b'{"id":"' + key.encode() + b'",') for key, line in content.records.items())


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _checked(data: bytes, content: Content, path: Path) -> Content:
    """The same content in our layout, every record and event decoded once; unknown keys in them are kept."""
    try:
        check_keys(data)
    except (ValueError, RecursionError) as error:
        raise StoreCorrupt(f"{path} is not a store of ours: {error}", hint=DOCTOR) from error
    for sandbox_id, line in content.records.items():
        decode_sandbox(line, path, sandbox_id=sandbox_id)
    for line in content.outbox:
        decode_event(line, path)
    return msgspec.structs.replace(
        content,
        records={sandbox_id: _compact(line) for sandbox_id, line in content.records.items()},
        outbox=[_compact(line) for line in content.outbox],
    )


def _compact(line: bytes) -> bytes:
    return _encode(msgspec.json.decode(line))


def check_keys(data: bytes) -> None:
    """Raises ValueError, naming it, for a key that is there twice in one object: msgspec takes the last."""
    import json  # only here, and msgspec is faster

    json.loads(data, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} is there twice")
    return found
