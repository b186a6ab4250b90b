"""What /proc knows of the processes on this machine, and ending exactly some of them."""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .waiting import eventually

MARK = f"7{os.getpid()}"
"""Begins the numbers of seconds that the tests of this process sleep, so that others' sleeps are told from them."""


@dataclass(frozen=True)
class Process:
    """One process; `start` tells it from a later one with the same number."""

    pid: int
    parent: int
    start: int
    name: str
    command: str
    zombie: bool

    def mentions(self, words: Iterable[str]) -> str | None:
        """The first of the words found in its command line, working directory or environment."""
        places = [self.command, self._working_directory(), _read(self.pid, "environ")]
        return next((word for word in words if any(word in place for place in places)), None)

    def root_mount(self) -> str:
        """The line of its mount table for `/`: names the engine's folders for a process in a container."""
        lines = _read(self.pid, "mountinfo").splitlines()
        return next((line for line in lines if line.split()[4:5] == ["/"]), "")

    def alive(self) -> bool:
        """Still the same process, and not merely waiting to be reaped."""
        now = look(self.pid)
        return now is not None and now.start == self.start and not now.zombie

    def send(self, number: signal.Signals) -> None:
        """Signal it; one that is gone already is no error."""
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _working_directory(self) -> str:
        try:
            return str(Path(f"/proc/{self.pid}/cwd").readlink())
        except OSError:
            return ""


def look(pid: int) -> Process | None:
    """The process with this number, if there is one."""
    stat = _read(pid, "stat")
    if not stat:
        return None
    name, rest = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
    command = _read(pid, "cmdline").replace("\0", " ").strip()
    return Process(pid, int(rest[1]), int(rest[19]), name, command or f"[{name}]", rest[0] in "ZX")


def everyone() -> Iterator[Process]:
    """All processes that are alive now."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (process := look(int(entry.name))) and not process.zombie:
            yield process


def descendants(pid: int) -> list[Process]:
    """Children, their children and so on, as of now."""
    family, found = {pid}, list[Process]()
    by_age = sorted(everyone(), key=lambda process: process.start)
    while new := [process for process in by_age if process.parent in family and process.pid not in family]:
        family.update(process.pid for process in new)
        found.extend(new)
    return found


def ancestors() -> set[int]:
    """Our own process and all above it."""
    line, pid = set[int](), os.getpid()
    while pid > 0 and pid not in line:
        line.add(pid)
        process = look(pid)
        pid = process.parent if process else 0
    return line


def end(processes: Iterable[Process], *, grace: float = 1.0) -> None:
    """SIGTERM, and SIGKILL for what is alive after the grace time; returns when all are gone."""
    them = list(processes)
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        for process in them:
            process.send(number)
        try:
            eventually(lambda: not any(process.alive() for process in them), within=patience, what="processes to end")
            return
        except TimeoutError:
            if number is signal.SIGKILL:
                raise


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
    except OSError:
        return ""
