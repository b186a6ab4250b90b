"""Sessions of programs on this machine: finding their members in /proc, recording them, ending them.

A session is everything that a leader and its descendants are, until one of them makes a session of its own. The kernel
does not give a session's number to another process while the session has members; it is proved to be the recorded one
by its leader's start time and the boot it was seen in.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandboxer.errors import BackendError
from sandboxer.timing import Deadline

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """What /proc/PID/stat says of a process: its session, whether it runs (no zombie), its start in clock ticks."""

    pid: int
    session: int
    start: int
    alive: bool


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as its record names it: `PID.START.BOOT_ID`."""

    leader: int
    start: int
    boot_id: str


def parse_stat(pid: int, stat: bytes) -> ProcessStat:
    """A line of /proc/PID/stat (proc_pid_stat(5)); the name in it may hold spaces, parentheses and newlines."""
    fields = stat[stat.rindex(b")") + 2 :].split()
    return ProcessStat(pid, session=int(fields[3]), start=int(fields[19]), alive=fields[0] not in (b"Z", b"X"))


def process(pid: int) -> ProcessStat | None:
    """The process with this number, or None."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return parse_stat(pid, file.read())
    except (FileNotFoundError, ProcessLookupError):
        return None


def processes() -> Iterator[ProcessStat]:
    """Every process that can be seen."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - plain names, and no Path for each
        if name.isdigit() and (found := process(int(name))) is not None:
            yield found


def boot_id() -> str:
    """What tells this boot of the machine from others."""
    return _BOOT_ID.read_text().strip()


def record_name(session: SessionRecord) -> str:
    """The name of a session's record."""
    return f"{session.leader}.{session.start}.{session.boot_id}"


def parse_record(name: str) -> SessionRecord | None:
    """The session that a record's name tells of; None for a file that is no record."""
    leader, _, rest = name.partition(".")
    start, _, boot = rest.partition(".")
    if not (leader.isdigit() and start.isdigit() and boot):
        return None
    return SessionRecord(int(leader), int(start), boot)


def is_leader_alive(session: SessionRecord) -> bool:
    """Whether the recorded leader still is that very process."""
    found = process(session.leader)
    if found is None or session.boot_id != boot_id():
        return False
    return found.start == session.start and found.session == session.leader


def end_session(leader: int, deadline: Deadline) -> None:
    """Kill everything in the session, the leader last; raises BackendError when something will not die.

    The caller has made sure that the number still means the session (its leader is our unreaped child, or was compared
    with its record); keeping the leader until the end keeps that true while we work."""
    own, empty = deadline.shorter(10), 0
    # what is started after a listing was read is not in it, although the one who started it may be seen dead a moment
    # later: so nothing is left only when two looks in a row see nothing
    while empty < 2:
        members = [found for found in processes() if found.session == leader and found.alive]
        empty = 0 if members else empty + 1
        for member in [found for found in members if found.pid != leader] or members:
            _kill(member.pid)
        if members and own.passed:
            raise BackendError(
                f"{len(members)} processes of session {leader} do not end",
                hint=f"look at them with: ps -s {leader} -o pid,stat,args",
                outcome="unknown",
            )


def end_recorded(track: Path, deadline: Deadline) -> int:
    """End every recorded session below `track` that still lives, and remove the records; how many lived.

    Records are believed only in a directory of ours that nobody else can write: whoever owns a folder above may put
    another in its place, with records that name any process."""
    try:
        opened = os.open(track, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return 0
        raise
    try:
        status = os.fstat(opened)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return 0
        return _end_named(opened, deadline)
    finally:
        os.close(opened)


def _end_named(track: int, deadline: Deadline) -> int:
    names, ended = sorted(os.listdir(track)), 0
    for name in names:
        session = parse_record(name)
        if session is None:
            continue
        if is_leader_alive(session):
            end_session(session.leader, deadline)
            ended += 1
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=track)
    return ended


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise BackendError(
            f"process {pid} belongs to another user and cannot be ended", hint=f"end it yourself: sudo kill -9 {pid}"
        ) from error
