"""Hold the shell scripts that run inside. POSIX sh; besides it needs `setsid`, `base64`, and the usual small tools.

The toolbox runs a text in a shell and answers with one string, in which stdout and stderr are mixed and bytes that are
not UTF-8 are lost. So a command gets files of its own: START launches it in a session of its own, its output to two
files, and waits a little; FOLLOW waits and tells what is new; END kills it with all that it started. Each answer is

    <token> <state> <code>
    <base64 of what is new of stdout>
    =
    <base64 of what is new of stderr>
    =

state: run, done (with the exit code), lost (there is no such command), late (it was ended before it began), lacks
(something is missing, and it was not begun). What a person or program asked to run is never part of these texts: it
comes by descriptor 3, its input (base64) by 4, so that neither words nor values appear in anybody's argv but the
command's own.

Every program that is started here is a part of what a command costs; so there are as few as can be.
"""

from __future__ import annotations

import shlex
from typing import Final

from sandboxer.extensions.shell.processes import KILL_TREE_FUNCTION

PREFIX: Final = "/tmp/.sbx-exec-"  # noqa: S108 - inside a sandbox; the name is random, the files are the user's alone
"""What the files of one command begin with: .st (it is begun), .sid, .in, .out, .err, .code."""

_TELL: Final = r"""
tell() {
  echo "$sbxt $1 $2"
  [ ! -s "$sbxp.out" ] || part "$sbxp.out" "$3"
  echo =
  [ ! -s "$sbxp.err" ] || part "$sbxp.err" "$4"
  echo =
}
none() { echo "$sbxt $1 $2"; echo =; echo =; exit 0; }
"""

# The job becomes the command by exec, so its end is the command's own: 126, 127 and 128 + n come from there. Its end
# also ends the nap in which START waits. What was told in whole is removed after the answer: most commands need one
# request. The variables are called as no variable of a sandbox is: the command inherits those that were exported.
START: Final = (
    _TELL
    + r"""
part() { if [ "$sbxbig" ]; then head -c "$sbxmax" "$1" | base64; else base64 <"$1"; fi; }
sbxt=$1 sbxp=$2 sbxwait=$3 sbxmax=$4 sbxkind=$5 sbxjob=/dev/fd/3
for sbxneed in setsid base64; do command -v "$sbxneed" >/dev/null 2>&1 || none lacks "$sbxneed"; done
umask 077
set -C
true 2>/dev/null >"$sbxp.st" || none late
set +C
if [ "$6" ]; then sbxjob=$sbxp.job; base64 -d <&3 >"$sbxjob" || none lacks space; fi
case $sbxkind in
  whole) base64 -d <&4 >"$sbxp.in" || none lacks space; sbxin=$sbxp.in;;
  live) base64 -d <&4 >"$sbxp.i0"; sbxin=$sbxp.feed; mkfifo "$sbxin";;
  *) sbxin=/dev/null;;
esac
: >"$sbxp.out"; : >"$sbxp.err"
sleep "$sbxwait" </dev/null >/dev/null 2>&1 3<&- 4<&- &
sbxnap=$!
(
  exec 4<&-
  ( . "$sbxjob" ) <"$sbxin" >>"$sbxp.out" 2>>"$sbxp.err" &
  echo "$!" >"$sbxp.sid"
  exec 3<&-
  wait "$!"
  echo $? >"$sbxp.code"
  [ -e "$sbxp.up" ] || kill "$sbxnap"
) </dev/null >/dev/null 2>&1 &
exec 3<&- 4<&-
if [ "$sbxkind" = live ]; then
  (sbxn=0; until [ -s "$sbxp.code" ]; do
    if [ -f "$sbxp.i$sbxn" ]; then cat "$sbxp.i$sbxn" || exit; rm -f "$sbxp.i$sbxn"; sbxn=$((sbxn + 1))
    elif [ -f "$sbxp.iend" ]; then exit
    else sleep 0.05 || sleep 1; fi
  done) >"$sbxin" 2>/dev/null </dev/null &
fi
wait "$sbxnap" 2>/dev/null
: >"$sbxp.up"
sbxbig= sbxcode=
if [ -s "$sbxp.out" ] || [ -s "$sbxp.err" ]; then
  set -- $(wc -c "$sbxp.out" "$sbxp.err")
  [ "$1" -lt "$sbxmax" ] && [ "$3" -lt "$sbxmax" ] || sbxbig=1
fi
[ -s "$sbxp.code" ] || { tell run 0 0 0; exit 0; }
read -r sbxcode <"$sbxp.code"
tell done "$sbxcode" 0 0
[ "$sbxbig" ] || rm -f "$sbxp".* >/dev/null 2>&1 </dev/null &
"""
)

# Whether it has ended is looked at before its output is, so that `done` is never told without the last of it.
FOLLOW: Final = (
    _TELL
    + r"""
part() {
  if [ "$2" = 0 ]; then head -c "$max" "$1" | base64; else tail -c "+$(($2 + 1))" "$1" | head -c "$max" | base64; fi
}
sbxt=$1 sbxp=$2 looks=$3 max=$4 out=$5 err=$6 n=$7 last=$8
[ -e "$sbxp.sid" ] || none lost
if [ "$n" ]; then
  umask 077
  base64 -d <&4 >"$sbxp.new" && mv "$sbxp.new" "$sbxp.i$n"
fi
[ ! "$last" ] || : >"$sbxp.iend"
while :; do
  state=run code=0
  if [ -s "$sbxp.code" ]; then state=done; read -r code <"$sbxp.code"; fi
  [ "$state" = run ] && [ "$looks" -gt 0 ] || break
  [ "$(wc -c <"$sbxp.out")" -gt "$out" ] && break
  [ "$(wc -c <"$sbxp.err")" -gt "$err" ] && break
  sleep 0.1 || sleep 1
  looks=$((looks - 1))
done
tell "$state" "$code" "$out" "$err"
"""
)

# A mark that is made here, because the command has not begun, keeps it from beginning later.
END: Final = (
    KILL_TREE_FUNCTION
    + r"""
p=$1
set -C
true 2>/dev/null >"$p.st" && { echo ended; exit 0; }
looks=0
until [ -s "$p.sid" ] || [ "$looks" -ge 40 ]; do sleep 0.05 || sleep 1; looks=$((looks + 1)); done
read -r sid <"$p.sid" || exit 0
kill_tree "$sid" && echo ended
rm -f "$p".*
"""
)

FORGET: Final = 'rm -f "$1".*'


def text(script: str, *words: str, job: str = "", data: str = "", mark: str) -> str:
    """Write what the toolbox's shell (zsh, bash or sh) reads: `script` with `words`, and `job` and `data` at
    descriptors 3 and 4. Everything is quoted: that shell sees one simple command with here-documents, each ended by a
    line with the random `mark` that no text can hold."""
    lines = ["exec " + shlex.join(["sh", "-c", script, "sbx", *words]) + " </dev/null"]
    for number, part in ((3, job), (4, data)):
        lines[0] += f" {number}<<'{mark}-{number}'"
        lines += [part, f"{mark}-{number}"]
    return "\n".join(lines) + "\n"
