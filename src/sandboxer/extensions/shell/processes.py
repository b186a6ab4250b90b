"""Start a command inside by a shell, and kill it with everything that it started."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

ENTER: Final = '[ -z "$1" ] || cd -- "$1" || exit 126; shift; '
"""DIRECTORY WORD...: enter the directory (nothing: stay), and leave the words. 126: it cannot be entered."""

KILL_TREE_FUNCTION: Final = """\
stat_of() {
  line=
  while IFS= read -r part || [ -n "$part" ]; do line=$line$part; done 2>/dev/null <"/proc/$1/stat" || return 1
  line=${line##*) }
  [ -n "$line" ]
}
kill_tree() {
  [ "$1" -gt 1 ] || return 2
  root=$1 known=" $1 " round=0
  while [ $round -lt 50 ]; do
    new= alive=
    for entry in /proc/[0-9]*; do
      pid=${entry#/proc/}
      stat_of "$pid" || continue
      set -- $line
      case $known in
        *" $pid "*) ;;
        *)
          case $known in
            *" $2 "*) ;;
            *) [ "$3" = "$root" ] || [ "$4" = "$root" ] || continue ;;
          esac
          kill -STOP "$pid" 2>/dev/null
          known="$known$pid " new=1
          ;;
      esac
      case $1 in Z | X) ;; *) alive="$alive $pid" ;; esac
    done
    if [ -z "$new" ]; then
      [ -n "$alive" ] || return 0
      kids=
      read -r kids 2>/dev/null <"/proc/$root/task/$root/children"
      kill -KILL "$root" $alive 2>/dev/null
      known="$known$kids "
      [ $round -lt 5 ] || sleep 0.05 2>/dev/null || sleep 1
    fi
    round=$((round + 1))
  done
  return 1
}
"""
"""`kill_tree PID`: kill that process, its session, its group and all that is below it. 0 once nothing of it lives, 1
when something does, 2 for the numbers that stand for everything there is (0: the kernel's own; 1: what all are below).

They are stopped before the first is killed, so that none is born meanwhile: whose parent has gone is nobody's child.
The first itself is not: who waits for it may stop with it, and would not see its end. So its children are looked up
when it is killed. A name may hold anything, so what counts in its line stands behind the last parenthesis."""

KILL_TREE: Final = KILL_TREE_FUNCTION + 'kill_tree "$1"\n'
"""PID: the same as a script."""


def command(argv: Sequence[str]) -> list[str]:
    """The words of a command for a shell's `exec`, which would take a program that begins with `-` for an option."""
    return ["env", "--", *argv] if argv and argv[0].startswith("-") else list(argv)
