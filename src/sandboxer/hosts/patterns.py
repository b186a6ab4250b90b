"""Which paths of a tree are copied: rsync's exclude patterns for the way without rsync, and .gitignore for both ways.

The meaning of a pattern is that of rsync(1), "PATTERN MATCHING RULES", as `--exclude` uses it: any pattern that matches
leaves a path out; `/` in front anchors to the top; `/` behind means directories; `*` stops at `/`, `**` does not; a
pattern without `/` is compared with the last name alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandboxer.errors import Invalid
from sandboxer.hosts.gitignore import FILE_NAME, Ignore, as_text, below, ignored
from sandboxer.hosts.gitignore import read as read_gitignore
from sandboxer.hosts.globs import ONE, Characters, Glob, Run, Skip, Step, compiled
from sandboxer.timing import Deadline

MAX_ENTRIES: Final = 5_000_000
"""The most names in a tree that is walked here. (Chromium's sources have 500,000.)"""
MAX_DEPTH: Final = 512
"""How deep a tree may be."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One exclude pattern."""

    glob: Glob
    directories_only: bool
    anchored: bool

    def matches(self, relative: str, *, is_directory: bool) -> bool:
        """Whether it is about this path (relative to the tree's top, without a leading slash)."""
        if self.directories_only and not is_directory:
            return False
        # the leading slash lets a pattern start at any directory, and `**/` match nothing
        return self.glob.matches(relative if self.anchored else f"/{relative}")


def rule(pattern: str) -> Rule:
    """A pattern as rsync understands it."""
    directories_only = pattern.endswith("/") and len(pattern) > 1
    bare = pattern[:-1] if directories_only else pattern
    anchored = bare.startswith("/")
    bare = bare.removeprefix("/")
    # a backslash escapes only in a pattern that has a wildcard
    steps = _steps(bare) if any(char in bare for char in "*?[") else [bare]
    if not anchored and not bare.startswith("**"):
        steps = [Run(slashes=True), "/", *steps]
    return Rule(compiled(steps), directories_only, anchored)


def _steps(pattern: str) -> list[Step]:
    if pattern.endswith("/***"):
        return [*_steps(pattern[:-4]), Skip(2), "/", Run(slashes=True)]
    out: list[Step] = []
    i = 0
    while i < len(pattern):
        char = pattern[i]
        if pattern.startswith("**", i):
            out.append(Run(slashes=True))
            i += 2
        elif char == "*":
            out.append(Run(slashes=False))
            i += 1
        elif char == "?":
            out.append(ONE)
            i += 1
        elif char == "\\" and i + 1 < len(pattern):
            out.append(pattern[i + 1])
            i += 2
        elif char == "[" and (end := pattern.find("]", i + 2)) > 0:
            out.append(_members(pattern[i + 1 : end]))
            i = end + 1
        else:
            out.append(char)
            i += 1
    return out


def _members(inside: str) -> Characters:
    negated = inside[0] in "!^"
    inside = inside[negated:]
    ranges: list[tuple[str, str]] = []
    at = 0
    while at < len(inside):
        is_range = inside[at + 1 : at + 2] == "-" and at + 2 < len(inside)
        ranges.append((inside[at], inside[at + 2 if is_range else at]))
        at += 3 if is_range else 1
    return Characters(tuple(ranges), negated)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which paths of a tree are copied."""

    exclude: Sequence[str]
    gitignore: bool = False

    def walk(self, top: Path, deadline: Deadline | None = None) -> Iterator[tuple[Path, str]]:
        """Every regular file, directory and symbolic link to copy, parents first: path and name in the archive. Raises
        OSError for a directory or a .gitignore file that cannot be read, Invalid for a tree or such a file that is too
        large, and Timeout at the deadline."""
        yield top, "."
        excluded = [rule(pattern) for pattern in self.exclude]
        waiting: list[tuple[Path, str, list[Ignore]]] = [(top, "", [])]
        entries = 0
        while waiting:
            directory, prefix, rules = waiting.pop()
            if prefix.count("/") > MAX_DEPTH:
                raise Invalid(f"{top} is deeper than {MAX_DEPTH} directories", hint="give a smaller tree")
            if self.gitignore:
                own = read_gitignore(directory, base=as_text(prefix))
                rules = below(rules, own, source=str(directory / FILE_NAME))
            deeper: list[tuple[Path, str, list[Ignore]]] = []
            for entry in sorted(os.scandir(directory), key=lambda found: found.name):
                entries += 1
                if entries > MAX_ENTRIES:
                    raise Invalid(f"{top} holds more than {MAX_ENTRIES} names", hint="give a smaller tree")
                if deadline is not None:
                    deadline.check(f"reading {top}")
                relative = prefix + entry.name
                mode = entry.stat(follow_symlinks=False).st_mode
                is_directory = stat.S_ISDIR(mode)
                if any(one.matches(relative, is_directory=is_directory) for one in excluded):
                    continue
                if rules and ignored(rules, as_text(relative), is_directory=is_directory, deadline=deadline):
                    continue
                if is_directory:
                    deeper.append((Path(entry.path), relative + "/", rules))
                if is_directory or stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                    yield Path(entry.path), relative
            waiting += reversed(deeper)
