"""Scripts for files on a host that has nothing but a POSIX shell: constant text, with paths as arguments."""

from __future__ import annotations

from typing import Final

from sandboxer.hosts.process.launch import SYSTEM_FIRST

WRITE: Final = SYSTEM_FIRST + (
    "umask 077; d=${1%/*}; [ -n \"$d\" ] || d=/; mkdir -p \"$d\" || exit 1; "
    '[ ! -d "$1" ] || { echo "$1: is a directory" >&2; exit 1; }; '
    't=$d/.sbx-$$-$4; trap \'rm -f "$t"\' EXIT; cat >"$t" || exit 1; '
    '[ "$(wc -c <"$t")" -eq "$3" ] || { echo "only a part of $1 arrived" >&2; exit 1; }; '
    'chmod "$2" "$t" && mv -f "$t" "$1"'
)  # fmt: skip
"""Writes stdin to the absolute path $1 with mode $2, all of its $3 bytes or nothing; $4 makes the temporary name ours.

The length is checked because a connection that breaks looks like the end of the file from there."""

READ: Final = SYSTEM_FIRST + 'if [ -d "$1" ]; then echo "$1: is a directory" >&2; exit 1; fi; LC_ALL=C exec cat "$1"'
"""Writes the absolute path $1 to stdout."""
ABSENT: Final = (b"No such file or directory", b"Not a directory")
"""How `cat` (GNU, busybox, LC_ALL=C) says that there is no such file; a path below an unreadable directory is no such
case, and may exist."""

FACTS: Final = SYSTEM_FIRST + 'command -v rsync >/dev/null && echo rsync || echo -; printf %s "$HOME"'
"""Prints whether rsync is there, and on the next line (which may go on) the home directory."""

KEEP_HEADER: Final = SYSTEM_FIRST + 'umask 077; t=$(mktemp) && cat >"$t" && echo "$t"'
"""Keeps stdin in a new file and prints its name: for a command on a terminal, which cannot carry a header."""
