"""What a tree's .gitignore files leave out, as git reads them (gitignore(5)), without asking git.

The last rule that matches decides, and those of deeper directories come later; `!` takes back in; what lies in a
directory that is left out cannot be taken back in. Names are compared byte by byte, as git does: all texts here are
bytes read as Latin-1. What git tracks although a rule leaves it out is left out too.

The library `pathspec` (1.1) was tried: the test that holds this against git itself finds rules that it reads otherwise,
among them those with classes such as `[[:alpha:]]`.

The files are a stranger's: they are read up to a size, matched without regular expressions (`globs`), and the time that
many rules and many names take ends with the deadline.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sandboxer.errors import Invalid
from sandboxer.hosts.trees.globs import DIRECTORIES, NOTHING, ONE, CharacterClass, Glob, Star, Step, compiled
from sandboxer.timing import Deadline

FILE_NAME: Final = ".gitignore"
MAX_BYTES: Final = 1 << 20
"""The largest file that is read, in bytes. (Linux's own, one of the longest, has 3 KiB.)"""
MAX_LINE: Final = 4096
"""The longest rule: no path is longer."""
MAX_RULES: Final = 20_000
"""The most rules that hold for one directory, with those of the directories above."""
_MARK: Final = b"\xef\xbb\xbf"
_CHECKED: Final = 64
"""How many rules are tried between looks at the clock."""
_CLASSES: Final = {
    "alnum": ("09", "AZ", "az"),
    "alpha": ("AZ", "az"),
    "blank": ("  ", "\t\t"),
    "cntrl": ("\x00\x1f", "\x7f\x7f"),
    "digit": ("09",),
    "graph": ("!~",),
    "lower": ("az",),
    "print": (" ~",),
    "punct": ("!/", ":@", "[`", "{~"),
    "space": ("  ", "\t\r"),
    "upper": ("AZ",),
    "xdigit": ("09", "AF", "af"),
}


@dataclass(frozen=True, slots=True)
class IgnoreRule:
    """One line of a .gitignore file that stands in directory `base` (`` or ending in `/`)."""

    glob: Glob
    base: str
    whole_path: bool
    directories_only: bool
    back_in: bool

    def matches(self, relative: str, *, is_directory: bool) -> bool:
        """Whether it is about this path below `base` (relative to the tree's top, without a leading slash)."""
        if self.directories_only and not is_directory:
            return False
        compared = relative[len(self.base) :] if self.whole_path else relative.rpartition("/")[2]
        return self.glob.matches(compared)


def as_text(name: str) -> str:
    """A file name of the operating system as it is compared here."""
    return os.fsencode(name).decode("latin-1")


def parse(data: bytes, *, base: str = "", source: str = FILE_NAME) -> list[IgnoreRule]:
    """The rules in a file's bytes, in their order. Raises Invalid, which calls the file `source`, for too many rules
    and for one that is too long: to pass over one would copy what it leaves out."""
    if len(data) > MAX_BYTES:
        raise Invalid(f"{source} is larger than {MAX_BYTES // 1024} KiB", hint="is this the right file?")
    parsed: list[IgnoreRule] = []
    for number, line in enumerate(data.removeprefix(_MARK).decode("latin-1").split("\n"), 1):
        if line.startswith("#"):
            continue
        if len(line) > MAX_LINE:
            raise Invalid(f"{source}, line {number}: longer than {MAX_LINE} bytes", hint="shorten or remove that line")
        one = _parse_line(line.removesuffix("\r"), base)
        if one is not None:
            parsed.append(one)
    return below([], parsed, source=source)


def below(above: list[IgnoreRule], own: list[IgnoreRule], *, source: str = FILE_NAME) -> list[IgnoreRule]:
    """The rules of a directory: those from above, and then its own. Raises Invalid when they are too many."""
    if len(above) + len(own) > MAX_RULES:
        raise Invalid(f"{source}: more than {MAX_RULES} rules hold there", hint="remove what is not needed")
    return above + own if own else above


def ignored(
    rules: Sequence[IgnoreRule], relative: str, *, is_directory: bool, deadline: Deadline | None = None
) -> bool:
    """Whether the rules, those of the top directory first, leave a path out whose parents are all taken. Raises Timeout
    at the deadline."""
    for number, one in enumerate(reversed(rules), 1):
        if deadline is not None and number % _CHECKED == 0:
            deadline.check("reading .gitignore files")
        if one.matches(relative, is_directory=is_directory):
            return not one.back_in
    return False


def _parse_line(line: str, base: str) -> IgnoreRule | None:
    pattern = _without_trailing_spaces(line)
    back_in = pattern.startswith("!")
    pattern = pattern.removeprefix("!")
    directories_only = pattern.endswith("/")
    pattern = pattern.removesuffix("/")
    if not pattern:
        return None
    return IgnoreRule(
        glob=compiled(_steps(pattern.removeprefix("/"))),
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


def _steps(pattern: str) -> list[Step]:
    out: list[Step] = []
    i = 0
    while i < len(pattern):
        char = pattern[i]
        if char == "*":
            end = i
            while pattern[end : end + 1] == "*":
                end += 1
            alone = end - i == 2 and (i == 0 or pattern[i - 1] == "/") and pattern[end : end + 1] in ("", "/")
            if alone and pattern[end : end + 1] == "/":
                out += DIRECTORIES
                i = end + 1
            else:
                out.append(Star(slashes=alone))
                i = end
        elif char == "?":
            out.append(ONE)
            i += 1
        elif char == "[":
            members, i = _bracket(pattern, i + 1)
            out.append(members)
        elif char == "\\":
            if i + 1 == len(pattern):
                return [NOTHING]
            out.append(pattern[i + 1])
            i += 2
        else:
            out.append(char)
            i += 1
    return out


def _bracket(pattern: str, i: int) -> tuple[CharacterClass, int]:
    """The step for `[...]`, whose inside begins at `i`, and where it ends. One without an end matches nothing."""
    negated = pattern[i : i + 1] in ("!", "^")
    i += negated
    members: list[tuple[str, str]] = []
    first, before = True, ""
    while i < len(pattern) and (first or pattern[i] != "]"):
        first = False
        if (name := _named(pattern, i)) is not None:
            if name not in _CLASSES:
                return NOTHING, len(pattern)
            members += [(one[0], one[1]) for one in _CLASSES[name]]
            before, i = "", i + len(name) + 4
            continue
        is_range = pattern[i] == "-" and bool(before) and pattern[i + 1 : i + 2] not in ("", "]")
        i += is_range
        i += pattern[i] == "\\"
        if i >= len(pattern):
            return NOTHING, i
        char = pattern[i]
        members.append((before if is_range else char, char))
        before = "" if is_range else char
        i += 1
    if i >= len(pattern):
        return NOTHING, i
    return CharacterClass(tuple(members), negated), i + 1


def _named(pattern: str, i: int) -> str | None:
    """The name of the class `[:name:]` that begins at `i`, if one does."""
    if not pattern.startswith("[:", i):
        return None
    end = i + 2
    while end < len(pattern) and pattern[end] not in ":]":
        end += 1
    return pattern[i + 2 : end] if pattern.startswith(":]", end) else None
