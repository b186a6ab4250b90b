"""`credits.json`: from bytes to the book and back. Pure. A reservation or an entry a line, whole micro-dollars:

{"schema_version":1,"install":"...","revision":7,
"accounts":{...},"carried":{...},"spent_by":{...},"keys":{...},
"reservations":[
{...},
...
],
"seq":12,"entries":[
{...},
...
]}
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from sandboxer.errors import StoreCorrupt
from sandboxer.payments.consistency import flaw
from sandboxer.payments.ledger import Accounts, Book, KeyedCredit, LedgerEntry, Reservation
from sandboxer.store.codec import check_keys

SCHEMA_VERSION: Final = 1
HINT: Final = "run `sandboxer doctor`; the file is kept as it is"
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class LedgerFile(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds: the book, whose it is, and a count of its writes."""

    install: str
    book: Book = Book()
    revision: int = 0
    lines: Sequence[bytes] | None = None
    """The entries as they are written, once somebody has needed them."""


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    # Unknown keys are refused: the next write would drop them.
    schema_version: int
    install: str
    revision: int
    accounts: Accounts
    carried: Accounts
    spent_by: dict[str, dict[str, int]]
    reservations: list[Reservation]
    seq: int
    entries: list[LedgerEntry]
    keys: dict[str, KeyedCredit] = {}  # books from before there were any have none
    spent_by_token: dict[str, int] = {}


class _Version(msgspec.Struct, frozen=True):
    schema_version: int


_encode = msgspec.json.Encoder().encode


@cache  # most commands read no money, and making it takes as long as the rest of this module
def _decoder() -> msgspec.json.Decoder[_Envelope]:
    return msgspec.json.Decoder(_Envelope)


def with_lines(file: LedgerFile, before: LedgerFile) -> LedgerFile:
    """`file` with its entries encoded; those that `before`, the file it was made of, has encoded are not made again."""
    known = before.lines if before.lines is not None else [_encode(entry) for entry in before.book.entries]
    fresh = file.book.seq - before.book.seq
    new = [_encode(entry) for entry in file.book.entries[len(file.book.entries) - fresh :]]
    every = [*known, *new]
    return msgspec.structs.replace(file, lines=every[len(every) - len(file.book.entries) :])


def render(file: LedgerFile) -> bytes:
    """The document."""
    book = file.book
    entries = file.lines if file.lines is not None else [_encode(entry) for entry in book.entries]
    return b"".join(
        (
            b'{"schema_version":%d,"install":%s,"revision":%d,\n'
            % (SCHEMA_VERSION, _encode(file.install), file.revision),
            b'"accounts":%s,"carried":%s,"spent_by":%s,"keys":%s,\n'
            % (_encode(book.accounts), _encode(book.carried), _encode(book.spent_by), _encode(book.keys)),
            b'"spent_by_token":%s,\n' % _encode(book.spent_by_token) if book.spent_by_token else b"",
            b'"reservations":[',
            _lines([_encode(one) for one in book.reservations.values()]),
            b'],\n"seq":%d,"entries":[' % book.seq,
            _lines(entries),
            b"]}\n",
        )
    )


def _lines(items: Sequence[bytes]) -> bytes:
    return b"\n" + b",\n".join(items) + b"\n" if items else b""


def encode_entry(entry: LedgerEntry) -> bytes:
    """One entry as it stands in the archive."""
    return _encode(entry)


def parse(data: bytes, path: Path) -> LedgerFile:
    """The document; raises StoreCorrupt when it is not one of ours, complete, of this version, and adds up."""
    try:
        found = _decoder().decode(data)
    except _UNREADABLE as error:
        _refuse(data, path, error)
    if found.schema_version != SCHEMA_VERSION:
        _refuse(data, path, None)
    book = Book(
        seq=found.seq,
        accounts=found.accounts,
        carried=found.carried,
        reservations={one.sandbox_id: one for one in found.reservations},
        spent_by=found.spent_by,
        entries=tuple(found.entries),
        keys=found.keys,
        spent_by_token=found.spent_by_token,
    )
    wrong = "a sandbox has two reservations" if len(book.reservations) != len(found.reservations) else flaw(book)
    if wrong is not None:
        raise StoreCorrupt(f"{path} does not add up: {wrong}", hint=HINT)
    file = LedgerFile(install=found.install, book=book, revision=found.revision)
    if render(file) != data:  # laid out by a person
        try:
            check_keys(data)
        except ValueError as error:
            _refuse(data, path, error)
    return file


def _refuse(data: bytes, path: Path, error: Exception | None) -> NoReturn:
    version = None
    with suppress(*_UNREADABLE):
        version = msgspec.json.decode(data, type=_Version).schema_version
    if version is not None and version > SCHEMA_VERSION:
        raise StoreCorrupt(
            f"{path} was written by a newer sandboxer (schema version {version}; this one knows {SCHEMA_VERSION})",
            hint="upgrade sandboxer; the file is kept as it is",
            details={"schema_version": version},
        ) from error
    if not data:
        raise StoreCorrupt(f"{path} is empty", hint=HINT) from error
    raise StoreCorrupt(f"{path} is not a book of ours: {error or f'schema version {version}'}", hint=HINT) from error
