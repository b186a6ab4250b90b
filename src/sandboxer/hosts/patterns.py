"""Which paths of a tree are copied: rsync's exclude patterns for the way without rsync, and .gitignore for both ways.

The meaning of a pattern is that of rsync(1), "PATTERN MATCHING RULES", as `--exclude` uses it: any pattern that matches
leaves a path out; `/` in front anchors to the top; `/` behind means directories; `*` stops at `/`, `**` does not; a
pattern without `/` is compared with the last name alone.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandboxer.hosts.gitignore import Ignore, as_text, ignored
from sandboxer.hosts.gitignore import read as read_gitignore


@dataclass(frozen=True, slots=True)
class Rule:
    """One exclude pattern."""

    matcher: re.Pattern[str]
    directories_only: bool
    anchored: bool

    def matches(self, relative: str, *, is_directory: bool) -> bool:
        """Whether it is about this path (relative to the tree's top, without a leading slash)."""
        if self.directories_only and not is_directory:
            return False
        # the leading slash lets a pattern start at any directory, and `**/` match nothing
        compared = relative if self.anchored else f"/{relative}"
        return self.matcher.fullmatch(compared) is not None


def rule(pattern: str) -> Rule:
    """A pattern as rsync understands it."""
    directories_only = pattern.endswith("/") and len(pattern) > 1
    bare = pattern[:-1] if directories_only else pattern
    anchored = bare.startswith("/")
    bare = bare.removeprefix("/")
    # a backslash escapes only in a pattern that has a wildcard
    expression = _expression(bare) if re.search(r"[*?\[]", bare) else re.escape(bare)
    if not anchored and not bare.startswith("**"):
        expression = f"(?:.*)/{expression}"
    return Rule(re.compile(expression, re.DOTALL), directories_only, anchored)


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


@dataclass(frozen=True, slots=True)
class Filter:
    """Which paths of a tree are copied."""

    exclude: Sequence[str]
    gitignore: bool = False

    def walk(self, top: Path) -> Iterator[tuple[Path, str]]:
        """Every regular file, directory and symbolic link to copy, parents first: path and name in the archive. Raises
        OSError for a directory or a .gitignore file that cannot be read."""
        yield top, "."
        excluded = [rule(pattern) for pattern in self.exclude]
        waiting: list[tuple[Path, str, list[Ignore]]] = [(top, "", [])]
        while waiting:
            directory, prefix, above = waiting.pop()
            rules = above + read_gitignore(directory, base=as_text(prefix)) if self.gitignore else above
            below: list[tuple[Path, str, list[Ignore]]] = []
            for entry in sorted(os.scandir(directory), key=lambda found: found.name):
                relative = prefix + entry.name
                mode = entry.stat(follow_symlinks=False).st_mode
                is_directory = stat.S_ISDIR(mode)
                if any(one.matches(relative, is_directory=is_directory) for one in excluded):
                    continue
                if rules and ignored(rules, as_text(relative), is_directory=is_directory):
                    continue
                if is_directory:
                    below.append((Path(entry.path), relative + "/", rules))
                if is_directory or stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                    yield Path(entry.path), relative
            waiting += reversed(below)
