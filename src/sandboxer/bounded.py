"""Documents of strangers, measured before they are worked on: bytes, depth, how many values they stand for, digits.

A parser makes objects of what it reads, many times as large, and goes down as deep as it is told: one line can take all
memory or end the process. So the text itself is looked at first, in time that grows with its length only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
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
"""A marker, a handle, a body of a request, a document that a person writes."""


class Excess(msgspec.DecodeError, ValueError):
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
        raise Excess(f"larger than {bounds.size} bytes")
    separators = sum(map(data.count, (b",", b"[", b"{")))
    if separators < bounds.depth and len(data) <= DIGITS:
        return
    bare = _STRING.sub(b'""', data)
    if sum(map(bare.count, (b",", b"[", b"{"))) > bounds.values:
        raise Excess(f"more than {bounds.values} values")
    if _LONG_NUMBER.search(bare):
        raise Excess(f"a number of more than {DIGITS} digits")
    brackets = bare.translate(None, _NOT_BRACKETS)
    for _ in range(bounds.depth):  # each time the innermost are taken away
        if not brackets:
            return
        brackets = _INNERMOST.sub(b"", brackets)
    if brackets:
        raise Excess(f"nested deeper than {bounds.depth} levels")


def number(text: str) -> int | None:
    """The whole number that a text is, in up to 18 digits of ASCII; None for any other. (`"²".isdigit()` is true, and
    `int` takes longer than the square of what it is given.)"""
    return int(text) if len(text) <= 18 and text.isascii() and text.isdigit() else None


@dataclass(slots=True)
class _Level:
    """A list or mapping whose end has not come: what it holds so far."""

    anchor: str | None
    values: int = 1
    text: int = 0


def check_yaml(text: bytes | str, bounds: Bounds = SMALL) -> None:
    """Raise Excess for YAML beyond the bounds; what is no YAML is left to who reads it. Only the parser's events are
    looked at, which neither nest nor expand anything."""
    import yaml

    if len(text) > bounds.size:
        raise Excess(f"larger than {bounds.size} bytes")
    try:
        _measure(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), bounds)
    except (yaml.YAMLError, UnicodeDecodeError):
        return


def _measure(events: Iterable[Any], bounds: Bounds) -> None:
    import yaml

    anchors: dict[str, tuple[int, int]] = {}
    levels = [_Level(None)]
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            if any(level.anchor == name for level in levels):
                raise Excess(f"the alias *{name} stands for what it is in", line=line)
            values, length = anchors.get(name, (1, 0))
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > DIGITS and _NUMBER.fullmatch(event.value) and _is_number(event):
                raise Excess(f"a number of more than {DIGITS} digits", line=line)
            values, length = 1, len(event.value)
            if event.anchor:
                anchors[event.anchor] = values, length
        elif isinstance(event, yaml.CollectionStartEvent):
            levels.append(_Level(event.anchor))
            if len(levels) - 1 > bounds.depth:
                raise Excess(f"nested deeper than {bounds.depth} levels", line=line)
            continue
        elif isinstance(event, yaml.CollectionEndEvent):
            done = levels.pop()
            values, length = done.values, done.text
            if done.anchor:
                anchors[done.anchor] = values, length
        else:
            continue
        # the sum over the open levels is what there is so far, so each of them alone is no more
        levels[-1].values += values
        levels[-1].text += length
        if sum(level.values for level in levels) > bounds.values:
            raise Excess(f"more than {bounds.values} values once aliases are expanded", line=line)
        if sum(level.text for level in levels) > bounds.text:
            raise Excess(f"more than {bounds.text} characters once aliases are expanded", line=line)


def _is_number(event: Any) -> bool:
    return event.tag is not None or event.implicit[0]
