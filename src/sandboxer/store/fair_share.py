"""Say what has to go where there is not room for all: of whoever has the most, the oldest. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence


def beyond_share(owned: Sequence[tuple[str, int]], room: int) -> list[int]:
    """The positions of what goes, in order, of things with an owner and a size each, oldest first: all stays that
    belongs to those who have little, and as much of each of the others, the newest."""
    sizes: Counter[str] = Counter()
    for owner, size in owned:
        sizes[owner] += size
    left = dict.fromkeys(sizes, share(sizes.values(), room))
    out = []
    for position in range(len(owned) - 1, -1, -1):
        owner, size = owned[position]
        left[owner] -= size
        if left[owner] < 0:
            out.append(position)
    return out[::-1]


def share(sizes: Iterable[int], room: int) -> int:
    """How much each may have at most, so that all together have at most `room`."""
    rest = room
    ascending = sorted(sizes)
    for place, size in enumerate(ascending):
        equal = rest // (len(ascending) - place)
        if size > equal:
            return equal
        rest -= size
    return room
