"""Record when `expire` ran, by two clocks: `expire.json` in the data directory.

The wall clock says what is over, and anybody can set it; the uptime goes on by itself, asleep too. Where they have gone
apart since the last run, nothing is ended in this one: a wrong clock must not end what is alive."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from sandboxer.errors import SandboxerError
from sandboxer.locks import this_owner
from sandboxer.models import Value
from sandboxer.store.document import AtomicDocument

FILE: Final = "expire.json"
MAX_MACHINES: Final = 16
"""So many boots (of machines that share a data directory, and of one) are remembered."""


class ClockReading(Value, frozen=True, kw_only=True):
    """Both clocks at one moment: unix seconds, and seconds since the machine was started. `held_at`: the uptime when a
    jump was seen last."""

    wall: float
    up: float
    held_at: float | None = None


class SweepLogDocument(Value, frozen=True, kw_only=True):
    """`expire.json`. Instants in unix seconds; `readings` by boot, the latest last. `last_success`: the end of the last
    run after which nothing remained."""

    schema_version: int = 1
    last_run: float | None = None
    last_success: float | None = None
    readings: dict[str, ClockReading] = {}


def clock_jump(before: ClockReading | None, now: ClockReading, *, tolerance: float) -> float | None:
    """By how many seconds the wall clock has jumped since `before` (below zero: back); None: not by more than
    `tolerance`, or it cannot be told. Pure."""
    if before is None:
        return None
    jump = (now.wall - before.wall) - (now.up - before.up)
    return jump if abs(jump) > tolerance else None


class SweepLog:
    """When `expire` ran. May be used by any thread and process. It never raises: a disk that is full must not keep
    sandboxes from being ended."""

    def __init__(self, directory: Path) -> None:
        self._document = AtomicDocument(directory / FILE)

    def seen(self) -> SweepLogDocument:
        """What is recorded; nothing where it cannot be read."""
        try:
            found = self._document.read()
            return msgspec.json.decode(found.data or b"", type=SweepLogDocument) if found else SweepLogDocument()
        except (SandboxerError, msgspec.MsgspecError, ValueError):
            return SweepLogDocument()

    def look(self, *, wall: float, up: float, tolerance: float) -> float | None:
        """By how much the clock has jumped since the last run; nothing is recorded."""
        return clock_jump(self.seen().readings.get(_boot()), ClockReading(wall=wall, up=up), tolerance=tolerance)

    def begin(self, *, wall: float, up: float, tolerance: float) -> float | None:
        """The same for a run that begins, and record it: the next one compares with this. A run that had begun when
        another one saw a jump is told of it too (0.0): it may have decided by the wrong clock."""
        with suppress(SandboxerError, OSError), self._document.locked():
            log, boot = self.seen(), _boot()
            before, now = log.readings.get(boot), ClockReading(wall=wall, up=up)
            jump = clock_jump(before, now, tolerance=tolerance)
            if before is not None and up < before.up:  # another run began later, and was faster
                return jump if before.held_at is None or before.held_at < up else 0.0
            if jump is not None:
                now = msgspec.structs.replace(now, held_at=up)
            kept = [(name, one) for name, one in log.readings.items() if name != boot]
            readings = dict([*kept[-(MAX_MACHINES - 1) :], (boot, now)])
            self._write(msgspec.structs.replace(log, last_run=wall, readings=readings))
            return jump
        return self.look(wall=wall, up=up, tolerance=tolerance)

    def succeeded(self, *, wall: float) -> None:
        """A run ended after which nothing remained."""
        with suppress(SandboxerError, OSError), self._document.locked():
            self._write(msgspec.structs.replace(self.seen(), last_success=wall))

    def _write(self, document: SweepLogDocument) -> None:
        self._document.replace(msgspec.json.encode(document) + b"\n", must_succeed=True)


def _boot() -> str:
    """This machine since it was started, whichever container we are in."""
    return this_owner().boot_id.partition("/")[0]
