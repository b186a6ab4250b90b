"""Split an instruction of a Dockerfile into flags, words and labels, as far as all builders split it alike."""

from __future__ import annotations

import json
import re
from typing import Final

_FLAG: Final = re.compile(r"--([A-Za-z][A-Za-z-]*)(?:=([A-Za-z0-9_./:@,$+%=~{}*-]*))?(?: +|$)")
"""Without quotes, backslashes and letters of two bytes: builders also split flags at bytes that are a space alone."""
_LABEL: Final = re.compile(
    r"""\s*(?:"([^"\\$]+)"|'([^'\\$]+)'|([^\s"'\\$=]+))=(?:"(?:[^"\\]|\\.)*"|'[^']*'|\\.|[^\s"'\\])*(?=\s|$)"""
)
_OLD_LABEL: Final = re.compile(r"""([^\s"'\\$=]+)(?:\s.*|$)""")


def split_flags(rest: str) -> tuple[list[tuple[str, str]], str]:
    """The flags, and the rest: it begins with `--` where a flag is of another form."""
    flags, place = [], 0
    while match := _FLAG.match(rest, place):
        flags.append((match[1].lower(), match[2] or ""))
        place = match.end()
    return flags, rest[place:]


def label_names(rest: str) -> list[str] | None:
    """The names in a LABEL; None where they cannot be told."""
    keys, place = [], 0
    while match := _LABEL.match(rest, place):
        keys.append(match[1] or match[2] or match[3])
        place = match.end()
    if "`" in rest or not rest:
        return None  # it may be an escape
    if place == 0 and (match := _OLD_LABEL.fullmatch(rest)):
        return [match[1]]
    return keys if keys and place == len(rest) else None


def is_address(source: str) -> bool:
    """Whether a builder may take it for an address."""
    scp = "@" in source and ":" in source
    return scp or "://" in source or source.startswith("github.com/") or source.partition("#")[0].endswith(".git")


def split_words(rest: str) -> list[str]:
    """The words of an instruction, or those of the list that it has instead."""
    if rest.startswith("["):
        try:
            found = json.loads(rest)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list) and all(isinstance(item, str) for item in found):
            return found
    return [_unquoted(word) for word in rest.split()]


def _unquoted(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'" else word
