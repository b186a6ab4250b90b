"""Whether a directory is safe to run things from: nobody but its user and root can change what lies at its path.

As sshd's StrictModes: each directory on the way is ours or root's and not writable by others. A sticky directory is an
exception (what is ours in it stays ours), and so is a group that nobody else is in."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from sandboxer.errors import BackendError, Denied, Invalid
from sandboxer.hosts.base import Result
from sandboxer.hosts.process.launch import SYSTEM_FIRST

Why = Literal["owner", "others", "group"]

SCRIPT: Final = (
    SYSTEM_FIRST
    + r"""
me=$(id -u) || exit 1
alone() { # GID UID: whether nobody but that user is in the group
  entry() { getent "$1" 2>/dev/null || cat "/etc/$1" 2>/dev/null; }
  who=$(entry passwd | while IFS=: read -r name _ uid _; do [ "$uid" != "$2" ] || { echo "$name"; break; }; done)
  for name in $(entry group | while IFS=: read -r _ _ gid members; do
    [ "$gid" != "$1" ] || echo "$members" | tr ',' ' '; done); do
    [ "$name" = "$who" ] || return 1
  done
  for uid in $(entry passwd | while IFS=: read -r _ _ uid gid _; do [ "$gid" != "$1" ] || echo "$uid"; done); do
    [ "$uid" = "$2" ] || return 1
  done
}
look() { # PATH: says what is wrong with it
  line=$(LC_ALL=C ls -ldn -- "$1") || exit 1
  path=$1
  set -f; set -- $line; set +f
  case $3 in 0 | "$me") ;; *) echo "owner $3 $path"; exit ;; esac
  case $1 in
    l* | ?????????[tT]*) ;;
    ????????w*) echo "others $3 $path"; exit ;;
    ?????w*) alone "$4" "$3" || { echo "group $3 $path"; exit; } ;;
  esac
}
way() { # PATH: it, and all above it
  at=$1
  while [ -n "$at" ]; do look "$at"; at=${at%/*}; done
  look /
}
for wanted in "$1" "$1/.sandboxer"; do
  there=${wanted%/}
  while [ -n "$there" ] && [ ! -d "$there" ]; do there=${there%/*}; done
  if [ "$there" != "$wanted" ] && [ "$wanted" = "$1" ]; then
    case $(LC_ALL=C ls -ldn -- "${there:-/}") in ????????w*) umask 077; mkdir -p -- "$wanted" && there=$wanted ;; esac
  fi
  way "$there"
  real=$(cd -P -- "${there:-/}" && pwd -P) || continue
  [ "$real" = "$there" ] || way "${real%/}"
done
echo fine
"""
)
"""$1 is an absolute path: prints `fine`, or why it is not safe, a uid, and where. What is missing in a directory that
everybody may write is made, so that nobody else makes it between this look and its use."""


class UnsafeDirectory(msgspec.Struct, frozen=True):
    """The first thing on the way that is not safe."""

    why: Why
    uid: int
    path: str


def examine(path: Path, *, trusted: int = 0) -> UnsafeDirectory | None:
    """What is not safe about a directory of this machine, which may be missing yet; None when all is well. What
    belongs to the user `trusted` is taken as if it were ours."""
    for wanted in (path, path / ".sandboxer"):
        there = next(place for place in (wanted, *wanted.parents) if place.is_dir())
        if there != wanted and wanted == path and there.stat().st_mode & stat.S_IWOTH:
            _make(path)  # so that nobody else makes it between this look and its use
            there = wanted
        for way in dict.fromkeys((there, there.resolve())):
            for place in (way, *way.parents):
                if (fault := _fault(place, trusted)) is not None:
                    return fault
    return None


def _make(path: Path) -> None:
    if path.is_dir():
        return
    _make(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def _fault(place: Path, trusted: int) -> UnsafeDirectory | None:
    status = place.lstat()
    if status.st_uid not in (0, os.geteuid(), trusted):
        return UnsafeDirectory("owner", status.st_uid, str(place))
    if stat.S_ISLNK(status.st_mode) or status.st_mode & stat.S_ISVTX:
        return None
    if status.st_mode & stat.S_IWOTH:
        return UnsafeDirectory("others", status.st_uid, str(place))
    if status.st_mode & stat.S_IWGRP and any(_members(status.st_gid, status.st_uid)):
        return UnsafeDirectory("group", status.st_uid, str(place))
    return None


def _members(group: int, owner: int) -> Iterator[str]:
    """Who else is in a group."""
    import grp
    import pwd

    users = pwd.getpwall()
    names = {user.pw_name for user in users if user.pw_uid == owner}
    yield from (user.pw_name for user in users if user.pw_gid == group and user.pw_uid != owner)
    try:
        members = grp.getgrgid(group).gr_mem
    except KeyError:
        return
    yield from (name for name in members if name not in names)


def answered(result: Result, path: str, host: str) -> UnsafeDirectory | None:
    """What the script said. Raises BackendError when it could not look."""
    why, _, rest = result.stdout.decode("utf-8", "surrogateescape").rstrip("\n").partition(" ")
    uid, _, place = rest.partition(" ")
    if result.code == 0 and why == "fine":
        return None
    if result.code == 0 and why in ("owner", "others", "group") and uid.isdigit():
        return UnsafeDirectory(why, int(uid), place)  # type: ignore[arg-type]  # looked at just now
    raise BackendError(
        f"who may write above {path} on {host} cannot be seen: {result.complaint}", hint=f"look at it: ls -ld {path}"
    )


def refusal(fault: UnsafeDirectory, path: str, *, host: str, user: str, setting: str) -> Denied:
    """The error that says what to type. `user` is ours there, `setting` what could be set to another place."""
    quoted = shlex.quote(fault.path)
    if fault.why == "owner":
        what, mend = f"belongs to another user (uid {fault.uid})", f"chown {shlex.quote(user)} {quoted}"
    elif fault.why == "others":
        what, mend = "can be written by everybody", f"chmod o-w {quoted}"
    else:
        what, mend = "can be written by a group that others are in", f"chmod g-w {quoted}"
    return Denied(
        f"{fault.path} on {host} {what}, who could change what is run from {path}",
        hint=f"on {host}: {mend}; or set {setting} to a directory that only you and root can reach by writing",
    )


def check_utf8(path: str, *, host: str, setting: str) -> None:
    """Raise Invalid for a path that no handle and no record could hold."""
    if not is_utf8(path):
        raise Invalid(
            f"the work directory {path[:200]!r} of {host} is not written in UTF-8",
            hint=f"set {setting} to a path like /srv/sandboxer",
        )


def is_utf8(path: str) -> bool:
    """Whether a path is text, and not bytes that only look like it."""
    return not any("\ud800" <= character <= "\udfff" for character in path)


def this_user() -> str:
    """Our user's name here, or its number."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
