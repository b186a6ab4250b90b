"""rsync's exclude patterns and its per-directory .gitignore filter, for the way without rsync.

The meaning is that of rsync(1), "PATTERN MATCHING RULES", as `--exclude` and `--filter=':- .gitignore'` use it: the
first pattern that matches decides; `/` in front anchors to where the rule stands; `/` behind means directories; `*`
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
    """One pattern, compared with paths relative to where it stands. `keep` is a rule that includes."""

    matcher: re.Pattern[str]
    directories_only: bool
    keep: bool
    base: str

    def matches(self, relative: str, *, is_directory: bool) -> bool:
        """Whether it decides about this path (relative to the tree's top, without a leading slash)."""
        if self.directories_only and not is_directory:
            return False
        if self.base and not relative.startswith(self.base):
            return False
        return self.matcher.fullmatch(relative[len(self.base) :]) is not None


def rule(pattern: str, *, base: str = "", keep: bool = False) -> Rule:
    """A pattern that stands in directory `base` (`` or ending in `/`)."""
    directories_only = pattern.endswith("/") and len(pattern) > 1
    bare = pattern[:-1] if directories_only else pattern
    expression = _expression(bare.removeprefix("/"))
    if not bare.startswith("/"):
        # with a slash or ** inside, it may start at any directory; else it is about the last name
        expression = f"(?:.*/)?{expression}"
    return Rule(re.compile(expression, re.DOTALL), directories_only, keep, base)


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
            out, i = out + f"[{inside}]", end + 1
        else:
            out, i = out + re.escape(char), i + 1
    return out


def gitignore_rules(text: str, *, base: str) -> list[Rule]:
    """The rules of one .gitignore, as rsync's `:-` filter reads them: each line is an exclude; `#` and `;` start a
    comment; a lone `!` clears nothing here, and `!pattern` is taken as git means it: keep."""
    rules = []
    for line in text.splitlines():
        pattern = line.rstrip()
        if not pattern or pattern[0] in "#;":
            continue
        keep = pattern.startswith("!") and len(pattern) > 1
        try:
            rules.append(rule(pattern.removeprefix("!") if keep else pattern, base=base, keep=keep))
        except re.error:
            continue
    return rules


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
            # the nearest file's rules come first, but what the caller excluded stays excluded
            here = [*here[: len(self.exclude)], *gitignore_rules(text, base=prefix), *here[len(self.exclude) :]]
        for entry in sorted(os.scandir(directory), key=lambda found: found.name):
            relative = prefix + entry.name
            mode = entry.stat(follow_symlinks=False).st_mode
            is_directory = stat.S_ISDIR(mode)
            decided = next((r for r in here if r.matches(relative, is_directory=is_directory)), None)
            if decided is not None and not decided.keep:
                continue
            if is_directory:
                yield Path(entry.path), relative
                yield from self._walk(Path(entry.path), relative + "/", here)
            elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                yield Path(entry.path), relative
