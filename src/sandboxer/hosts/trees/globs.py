"""Patterns with wildcards, matched in time that grows with the pattern and the text, never with the ways to match.

A pattern becomes a list of steps, and matching follows all the places in it at once, as bits of one number (Thompson;
Baeza-Yates and Gonnet's shift-and). There is nothing to go back to: `*a*a*a*a*b` costs what any other pattern costs.
Regular expressions would be shorter, and one line of a stranger's .gitignore stopped the process for ever with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

SEPARATOR: Final = "/"


@dataclass(frozen=True, slots=True)
class CharacterClass:
    """One character other than `/`, from one of `ranges` (first and last), or from none when `negated`."""

    ranges: Sequence[tuple[str, str]]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Star:
    """Any number of characters, also none; without `slashes`, up to the next `/`."""

    slashes: bool


@dataclass(frozen=True, slots=True)
class Skip:
    """The following `count` steps, or none of them."""

    count: int


Step = str | CharacterClass | Star | Skip
"""What a pattern consists of; a text stands for itself."""

ONE: Final = CharacterClass((), negated=True)
NOTHING: Final = CharacterClass(())
DIRECTORIES: Final = (Skip(2), Star(slashes=True), SEPARATOR)
"""Any number of directories, also none."""


@dataclass(slots=True)
class Glob:
    """A compiled pattern, which matches whole texts."""

    prefix: str
    suffix: str
    _steps: Sequence[Step]
    _runs: int = 0
    _skips: Sequence[tuple[int, int]] = ()
    _taking: dict[str, int] = field(default_factory=dict)

    def matches(self, text: str) -> bool:
        """Whether it matches all of `text`."""
        if not self._steps:
            return text == self.prefix
        # what most patterns end with: no more is needed for most names
        if not text.startswith(self.prefix) or not text.endswith(self.suffix):
            return False
        end = len(text) - len(self.suffix)
        if end < len(self.prefix):
            return False
        return self._follow(text[len(self.prefix) : end])

    def _follow(self, text: str) -> bool:
        steps, runs, taking = self._steps, self._runs, self._taking
        if len(steps) == 1 and isinstance(steps[0], Star):
            return steps[0].slashes or SEPARATOR not in text
        places = self._opened(1)
        for char in text:
            taken = taking.get(char)
            if taken is None:
                taken = taking[char] = sum(1 << n for n, step in enumerate(steps) if _takes(step, char))
            going = places & taken
            # a run stays where it is, and goes on to what follows without a character
            moved = (going & ~runs) << 1 | going & runs
            places = self._opened(moved) if self._skips else moved | (moved & runs) << 1
            if not places:
                return False
        return bool(places >> len(steps) & 1)

    def _opened(self, places: int) -> int:
        """The places, and those that are reached from them without a character."""
        while True:
            more = places | (places & self._runs) << 1
            for at, count in self._skips:
                if places >> at & 1:
                    more |= 0b1 << at + 1 | 0b1 << at + 1 + count
            if more == places:
                return places
            places = more


def _takes(step: Step, char: str) -> bool:
    """Whether a step takes, or goes on with, a character."""
    if isinstance(step, str):
        return step == char
    if isinstance(step, Star):
        return step.slashes or char != SEPARATOR
    if isinstance(step, Skip) or char == SEPARATOR:
        return False
    return any(first <= char <= last for first, last in step.ranges) != step.negated


def compiled(steps: Sequence[Step]) -> Glob:
    """The pattern that consists of these steps."""
    plain = _simplified(steps)
    first = 0
    while first < len(plain) and isinstance(plain[first], str):
        first += 1
    last = len(plain)
    while last > first and isinstance(plain[last - 1], str):
        last -= 1
    # a skip counts the steps behind it: none of those may become a part of the suffix
    for n, step in enumerate(plain[first:last], first):
        if isinstance(step, Skip):
            last = max(last, n + 1 + step.count)
    middle = tuple(plain[first:last])
    return Glob(
        prefix="".join(step for step in plain[:first] if isinstance(step, str)),
        suffix="".join(step for step in plain[last:] if isinstance(step, str)),
        _steps=middle,
        _runs=sum(1 << n for n, step in enumerate(middle) if isinstance(step, Star)),
        _skips=tuple((n, step.count) for n, step in enumerate(middle) if isinstance(step, Skip)),
    )


def _simplified(steps: Sequence[Step]) -> list[Step]:
    """The same without what changes nothing: texts by single characters, runs and skips that follow their like."""
    plain: list[Step] = []
    at = 0
    while at < len(steps):
        step = steps[at]
        if tuple(steps[at : at + 3]) == DIRECTORIES:
            if tuple(plain[-3:]) != DIRECTORIES:
                plain += DIRECTORIES
            at += 3
            continue
        at += 1
        if isinstance(step, str):
            plain += step
        elif isinstance(step, Star) and plain and isinstance(plain[-1], Star):
            plain[-1] = Star(slashes=step.slashes or plain[-1].slashes)
        else:
            plain.append(step)
    return plain
