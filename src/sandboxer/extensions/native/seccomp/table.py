"""The table of system calls, syscalls.txt: by machine, and as spans of numbers with one answer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

COLUMNS: Final = {"x86_64": 1, "aarch64": 2}
"""Machine, as `uname -m` says it, to its column."""
DENY: Final = "deny"
MISSING: Final = "missing"


class SystemCall(NamedTuple):
    """A system call of one machine."""

    name: str
    number: int
    answer: str


class Span(NamedTuple):
    """Numbers from `first` up to the next span."""

    first: int
    answer: str


@cache
def calls(machine: str) -> tuple[SystemCall, ...]:
    """The machine's calls, by number."""
    column = COLUMNS[machine]
    lines = Path(__file__).with_name("syscalls.txt").read_text("utf-8").splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    found = [SystemCall(row[0], int(row[column]), row[3]) for row in rows if row[column] != "-"]
    return tuple(sorted(found, key=lambda call: call.number))


def spans(machine: str) -> list[Span]:
    """All 2**32 numbers: holes in the table are denied, what is above it is missing (so is each x32 entry: bit 30)."""
    answers = {call.number: call.answer for call in calls(machine)}
    end = max(answers) + 1
    found = [Span(0, answers.get(0, DENY))]
    for number in range(1, end):
        answer = answers.get(number, DENY)
        if answer != found[-1].answer:
            found.append(Span(number, answer))
    return [*found, Span(end, MISSING)]
