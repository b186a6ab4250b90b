"""Walking a tree by descriptor: a directory that is swapped with a link meanwhile leads nowhere."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from sandboxer.errors import Invalid
from sandboxer.hosts.trees import beneath
from sandboxer.hosts.trees.gitignore import FILE_NAME, MAX_BYTES, IgnoreRule, as_text, ignored, parse
from sandboxer.hosts.trees.gitignore import below as with_own
from sandboxer.hosts.trees.rsync_patterns import rule
from sandboxer.timing import Deadline

MAX_ENTRIES: Final = 5_000_000
"""The most names in a tree that is walked here. (Chromium's sources have 500,000.)"""
MAX_DEPTH: Final = 512
"""How deep a tree may be."""
NAMED: Final = 20
"""How many of the entries that are not copied are told by name."""
_CHANGED: Final = frozenset({errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENODEV})


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One file, directory or link: `at` is its directory's descriptor, open until the next entry is asked for."""

    at: int
    name: str
    relative: str
    status: os.stat_result

    @property
    def kind(self) -> int:
        """Its type, as in `stat.S_IFMT`."""
        return stat.S_IFMT(self.status.st_mode)

    def open(self) -> int | None:
        """The file's descriptor; None when it is no such file any more."""
        try:
            fd = beneath.open_at(self.at, self.name)
        except OSError as error:
            if error.errno in _CHANGED:
                return None
            raise
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return None

    def target(self) -> str | None:
        """Where the link leads; None when it is no link any more."""
        try:
            return os.readlink(self.name, dir_fd=self.at)
        except OSError as error:
            if error.errno in (errno.EINVAL, *_CHANGED):
                return None
            raise


@dataclass(slots=True)
class TreeWalk:
    """The regular files, directories and links of a tree that are copied, parents first, the top as `.`.

    `name` is the tree's in messages. `special` counts what is neither, `special_names` are the first of them; `gone`
    counts what went away or became something else meanwhile. Raises OSError for what cannot be read, Invalid for a tree
    or a .gitignore file that is too large, Timeout at the deadline."""

    exclude: Sequence[str] = ()
    gitignore: bool = False
    special: int = 0
    gone: int = 0
    deadline: Deadline | None = None
    name: str = "the tree"
    special_names: list[str] = field(default_factory=list)
    _seen: int = 0

    @property
    def note(self) -> str | None:
        """What to tell of the devices, sockets and pipes that are not copied."""
        if not self.special:
            return None
        names = [*self.special_names, *(["..."] if self.special > len(self.special_names) else [])]
        return f"{self.special} left out, being devices, sockets or pipes: {', '.join(names)}"

    def entries(self, top: int) -> Iterator[TreeEntry]:
        """Each entry below the open directory `top`."""
        yield TreeEntry(top, ".", ".", os.fstat(top))
        rules = [rule(pattern) for pattern in self.exclude]
        waiting: list[tuple[str, list[IgnoreRule]]] = [("", [])]
        while waiting:
            prefix, above = waiting.pop()
            at = self._enter(top, prefix)
            if at is None:
                continue
            try:
                ignores = self._ignores(at, prefix, above) if self.gitignore else above
                below: list[tuple[str, list[IgnoreRule]]] = []
                for name in sorted(os.listdir(at)):  # noqa: PTH208 - of a descriptor
                    self._count(prefix)
                    relative = prefix + name
                    try:
                        status = os.stat(name, dir_fd=at, follow_symlinks=False)
                    except FileNotFoundError:
                        self.gone += 1
                        continue
                    entry = TreeEntry(at, name, relative, status)
                    is_directory = entry.kind == stat.S_IFDIR
                    if any(one.matches(relative, is_directory=is_directory) for one in rules):
                        continue
                    if self._ignored(ignores, relative, is_directory=is_directory):
                        continue
                    if is_directory:
                        below.append((relative + "/", ignores))
                    if entry.kind in (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK):
                        yield entry
                    else:
                        self.special += 1
                        if len(self.special_names) < NAMED:
                            self.special_names.append(relative)
                waiting += reversed(below)
            finally:
                os.close(at)

    def _count(self, prefix: str) -> None:
        self._seen += 1
        if self._seen > MAX_ENTRIES:
            raise Invalid(f"{self.name} holds more than {MAX_ENTRIES} names", hint="give a smaller tree")
        if prefix.count("/") > MAX_DEPTH:
            raise Invalid(f"{self.name} is deeper than {MAX_DEPTH} directories", hint="give a smaller tree")
        if self.deadline is not None:
            self.deadline.check(f"reading {self.name}")

    def _ignored(self, ignores: Sequence[IgnoreRule], relative: str, *, is_directory: bool) -> bool:
        if not ignores:
            return False
        return ignored(ignores, as_text(relative), is_directory=is_directory, deadline=self.deadline)

    def _enter(self, top: int, prefix: str) -> int | None:
        # from the top each time: a tree is deeper than there are descriptors
        try:
            return beneath.open_at(top, prefix or ".", os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if not prefix or error.errno not in _CHANGED:
                raise
            self.gone += 1
            return None

    def _ignores(self, at: int, prefix: str, above: list[IgnoreRule]) -> list[IgnoreRule]:
        """The rules from above with those of the directory's .gitignore file; a link is none, as for git."""
        source = f"{self.name}/{prefix}{FILE_NAME}"
        try:
            fd = beneath.open_at(at, FILE_NAME)
        except OSError as error:
            if error.errno in _CHANGED:
                return above
            raise OSError(error.errno, error.strerror, source) from error
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return above
            return with_own(above, parse(file.read(MAX_BYTES + 1), base=as_text(prefix), source=source), source=source)
