"""rsync's exclude patterns and its per-directory .gitignore filter, for the way without rsync.

The meaning is that of rsync(1), "PATTERN MATCHING RULES", as `--exclude` and `--filter=':- .gitignore'` use it: any
pattern that matches leaves a path out; `/` in front anchors to where the rule stands; `/` behind means directories; `*`
stops at `/`, `**` does not; a pattern without `/` is compared with the last name alone.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Rule:
    """One exclude pattern that stands in directory `base` (`` or ending in `/`)."""

    matcher: re.Pattern[str]
    directories_only: bool
    anchored: bool
    base: str

    def matches(self, relative: str, *, is_directory: bool) -> bool:
        """Whether it is about this path (relative to the tree's top, without a leading slash)."""
        if self.directories_only and not is_directory:
            return False
        if not relative.startswith(self.base):
            return False
        # the leading slash lets a pattern start at any directory, and `**/` match nothing
        compared = relative[len(self.base) :] if self.anchored else f"/{relative}"
        return self.matcher.fullmatch(compared) is not None


def rule(pattern: str, *, base: str = "") -> Rule:
    """A pattern as rsync understands it."""
    directories_only = pattern.endswith("/") and len(pattern) > 1
    bare = pattern[:-1] if directories_only else pattern
    anchored = bare.startswith("/")
    expression = _expression(bare.removeprefix("/"))
    if not anchored and not bare.startswith("**"):
        expression = f"(?:.*)/{expression}"
    return Rule(re.compile(expression, re.DOTALL), directories_only, anchored, base)


def _expression(pattern: str) -> str:
    out, i = "", 0
    if pattern.endswith("/***"):
        return _expression(pattern[:-4]) + "(?:/.*)?"
    while i < len(pattern):
        char = pattern[i]
        if pattern.startswith("**", i):
            out, i = out + ".*", i + 2
        elif char == "*":
            out, i = out + "[^/]*", i + 1
        elif char == "?":
            out, i = out + "[^/]", i + 1
        elif char == "\\" and i + 1 < len(pattern):
            out, i = out + re.escape(pattern[i + 1]), i + 2
        elif char == "[" and (end := pattern.find("]", i + 2)) > 0:
            inside = pattern[i + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            if inside[0] in "!^":
                inside = "^" + inside[1:]
            out, i = out + f"(?!/)[{inside}]", end + 1
        else:
            out, i = out + re.escape(char), i + 1
    return out


def gitignore_rules(text: str, *, base: str) -> list[Rule]:
    """The rules of one .gitignore as rsync's `:-` filter reads them: each line is an exclude, `#` and `;` start a
    comment, and there is no `!`: what git would take back in stays out."""
    lines = re.split(r"[\r\n]", text)
    return [rule(line, base=base) for line in lines if line and line[0] not in "#;"]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which paths of a tree are copied."""

    exclude: Sequence[str]
    gitignore: bool = False

    def walk(self, top: Path) -> Iterator[tuple[Path, str]]:
        """Every regular file, directory and symbolic link to copy, parents first: path and name in the archive."""
        yield top, "."
        yield from self._walk(top, "", [rule(pattern) for pattern in self.exclude])

    def _walk(self, directory: Path, prefix: str, rules: Sequence[Rule]) -> Iterator[tuple[Path, str]]:
        here = list(rules)
        ignore = directory / ".gitignore"
        if self.gitignore and ignore.is_file():
            text = ignore.read_bytes().decode("utf-8", "surrogateescape")
            here += gitignore_rules(text, base=prefix)
        for entry in sorted(os.scandir(directory), key=lambda found: found.name):
            relative = prefix + entry.name
            mode = entry.stat(follow_symlinks=False).st_mode
            is_directory = stat.S_ISDIR(mode)
            if any(r.matches(relative, is_directory=is_directory) for r in here):
                continue
            if is_directory:
                yield Path(entry.path), relative
                yield from self._walk(Path(entry.path), relative + "/", here)
            elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                yield Path(entry.path), relative
