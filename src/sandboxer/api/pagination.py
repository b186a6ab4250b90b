"""Page through lists by a cursor: opaque to clients, and not moved by what is created or removed meanwhile."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

from sandboxer.errors import Invalid
from sandboxer.names import ID, SNAPSHOT_ID

Position = tuple[float, str]


class Listed(Protocol):
    """What is in lists: a sandbox, or a snapshot."""

    @property
    def id(self) -> str: ...

    @property
    def created_at(self) -> float: ...


T = TypeVar("T", bound=Listed)


def encode_cursor(record: Listed) -> str:
    """The cursor of the page that starts after this record."""
    text = f"{record.created_at.hex()} {record.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> Position:
    """The place that a cursor names; raises Invalid."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        created, _, record_id = text.partition(" ")
        place = (float.fromhex(created), record_id)
    except (binascii.Error, ValueError, OverflowError):
        place = (math.nan, "")
    if not math.isfinite(place[0]) or not (ID.fullmatch(place[1]) or SNAPSHOT_ID.fullmatch(place[1])):
        raise Invalid("the cursor is not one of ours", hint="take `next_cursor` of the page before, or leave it out")
    return place


def page(records: Sequence[T], *, limit: int) -> tuple[Sequence[T], str | None]:
    """One page, of records of which there is one more when another page follows; and its cursor, if there is one."""
    shown = records[:limit]
    return shown, encode_cursor(shown[-1]) if len(records) > limit else None
