"""Counting what there is before and after, on this machine and in its engines: what is new was left behind.

before = Census.take(engines=[docker], dirs=[work_dir])
...
assert not Census.take(engines=[docker], dirs=[work_dir]) - before
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from . import mounts, processes
from .engines import Engine

MARKS = ("sbx-",)
SHARED = ("aardvark-dns",)
"""Programs of an engine that serve all its networks and end with the last of them: whoever came first started them, and
they carry its environment. A network of ours that is left shows as a network."""


@dataclass(frozen=True)
class Census:
    """What was there: each thing is one line that says what it is and where."""

    found: frozenset[str]

    @classmethod
    def take(
        cls,
        *,
        engines: Sequence[Engine] = (),
        dirs: Iterable[Path] = (),
        marks: Sequence[str] = MARKS,
        images: bool = False,
    ) -> Self:
        """Look now.

        engines  all containers, pods, networks (but the default ones), volumes, network namespaces and interfaces of
                 these, mounts below their folders, and images if asked for
        dirs     entries with `sbx-` or a mark in their name, in these folders
        marks    processes with one of these words in command line, environment or working directory; mounts and network
                 namespaces with one in their path. The default finds every sandbox on the machine, those of other test
                 runs too: give sandbox names or folders of your own where runs share a machine.
        """
        found = set[str]()
        for engine in engines:
            for kind, names in engine.resources().items():
                found.update(f"{engine.name} {kind.removesuffix('s')} {name}" for name in names)
            found.update(f"{engine.name} interface {name}" for name in engine.interfaces())
            found.update(f"network namespace {path}" for path in engine.namespaces())
            if images:
                found.update(f"{engine.name} image {name}" for name in engine.images())
        for folder in dirs:
            if folder.is_dir():
                entries = (entry for entry in folder.iterdir() if any(mark in entry.name for mark in (*MARKS, *marks)))
                found.update(f"{'directory' if entry.is_dir() else 'file'} {entry}" for entry in entries)
        found.update(_processes(marks))
        words = [*marks, *(f" {engine.root}/" for engine in engines)]
        found.update(f"mount {point}" for point in mounts.mentioning(words) if not point.endswith("/netns/default"))
        found.update(f"network namespace {path}" for path in _named_namespaces(marks))
        return cls(frozenset(found))

    def __sub__(self, before: "Census") -> list[str]:
        """What is here and was not before, one line each; empty when nothing was left behind."""
        return sorted(self.found - before.found)


def _processes(marks: Sequence[str]) -> Iterable[str]:
    ours = processes.ancestors()
    for process in processes.everyone():
        if process.pid in ours or Path(process.command.split(" ")[0]).name in SHARED:
            continue
        if mark := process.mentions(marks):
            yield f"process {process.pid} {process.command[:150]} ({mark})"


def _named_namespaces(marks: Sequence[str]) -> Iterable[str]:
    folder = Path("/run/netns")
    names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208
    return [f"{folder}/{name}" for name in names if any(mark in name for mark in marks)]
