"""Documents of strangers, measured before they are worked on: bytes, depth, how many values they stand for, digits.

A parser makes objects of what it reads, many times as large, and goes down as deep as it is told: one line can take all
memory or end the process. So the text itself is looked at first, in time that grows with its length only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How large a document may be: `size` in bytes, `depth` in levels, `values` in scalars, lists and mappings once
    aliases are expanded, `text` in characters of its scalars once they are."""

    size: int
    depth: int = 64
    values: int = 1_000_000
    text: int = 32 << 20


DIGITS: Final = 400
"""The most digits of one number: making one of them takes the square of their count."""
ANSWER: Final = Bounds(size=16 << 20)
"""What an API or an engine answers: a list of ten thousand sandboxes has half a million values."""
SMALL: Final = Bounds(size=1 << 20, values=100_000, text=4 << 20)
"""A marker, a handle, a body of a request, a secret of OpenBao, a document that a person writes."""


class LimitExceeded(msgspec.DecodeError, ValueError):
    """A document that is larger than it may be. Whoever reads one expects a DecodeError or a ValueError of it anyway.
    `line` counts from 1, where there is one."""

    def __init__(self, message: str, *, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


_STRING: Final = re.compile(rb'"(?:[^"\\]+|\\.)*+"?', re.DOTALL)
_LONG_NUMBER: Final = re.compile(rb"[0-9]{401}")
_INNERMOST: Final = re.compile(rb"\[\]|\{\}")
_NOT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
_NUMBER: Final = re.compile(r"[-+]?[0-9.][0-9a-fA-FxXoO_.:eE+-]*")


def decode_as(model: type[T], data: bytes | str, *, bounds: Bounds = ANSWER) -> T:
    """The JSON in `data` as `model`. Raises msgspec.DecodeError, and Excess, which is one, beyond the bounds."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    check_json(raw, bounds)
    try:
        return msgspec.json.decode(raw, type=model)
    except UnicodeDecodeError:
        raise msgspec.DecodeError("it is not UTF-8") from None


def decode(data: bytes | str, *, bounds: Bounds = ANSWER) -> Any:
    """The JSON in `data`. Raises as `decode_as` does."""
    return decode_as(object, data, bounds=bounds)


def check_json(data: bytes, bounds: Bounds = ANSWER) -> None:
    """Raise Excess for JSON beyond the bounds; what is no JSON is left to who reads it."""
    if len(data) > bounds.size:
        raise LimitExceeded(f"larger than {bounds.size} bytes")
    separators = sum(map(data.count, (b",", b"[", b"{")))
    if separators < bounds.depth and len(data) <= DIGITS:
        return
    bare = _STRING.sub(b'""', data)
    if sum(map(bare.count, (b",", b"[", b"{"))) > bounds.values:
        raise LimitExceeded(f"more than {bounds.values} values")
    if _LONG_NUMBER.search(bare):
        raise LimitExceeded(f"a number of more than {DIGITS} digits")
    brackets = bare.translate(None, _NOT_BRACKETS)
    for _ in range(bounds.depth):  # each time the innermost are taken away
        if not brackets:
            return
        brackets = _INNERMOST.sub(b"", brackets)
    if brackets:
        raise LimitExceeded(f"nested deeper than {bounds.depth} levels")


def number(text: str) -> int | None:
    """The whole number that a text is, in up to 18 digits of ASCII; None for any other. (`"²".isdigit()` is true, and
    `int` takes longer than the square of what it is given.)"""
    return int(text) if len(text) <= 18 and text.isascii() and text.isdigit() else None


Cost = tuple[int, int, int]
"""Of a YAML value: how many values it stands for, the characters of their scalars, and how deep they are nested."""


class _Level(msgspec.Struct):
    """A list or mapping whose end has not come: what it holds so far."""

    anchor: str | None
    values: int = 1
    text: int = 0
    height: int = 0


class Expansion:
    """What a YAML document comes to once its aliases are expanded, told event by event: nothing is expanded for it.

    `merged` says of a value that it is what `<<` names, whose keys are laid into the mapping above. Raises Excess for
    what is nested deeper than `depth`, also by aliases, and for an alias of what it is in."""

    __slots__ = ("_anchors", "_levels", "depth", "text", "values")

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.values = self.text = 0
        self._anchors: dict[str, Cost] = {}
        self._levels: list[_Level] = []

    def document(self) -> None:
        """Another document begins: no alias reaches over its beginning."""
        self._anchors.clear()

    def begin(self, anchor: str | None) -> None:
        """A list or mapping begins."""
        if len(self._levels) >= self.depth:
            raise LimitExceeded(f"nested deeper than {self.depth} levels")
        self._levels.append(_Level(anchor))
        self.values += 1

    def end(self, *, merged: bool = False) -> None:
        """The innermost list or mapping ends."""
        done = self._levels.pop()
        self._add((done.values, done.text, done.height + 1), done.anchor, merged=merged)

    def scalar(self, length: int, anchor: str | None) -> None:
        """A scalar of so many characters."""
        self.values += 1
        self.text += length
        self._add((1, length, 0), anchor, merged=False)

    def alias(self, name: str, *, merged: bool = False) -> Cost:
        """An alias, and what it stands for; one value where nothing was called so."""
        if any(level.anchor == name for level in self._levels):
            raise LimitExceeded(f"the alias *{name[:80]} stands for what it is in")
        cost = self._anchors.get(name, (1, 0, 0))
        if len(self._levels) + cost[2] > self.depth:
            raise LimitExceeded(f"nested deeper than {self.depth} levels, by an alias")
        self.values += cost[0]
        self.text += cost[1]
        self._add(cost, None, merged=merged)
        return cost

    def check(self, bounds: Bounds) -> None:
        """Raise Excess when there are more values, or more of their characters, than there may be."""
        if self.values > bounds.values:
            raise LimitExceeded(f"more than {bounds.values} values once aliases are expanded")
        if self.text > bounds.text:
            raise LimitExceeded(f"more than {bounds.text} characters once aliases are expanded")

    def _add(self, cost: Cost, anchor: str | None, *, merged: bool) -> None:
        if anchor:
            self._anchors[anchor] = cost
        if self._levels:
            above = self._levels[-1]
            above.values += cost[0]
            above.text += cost[1]
            above.height = max(above.height, cost[2] - merged)  # what is merged gets no deeper


def check_yaml(text: bytes | str, bounds: Bounds = SMALL) -> None:
    """Raise Excess for YAML beyond the bounds; what is no YAML is left to who reads it. Only the parser's events are
    looked at, which neither nest nor expand anything."""
    import yaml

    if len(text) > bounds.size:
        raise LimitExceeded(f"larger than {bounds.size} bytes")
    try:
        _measure(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), bounds)
    except (yaml.YAMLError, UnicodeDecodeError):
        return


def _measure(events: Iterable[Any], bounds: Bounds) -> None:
    import yaml

    expansion = Expansion(bounds.depth)  # a `<<` counts as a level: PyYAML goes down for each
    for event in events:
        try:
            if isinstance(event, yaml.AliasEvent):
                expansion.alias(str(event.anchor))
            elif isinstance(event, yaml.ScalarEvent):
                if len(event.value) > DIGITS and _NUMBER.fullmatch(event.value) and _is_number(event):
                    raise LimitExceeded(f"a number of more than {DIGITS} digits")
                expansion.scalar(len(event.value), event.anchor)
            elif isinstance(event, yaml.CollectionStartEvent):
                expansion.begin(event.anchor)
            elif isinstance(event, yaml.CollectionEndEvent):
                expansion.end()
            expansion.check(bounds)
        except LimitExceeded as error:
            raise LimitExceeded(str(error), line=event.start_mark.line + 1) from None


def _is_number(event: Any) -> bool:
    return event.tag is not None or event.implicit[0]
