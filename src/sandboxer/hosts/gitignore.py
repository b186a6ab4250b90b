"""What a tree's .gitignore files leave out, as git reads them (gitignore(5)), without asking git.

The last rule that matches decides, and those of deeper directories come later; `!` takes back in; what lies in a
directory that is left out cannot be taken back in. Names are compared byte by byte, as git does: all texts here are
bytes read as Latin-1. What git tracks although a rule leaves it out is left out too.

The library `pathspec` (1.1) was tried: the test that holds this against git itself finds rules that it reads otherwise,
among them those with classes such as `[[:alpha:]]`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILE_NAME: Final = ".gitignore"
_MARK: Final = b"\xef\xbb\xbf"
_NOTHING: Final = "(?!)"
_CLASSES: Final = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": " \\t\\n\\v\\f\\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


@dataclass(frozen=True, slots=True)
class Ignore:
    """One line of a .gitignore file that stands in directory `base` (`` or ending in `/`)."""

    matcher: re.Pattern[str]
    base: str
    whole_path: bool
    directories_only: bool
    back_in: bool

    def matches(self, relative: str, *, is_directory: bool) -> bool:
        """Whether it is about this path below `base` (relative to the tree's top, without a leading slash)."""
        if self.directories_only and not is_directory:
            return False
        compared = relative[len(self.base) :] if self.whole_path else relative.rpartition("/")[2]
        return self.matcher.fullmatch(compared) is not None


def as_text(name: str) -> str:
    """A file name of the operating system as it is compared here."""
    return os.fsencode(name).decode("latin-1")


def read(directory: Path, *, base: str) -> list[Ignore]:
    """The rules of the .gitignore file in `directory`, if there is one; a link is none, as for git. Raises OSError."""
    path = directory / FILE_NAME
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return []
    except FileNotFoundError:
        return []
    return parse(path.read_bytes(), base=base)


def parse(data: bytes, *, base: str = "") -> list[Ignore]:
    """The rules in a file's bytes, in their order."""
    lines = data.removeprefix(_MARK).decode("latin-1").split("\n")
    parsed = (_parse_line(line.removesuffix("\r"), base) for line in lines if not line.startswith("#"))
    return [one for one in parsed if one is not None]


def ignored(rules: Sequence[Ignore], relative: str, *, is_directory: bool) -> bool:
    """Whether the rules, those of the top directory first, leave a path out whose parents are all taken."""
    for one in reversed(rules):
        if one.matches(relative, is_directory=is_directory):
            return not one.back_in
    return False


def _parse_line(line: str, base: str) -> Ignore | None:
    pattern = _without_trailing_spaces(line)
    back_in = pattern.startswith("!")
    pattern = pattern.removeprefix("!")
    directories_only = pattern.endswith("/")
    pattern = pattern.removesuffix("/")
    if not pattern:
        return None
    return Ignore(
        matcher=re.compile(_expression(pattern.removeprefix("/")), re.DOTALL),
        base=base,
        whole_path="/" in pattern,
        directories_only=directories_only,
        back_in=back_in,
    )


def _without_trailing_spaces(line: str) -> str:
    end = index = 0
    while index < len(line):
        escaped = line[index] == "\\"
        if line[index] != " ":
            end = index + (2 if escaped else 1)
        index += 2 if escaped else 1
    return line[:end]


def _expression(pattern: str) -> str:
    out, i = "", 0
    while i < len(pattern):
        char = pattern[i]
        if char == "*":
            end = i
            while pattern[end : end + 1] == "*":
                end += 1
            alone = end - i == 2 and (i == 0 or pattern[i - 1] == "/") and pattern[end : end + 1] in ("", "/")
            if alone and pattern[end : end + 1] == "/":
                out, i = out + "(?:.*/)?", end + 1
            else:
                out, i = out + (".*" if alone else "[^/]*"), end
        elif char == "?":
            out, i = out + "[^/]", i + 1
        elif char == "[":
            members, i = _bracket(pattern, i + 1)
            out += members
        elif char == "\\":
            if i + 1 == len(pattern):
                return _NOTHING
            out, i = out + re.escape(pattern[i + 1]), i + 2
        else:
            out, i = out + re.escape(char), i + 1
    return out


def _bracket(pattern: str, i: int) -> tuple[str, int]:
    """The expression for `[...]`, whose inside begins at `i`, and where it ends. One without an end matches nothing."""
    negated = pattern[i : i + 1] in ("!", "^")
    i += negated
    members, first, before = "", True, ""
    while i < len(pattern) and (first or pattern[i] != "]"):
        first = False
        named = re.compile(r"\[:([^\]:]*):\]").match(pattern, i)
        if named is not None:
            if named[1] not in _CLASSES:
                return _NOTHING, len(pattern)
            members, before, i = members + _CLASSES[named[1]], "", named.end()
            continue
        is_range = pattern[i] == "-" and bool(before) and pattern[i + 1 : i + 2] not in ("", "]")
        i += is_range
        i += pattern[i] == "\\"
        if i >= len(pattern):
            return _NOTHING, i
        char = pattern[i]
        if not is_range:
            members, before = members + re.escape(char), char
        else:
            if before <= char:
                members += f"{re.escape(before)}-{re.escape(char)}"
            before = ""
        i += 1
    if i >= len(pattern):
        return _NOTHING, i
    return f"(?!/)[{'^' if negated else ''}{members}]", i + 1
