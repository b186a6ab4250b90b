"""Record the repository as the policy saw it, and compare what lies on the host with that.

A repository may change between the judgement and the sending. So every answer that the gate was given is remembered,
and the same questions are asked of the copy on the host, which no container has touched yet. What is missing there (it
was left out, or went away) harms nobody; what is different, or new where the gate looked, is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from sandboxer.errors import BackendError, Conflict, Invalid
from sandboxer.extensions.compose_ssh.policy import SourceTree
from sandboxer.extensions.compose_ssh.policy.verdict import Kind

_MARKS: Final[dict[str, Kind]] = {"l": "link", "d": "directory", "f": "file", "o": "other", "-": "missing"}


class RecordingTree:
    """A tree that remembers what it said."""

    def __init__(self, tree: SourceTree) -> None:
        self._tree = tree
        self._kinds: dict[str, Kind] = {}
        self._hashes: dict[str, str | None] = {}
        self._targets: dict[str, str] = {}
        self._entries: dict[str, Mapping[str, Kind]] = {}

    def kind(self, path: str) -> Kind:
        """What is at `path`."""
        found = self._kinds[path] = self._tree.kind(path)
        return found

    def read(self, path: str) -> bytes | None:
        """The bytes of the regular file at `path`."""
        data = self._tree.read(path)
        self._hashes[path] = None if data is None else hashlib.sha256(data).hexdigest()
        return data

    def entries(self, path: str) -> Mapping[str, Kind]:
        """What lies directly in the directory at `path`."""
        found = self._entries[path] = self._tree.entries(path)
        return found

    def target(self, path: str) -> str:
        """What the link at `path` says."""
        found = self._targets[path] = self._tree.target(path)
        return found

    def questions(self, more: Sequence[str] = ()) -> bytes:
        """What to ask of the copy, for the `observe` script: a line for each path, the kind of question before it;
        `more` paths that must not be reached by a link. Raises Invalid for a name that does not fit on a line."""
        looked = dict.fromkeys([*self._kinds, *self._targets, *self._entries, *more])
        parents = dict.fromkeys(parent for path in [*looked, *self._hashes] for parent in _parents(path))
        tops = [path for path in self._entries if not any(parent in self._entries for parent in _parents(path))]
        lines = [f"p {path}" for path in {**looked, **parents} if path not in self._hashes]
        lines += [f"r {path}" for path in self._hashes]
        lines += ["=", *(f"t {path}" for path in tops)]
        if any("\n" in line for line in lines):
            raise Invalid("a file that the stack uses has a line break in its name", hint="rename it")
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")

    def compare(self, answer: bytes) -> None:
        """Raise Conflict where the copy is another one than was judged. `answer` as of the `observe` script: fields
        with a NUL behind each: path, kind, hash and target of every path asked for, then `//`, which is no path, then
        the links below the directories (path and target). Raises BackendError for one that is cut off."""
        fields = answer.decode("utf-8", "surrogateescape").split("\0")
        split = next((at for at in range(0, len(fields), 4) if fields[at] == "//"), -1)
        told, links = fields[:split], fields[split + 1 : -2]
        if fields[-2:] != ["end", ""] or split < 0 or len(links) % 2:
            raise BackendError("the host's look at what was sent is cut off", hint="try again", outcome="unknown")
        for path, mark, digest, target in zip(told[::4], told[1::4], told[2::4], told[3::4], strict=True):
            self._compare_one(path, _MARKS.get(mark, "other"), digest, target)
        for path, target in zip(links[::2], links[1::2], strict=True):
            self._compare_link(path, target)

    def _compare_one(self, path: str, kind: Kind, digest: str, target: str) -> None:
        if kind == "missing":
            return
        judged = self._kinds.get(path) or self._listed(path)
        if (judged is not None and judged != kind) or (judged is None and kind == "link"):
            raise _changed(path)
        if kind == "file" and path in self._hashes and self._hashes[path] != digest:
            raise _changed(path)
        if kind == "link" and path in self._targets and self._targets[path] != target:
            raise _changed(path)

    def _compare_link(self, path: str, target: str) -> None:
        parent, _, name = path.rpartition("/")
        while parent not in self._entries and parent:
            parent, _, name = parent.rpartition("/")
        known = self._entries.get(parent, {}).get(name)
        inner = f"{parent}/{name}" if parent else name
        if known is None or (inner == path and known != "link"):
            raise _changed(path)
        if inner == path and path in self._targets and self._targets[path] != target:
            raise _changed(path)

    def _listed(self, path: str) -> Kind | None:
        parent, _, name = path.rpartition("/")
        return self._entries.get(parent, {}).get(name)


def _parents(path: str) -> Iterator[str]:
    """The directories above `path`, "" for the top, which has none."""
    while path:
        path = path.rpartition("/")[0]
        yield path


def _changed(path: str) -> Conflict:
    return Conflict(
        f"{path[:200]!r} of the repository changed while it was sent: what lies on the host is not what was judged",
        hint="create it again while nobody writes to the repository",
    )
