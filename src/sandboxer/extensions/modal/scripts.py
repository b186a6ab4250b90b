"""The shell programs that run inside a sandbox. All of them are given their inputs as arguments."""

from __future__ import annotations

from typing import Final

from sandboxer.extensions.shell.scripts import follow

END_FILE: Final = "/tmp/.sandboxer-end"  # noqa: S108 - inside the sandbox, where /tmp is in every image
"""Where the keeper looks when the sandbox shall end: seconds of its own uptime, a clock that nobody sets."""

KEEPER: Final = f"""\
read -r up _ </proc/uptime || exit 70
end=$((${{up%.*}} + $1 + 1))
shift
printf '%s\\n' "$end" >{END_FILE} || exit 70
[ "$#" -eq 0 ] || "$@" </dev/null &
while :; do
  read -r later <{END_FILE} && end=$later
  read -r up _ </proc/uptime
  left=$((end - ${{up%.*}}))
  [ "$left" -gt 0 ] || exit 0
  sleep "$left"
done
"""
"""A sandbox's main program: it ends, and the sandbox with it, when the agreed life is over, whether or not anybody of
ours is there to see to it. Arguments: seconds, then a program to run beside. It looks again only when it would end,
since a life is prolonged and never cut short. Durations come in, not instants: the clocks may differ."""

READY: Final = f"""\
tries=0
until [ -s {END_FILE} ]; do
  tries=$((tries + 1))
  [ "$tries" -le 200 ] && sleep 0.005 || exit 1
done
"""
"""Whether the keeper is at work; waits a moment itself, since being asked again costs more."""

PROLONG: Final = f"""\
read -r up _ </proc/uptime && printf '%s\\n' $((${{up%.*}} + $1 + 1)) >{END_FILE}.new && mv {END_FILE}.new {END_FILE}
"""
"""Let the keeper end the sandbox that many seconds from now."""

RUN: Final = 'printf "%s\\n" "$$"; [ -z "$1" ] || cd -- "$1" || exit 126; shift; exec "$@"'
RUN_ALONE: Final = RUN + " </dev/null"
"""Tells its process id in a first line, by which it can be killed, enters a directory, and becomes the command. The
shell also makes 126 and 127 of what cannot be run, which the provider's own exec does not promise. `RUN_ALONE` is for
a command without an input: that saves the message that would end it."""

KILL: Final = """\
root=$1
[ "$root" -gt 1 ] || exit 1
doomed=" $root "
again=1
while [ "$again" = 1 ]; do
  again=0
  for entry in /proc/[0-9]*; do
    pid=${entry#/proc/}
    case $doomed in *" $pid "*) continue ;; esac
    line=
    read -r line 2>/dev/null <"$entry/stat" || [ -n "$line" ] || continue
    set -- ${line##*) }
    case $doomed in *" $2 "*) ;; *) [ "$4" = "$root" ] || continue ;; esac
    kill -STOP "$pid" 2>/dev/null
    doomed="$doomed$pid "
    again=1
  done
  [ "$again" = 1 ] || [ -n "$killed" ] || { kill -KILL $doomed 2>/dev/null; killed=1 again=1; }
done
kill -KILL $doomed 2>/dev/null
exit 0
"""
"""Kill a process, its session and all its descendants: these are stopped first, so that none is born meanwhile. Once
it is dead a second look finds what it started last, by its session."""

KIND: Final = (
    'if [ -d "$1" ]; then echo directory; elif [ -e "$1" ] || [ -L "$1" ]; then echo file; else echo absent; fi'
)
UNPACK: Final = 'mkdir -p -- "$1" && cd -- "$1" && exec tar -x -p --no-same-owner -f -'
PACK: Final = (
    'case "$2" in .|..) cd -- "$1/$2" || exit 44; here=$(pwd); set -- "${here%/*}/" "${here##*/}" ;; esac; '
    '[ -e "$1/$2" ] || [ -L "$1/$2" ] || exit 44; cd -- "$1" || exit 44; '
    + follow()
    + 'exec tar -c $follow -f - -- "$name"'
)
"""DIRECTORY NAME: pack it (`packing.follow`)."""
