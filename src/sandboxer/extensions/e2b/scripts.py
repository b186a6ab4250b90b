"""The shell text that runs inside sandboxes: POSIX sh, with programs that every Debian has. Values are arguments."""

from __future__ import annotations

from typing import Final

from sandboxer.extensions.shell.scripts import REFUSED, follow

_CD: Final = '[ -z "$1" ] || cd "$1" || exit 126; shift; '
_SESSION: Final = (
    # a session of its own, so that all of it can be found later; not where the process leads a group already, because
    # setsid would then leave us without waiting
    'IFS= read -r s <"/proc/$$/stat"; s=${s##*) }; s=${s#* }; s=${s#* }; '
    'if [ "${s%% *}" != "$$" ] && command -v setsid >/dev/null 2>&1; then exec setsid "$@"; fi; '
)
RUN: Final = _CD + _SESSION + 'exec "$@"'
"""WORKDIR WORD...: become the command, in a session of its own. 126: the directory cannot be entered."""
RUN_CLOSED: Final = "exec </dev/null; " + RUN
"""The same without an input."""
RUN_FROM: Final = 'f=$1; shift; exec <"$f" || exit 125; rm -f "$f"; ' + RUN
"""FILE WORKDIR WORD...: the same with a file as the input."""
RUN_TERMINAL: Final = _CD + 'exec "$@"'
"""The same on a terminal, whose process leads its session already."""

KILL: Final = """\
[ "$1" -gt 1 ] || exit 2
known=" $1 "; round=0
while [ $round -lt 50 ]; do
  alive= new=
  for f in /proc/[0-9]*/stat; do
    IFS= read -r s <"$f" || continue
    p=${f#/proc/}; p=${p%/stat}; s=${s##*) }; state=${s%% *}; s=${s#* }; parent=${s%% *}; s=${s#* }
    group=${s%% *}; s=${s#* }; session=${s%% *}
    case $known in
      *" $p "*) ;;
      *" $parent "*) known="$known$p "; new=1 ;;
      *) [ "$group" = "$1" ] || [ "$session" = "$1" ] || continue; known="$known$p "; new=1 ;;
    esac
    [ "$state" = Z ] || [ "$state" = X ] || alive="$alive $p"
  done 2>/dev/null
  # all are known before the first is killed: whose parent has gone is nobody's child
  if [ -z "$new" ]; then
    [ -n "$alive" ] || exit 0
    kill -9 $alive 2>/dev/null
  fi
  round=$((round + 1))
done
exit 1
"""
"""PID: kill that process, its session, its group and everything below it; 0 once nothing of it is left. Numbers that
stand for everything there is (0, the kernel's own; 1, which everything is below) are refused."""

KIND: Final = (
    'if [ -d "$1" ]; then echo directory; elif [ -e "$1" ] || [ -L "$1" ]; then echo file; else echo absent; fi'
)
UNPACK: Final = 'mkdir -p -- "$1" && cd "$1" && tar -x -p --no-same-owner -f "$2"; s=$?; rm -f "$2"; exit $s'
"""DIRECTORY ARCHIVE: unpack there, and remove the archive."""
PACK: Final = (
    '[ -e "$1/$2" ] || [ -L "$1/$2" ] || exit 44; '
    'cd "$1" || exit 45; ' + follow(failed=REFUSED) + '(umask 077; : >"$3") || exit 45; '
    'tar -c $follow -f "$3" -- "$name"; s=$?; [ $s = 0 ] || rm -f "$3"; exit $s'
)
"""DIRECTORY NAME ARCHIVE: pack it (`packing.follow`). 44: it is absent."""
