"""Draw tables for a terminal: as wide as it is, a line a row.

What does not fit is cut: prose first, what names a thing never. Imported for a terminal only (decision 0027)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

GAP = 2
"""Blanks between two columns."""
PROSE = frozenset({"TITLE", "REASON", "WHY", "SUMMARY", "CAPABILITIES", "PROFILES"})
SHORT_PROSE = 22
"""Room for `sandbox` and an id."""
SHORTEST = 8
NAMING = frozenset({"TARGET"})
"""Where ids are, beside the first column."""
LONGEST_ID = 17
_FRACTION = re.compile(r"(\d\d:\d\d:\d\d)\.\d+Z")
"""Of a second, in a time: nobody reads it, and it takes the room of a word."""


def column_widths(headings: Sequence[str], natural: Sequence[int], room: int) -> list[int]:
    """How wide each column is, so that all fit into `room` with the gaps between them, if they can. Pure.

    Prose gives way first, then the others but ids and the first column, which says what the row is about, then the rest
    of the prose; each time the widest."""
    widths = list(natural)
    room -= GAP * (len(widths) - 1)
    for prose, others in ((SHORT_PROSE, False), (SHORT_PROSE, True), (SHORTEST, True)):
        least = [
            _least(heading, width, prose=prose, others=others) for heading, width in zip(headings, natural, strict=True)
        ]
        _narrow(widths, [natural[0], *least[1:]], room)
    return widths


def _least(heading: str, width: int, *, prose: int, others: bool) -> int:
    """How narrow a column may become: prose as `prose` says, the others only where `others` does."""
    if heading in PROSE:
        return min(width, prose)
    if not others:
        return width
    return min(width, LONGEST_ID if heading in NAMING else max(SHORTEST, len(heading)))


def _narrow(widths: list[int], least: Sequence[int], room: int) -> None:
    while sum(widths) > room:
        wider = [n for n, width in enumerate(widths) if width > least[n]]
        if not wider:
            return
        widths[max(wider, key=widths.__getitem__)] -= 1


def render(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int,
    colours: bool,
    state_styles: Mapping[str, str],
) -> str:
    """The lines of a table `width` characters wide, or wider where its first column and ids do not fit. Cells are
    printable text on one line; a `STATE` column is coloured."""
    rows = [[_FRACTION.sub(r"\1Z", cell) for cell in row] for row in rows]
    natural = [max(map(cell_len, column)) for column in zip(headings, *rows, strict=True)]
    widths = column_widths(headings, natural, width)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for heading, column_width in zip(headings, widths, strict=True):
        table.add_column(Text(heading), width=column_width, no_wrap=True, overflow="ellipsis")
    state = headings.index("STATE") if "STATE" in headings else -1
    for row in rows:
        styles = [state_styles.get(cell, "") if n == state else "" for n, cell in enumerate(row)]
        table.add_row(*map(Text, row, styles))
    console = Console(
        width=max(width, sum(widths) + GAP * len(widths)),
        height=len(rows) + 1,
        force_terminal=colours,
        color_system="standard" if colours else None,
        highlight=False,
        legacy_windows=False,
    )
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
