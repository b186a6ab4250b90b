"""Types of records, made ready before several threads read them.

msgspec looks at a type when it is first read, and shows what it has found so far to every thread that asks meanwhile:
one that reads by that takes the process down (seen with 0.22, and with 50 creates at once on a fresh server)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

import msgspec

_LOCK = threading.Lock()
_ready: set[type] = set()


def prepare(package: str = "") -> None:
    """Make ready all types of records that there are by now, or those of one package. To be called before the threads
    that read them start; again is cheap."""
    with _LOCK:
        for kind in list(_below(msgspec.Struct)):
            if kind not in _ready and f"{kind.__module__}.".startswith(f"{package}." if package else ""):
                _ready.add(kind)
                with suppress(Exception):  # nobody reads what cannot be made ready: it has types that are not there
                    msgspec.json.Decoder(kind)


def _below(kind: type) -> Iterator[type]:
    subclasses: list[type] = type.__subclasses__(kind)
    for one in subclasses:
        yield one
        yield from _below(one)
