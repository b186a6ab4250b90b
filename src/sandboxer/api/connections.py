"""Bound the connections, in all and for each peer, and choose the one that has to go for a new one.

A connection costs a descriptor before anybody has proved anything. Whoever opens many loses his own that have not yet
said a whole request, the oldest first; what is being worked on is never cut off, and a newcomer is always let in for as
long as it takes to say a request, unless all that its peer may hold is being worked on.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MOST: Final = 2048
"""The most connections, however many descriptors there are."""
FEWEST: Final = 16


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The most connections in all, and of one peer."""

    total: int
    each: int


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """One connection: whose it is, since when it is as it is, and whether it may be closed for another: it waits for
    (the rest of) a request, or for its client to read."""

    peer: str
    since: float
    waits: bool


def connection_limits(descriptors: int) -> ConnectionLimits:
    """Half of the process's descriptors: the other half is for files, programs and calls to others."""
    total = max(FEWEST, min(MOST, descriptors // 2))
    return ConnectionLimits(total=total, each=total // 2)


def peer_of(address: str | None) -> str:
    """Who an address is. A network of IPv6 has one owner, whatever number he takes in it."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found.packed[:8] + bytes(8), 64)))


def choose_to_close(
    newcomer: ConnectionState, others: Sequence[ConnectionState], most: ConnectionLimits
) -> ConnectionState | None:
    """Which one goes now that `newcomer` has come; itself, where no other can. Pure."""
    held = Counter(other.peer for other in others)
    held[newcomer.peer] += 1
    waiting = [other for other in others if other.waits]
    if held[newcomer.peer] > most.each:
        return _oldest([other for other in waiting if other.peer == newcomer.peer]) or newcomer
    if len(others) < most.total:
        return None
    # the peer that holds the most pays, not the one that comes last
    largest = max((held[other.peer] for other in waiting), default=0)
    return _oldest([other for other in waiting if held[other.peer] == largest]) or newcomer


def _oldest(candidates: Sequence[ConnectionState]) -> ConnectionState | None:
    return min(candidates, key=lambda one: one.since, default=None)
