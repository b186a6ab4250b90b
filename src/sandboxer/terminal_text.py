"""Texts of strangers on a terminal: what would steer it, hide or turn text around is shown as an escape.

Left alone are letters of every script and what joins them; the bytes of a command inside (`exec`, `logs`) are its own.
"""

from __future__ import annotations

import re
from typing import Final

_SILENT: Final = re.compile(
    "[\x7f-\x9f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""DEL and the C1 controls, the marks that turn text around, line and paragraph separators, and what has no width."""
_SGR: Final = re.compile(r"(\x1b\[[0-9;]{1,4}m)")
COLOURS: Final = frozenset({"0", "1", "2", "31", "32", "33", "34", "35", "36", "1;31", "1;34"})
"""The colours that commands paint with: `8`, say, would hide what follows."""


def json_safe(text: str) -> str:
    """JSON with such characters as the escapes that JSON has for them: it means the same. (The C0 controls of strings
    are escaped already; outside of strings there are no others but line breaks.)"""
    if text.isascii() and "\x7f" not in text:
        return text
    return _SILENT.sub(_as_json, text)


def shown(text: str) -> str:
    """A text on one line, each control, separator and mark as a visible escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def shown_lines(text: str, *, painted: bool = False) -> str:
    """The same for a text of several lines; `painted`: colours of ours may be in it."""
    if not painted:
        return "\n".join(map(_with_tabs, text.split("\n")))
    return "".join(
        piece if n % 2 and piece[2:-1] in COLOURS else shown_lines(piece) for n, piece in enumerate(_SGR.split(text))
    )


def _with_tabs(line: str) -> str:
    return "\t".join(map(shown, line.split("\t")))


def _as_json(match: re.Match[str]) -> str:
    number = ord(match[0])
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"
