"""Which paths of a tree rsync's exclude patterns leave out, for the way without rsync.

The meaning of a pattern is that of rsync(1), "PATTERN MATCHING RULES", as `--exclude` uses it: any pattern that matches
leaves a path out; `/` in front anchors to the top; `/` behind means directories; `*` stops at `/`, `**` does not; a
pattern without `/` is compared with the last name alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandboxer.hosts.trees.globs import ONE, CharacterClass, Glob, Skip, Star, Step, compiled


@dataclass(frozen=True, slots=True)
class RsyncPattern:
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


def rule(pattern: str) -> RsyncPattern:
    """A pattern as rsync understands it."""
    directories_only = pattern.endswith("/") and len(pattern) > 1
    bare = pattern[:-1] if directories_only else pattern
    anchored = bare.startswith("/")
    bare = bare.removeprefix("/")
    # a backslash escapes only in a pattern that has a wildcard
    steps = _steps(bare) if any(char in bare for char in "*?[") else [bare]
    if not anchored and not bare.startswith("**"):
        steps = [Star(slashes=True), "/", *steps]
    return RsyncPattern(compiled(steps), directories_only, anchored)


def _steps(pattern: str) -> list[Step]:
    if pattern.endswith("/***"):
        return [*_steps(pattern[:-4]), Skip(2), "/", Star(slashes=True)]
    out: list[Step] = []
    i = 0
    while i < len(pattern):
        char = pattern[i]
        if pattern.startswith("**", i):
            out.append(Star(slashes=True))
            i += 2
        elif char == "*":
            out.append(Star(slashes=False))
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


def _members(inside: str) -> CharacterClass:
    negated = inside[0] in "!^"
    inside = inside[negated:]
    ranges: list[tuple[str, str]] = []
    at = 0
    while at < len(inside):
        is_range = inside[at + 1 : at + 2] == "-" and at + 2 < len(inside)
        ranges.append((inside[at], inside[at + 2 if is_range else at]))
        at += 3 if is_range else 1
    return CharacterClass(tuple(ranges), negated)
