"""Read and print scalars as docker compose v2 does: YAML's core schema by go-yaml, durations, sizes, numbers."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any, Final

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INTEGERS: Final = (
    (re.compile(r"([-+]?)0[xX]([0-9a-fA-F]+)"), 16),
    (re.compile(r"([-+]?)0[oO]([0-7]+)"), 8),
    (re.compile(r"([-+]?)0[bB]([01]+)"), 2),
    (re.compile(r"([-+]?)0([0-7]+)"), 8),
    (re.compile(r"([-+]?)([1-9][0-9]*|0)"), 10),
)
_INFINITE: Final = {".inf": math.inf, ".Inf": math.inf, ".INF": math.inf, "+.inf": math.inf, "+.Inf": math.inf,
                    "+.INF": math.inf, "-.inf": -math.inf, "-.Inf": -math.inf, "-.INF": -math.inf,
                    ".nan": math.nan, ".NaN": math.nan, ".NAN": math.nan}  # fmt: skip
_LONGEST_NUMBER: Final = 64
"""Characters: a longer word of digits is no number anybody counts with, and slow to convert."""


def resolved(text: str) -> Any:
    """The value of an unquoted scalar: null, true, 1, 0.5 or the text. `yes`, `22:22` and dates stay text."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text[0] not in "0123456789+-." or len(text) > _LONGEST_NUMBER:
        return text
    if text in _INFINITE:
        return _INFINITE[text]
    digits = text.replace("_", "")
    for pattern, base in _INTEGERS:
        if match := pattern.fullmatch(digits):
            value = int(match[2], base) * (-1 if match[1] == "-" else 1)
            return value if -(2**63) <= value < 2**64 else float(value)
    return float(digits) if _FLOAT.fullmatch(digits) else text


def text_of(value: Any) -> str:
    """A scalar as text: true, 1, 0.5."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return number_text(value)
    return "" if value is None else str(value)


def number_text(value: float) -> str:
    """A floating-point number as Go prints it by default: 1.5, 1e+06."""
    if math.isinf(value) or math.isnan(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "0"
    exponent = Decimal(repr(value)).adjusted()
    if -4 <= exponent < 6:
        fixed = format(Decimal(repr(value)), "f")
        return fixed.rstrip("0").rstrip(".") if "." in fixed else fixed
    mantissa = format(Decimal(repr(value)).scaleb(-exponent).normalize(), "f")
    return f"{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


_TRUE: Final = frozenset({"true", "1", "t", "y", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "f", "n", "no", "off"})


def boolean(value: Any) -> bool | None:
    """A boolean, also from text; None when it is none."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        return None
    word = value.lower()
    return True if word in _TRUE else False if word in _FALSE else None


_DECIMAL: Final = re.compile(r"[-+]?[0-9]{1,19}")


def integer(value: Any) -> int | None:
    """A whole number, also from text; None when it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return int(value)
    return None


def number(value: Any) -> float | int | None:
    """A number, also from text; None when it is none."""
    whole = integer(value)
    if whole is not None:
        return whole
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER and _FLOAT.fullmatch(value):
        found = float(value)
        return int(found) if found.is_integer() and abs(found) < 2**53 else found
    return None


_SIZE: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,19})?) ?([kKmMgGtTpP])?(?:[iI]?[bB])?")
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def size(value: Any) -> int | None:
    """A number of bytes from 512, "64m" or "1.5gb"; None when it is none."""
    whole = integer(value)
    if whole is not None:
        return whole
    if isinstance(value, float) and math.isfinite(value):
        return int(value)
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    return int(Decimal(match[1]) * 1024 ** _POWERS[(match[2] or "").lower()]) if match else None


_NANOSECONDS: Final = {"ns": 1, "us": 1000, "µs": 1000, "μs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9,
                       "h": 3600 * 10**9, "d": 86400 * 10**9, "w": 7 * 86400 * 10**9}  # fmt: skip
_PART: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(ns|us|µs|μs|ms|s|m|h|d|w)")


def duration(value: str) -> str | None:
    """A duration as Go prints it ("1m30s"); None when it is none."""
    sign, rest = ("-", value[1:]) if value[:1] == "-" else ("", value.removeprefix("+"))
    if rest == "0":
        return "0s"
    total, place = 0, 0
    while place < len(rest):
        match = _PART.match(rest, place)
        if match is None:
            return None
        total += int(Decimal(match[1]) * _NANOSECONDS[match[2]])
        place = match.end()
    if not rest or total >= 2**63:
        return None
    return sign + _printed(total) if total else "0s"


def _printed(total: int) -> str:
    if total < 10**9:
        for unit in ("ms", "µs", "ns"):
            if total >= _NANOSECONDS[unit]:
                return _trimmed(Decimal(total) / _NANOSECONDS[unit]) + unit
    seconds, below = divmod(total, 10**9)
    text = _trimmed(Decimal(seconds % 60) + Decimal(below) / 10**9) + "s"
    if seconds >= 60:
        text = f"{seconds // 60 % 60}m{text}"
    return f"{seconds // 3600}h{text}" if seconds >= 3600 else text


def _trimmed(value: Decimal) -> str:
    fixed = format(value, "f")
    return fixed.rstrip("0").rstrip(".") if "." in fixed else fixed


def split_words(line: str) -> list[str] | None:
    """Split a command line as docker compose v2 does, with quotes and backslashes, without variables and globs.

    The words of `line` up to an unquoted `;`, `&`, `|`, `<` or `>`; None when it cannot be split."""
    words: list[str] = []
    word = ""
    begun = escaped = False
    quote = ""
    for char in line:
        if escaped:
            word += char
            begun, escaped = True, False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote:
            if char == quote:
                quote = ""
                if char == "`":
                    word += char
            else:
                word += char
        elif char in "'\"`":
            quote, begun = char, True
            if char == "`":
                word += char
        elif char in " \t\r\n":
            if begun:
                words.append(word)
            word, begun = "", False
        elif char in ";&|<>":
            if char == ">" and word[:1].isdigit():
                begun = False  # `2>` is a redirection, and no word
            break
        elif (char == "(" and not word.endswith("$")) or (char == ")" and "$(" not in word):
            return None
        else:
            word += char
            begun = True
    if quote or escaped:
        return None
    return [*words, word] if begun else words
