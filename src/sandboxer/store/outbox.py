"""Which events stay in the document: all that wait to be sent, and the newest of the others. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from sandboxer.store import codec
from sandboxer.store.fair_share import beyond_share

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxer.models import Event

KEPT = 500
"""How many events that no longer wait are kept in the document."""
WAITING = 10_000
"""How many events may wait. About 5 MB that each write carries along: beyond, some are parked."""
_PARKED_AT_ONCE = 1_000
PARKED_NOTE = "not sent: more than 10,000 events were waiting; see archive/events.jsonl"

_STATUS = b'"status":"'
_PENDING = _STATUS + b"pending"


def waits(line: bytes) -> bool:
    """Whether an encoded event is still to be sent."""
    # The last one: `detail`, which comes before, may hold the same bytes; in `note` the quotes are escaped.
    return line.startswith(b"pending", line.rfind(_STATUS) + len(_STATUS))


def trimmed(lines: Sequence[bytes]) -> Sequence[bytes]:
    """`lines` without the oldest of those that no longer wait, once there are more than KEPT."""
    if len(lines) <= KEPT:
        return lines
    # Every write comes here, so the bytes are looked for first: nearly all that do not wait do not have them.
    excess = len(lines) - KEPT - sum(1 for line in lines if _PENDING in line and waits(line))
    kept: list[bytes] = []
    for position, line in enumerate(lines):
        if excess <= 0:
            return [*kept, *lines[position:]]
        if waits(line):
            kept.append(line)
        else:
            excess -= 1
    return kept


def overflow(lines: Sequence[bytes]) -> Sequence[int]:
    """Positions of the events that wait in vain, when more than WAITING do; else none: the oldest of the actors that
    have the most waiting, so that nobody's changes keep what happened to others from being told."""
    if len(lines) <= WAITING:
        return ()
    waiting = [position for position, line in enumerate(lines) if waits(line)]
    if len(waiting) <= WAITING:
        return ()
    owned = [(_actor(lines[position]), 1) for position in waiting]
    return [waiting[place] for place in beyond_share(owned, WAITING - _PARKED_AT_ONCE)]


class _Actor(msgspec.Struct, frozen=True):
    actor: str


_decode_actor = msgspec.json.Decoder(_Actor).decode


def _actor(line: bytes) -> str:
    try:
        return _decode_actor(line).actor
    except codec.UNREADABLE:
        return ""  # whoever parks it says what is wrong


def parked(lines: Sequence[bytes], positions: Iterable[int], path: Path) -> Sequence[bytes]:
    """`lines` with the events at `positions` parked, and why."""
    changed = list(lines)
    for position in positions:
        event = codec.decode_event(changed[position], path)
        changed[position] = codec.encode_event(msgspec.structs.replace(event, status="parked", note=PARKED_NOTE))
    return changed


def settled(lines: Sequence[bytes], events: Iterable[Event], path: Path) -> Sequence[bytes]:
    """`lines` with the status and note of `events`, matched by id; those that are no longer kept are passed over."""
    news = {event.event_id: event for event in events}
    changed = list(lines)
    for position, line in enumerate(lines):
        if not news:
            break
        event = codec.decode_event(line, path)
        new = news.pop(event.event_id, None)
        if new is not None:
            changed[position] = codec.encode_event(msgspec.structs.replace(event, status=new.status, note=new.note))
    return changed
