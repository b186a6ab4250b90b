"""Hold the shell scripts that run inside a sandbox. All of them are given their inputs as arguments."""

from __future__ import annotations

from typing import Final

from sandboxer.extensions.shell.processes import ENTER

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
  [ "$left" -le 60 ] || left=60
  sleep "$left"
done
"""
"""A sandbox's main program: it ends, and the sandbox with it, when the agreed life is over, whether or not anybody of
ours is there to see to it. Arguments: seconds, then a program to run beside. It looks again every minute,
since a life may be cut short too. Durations come in, not instants: the clocks may differ."""

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

RUN: Final = 'printf "%s\\n" "$$"; ' + ENTER + 'exec "$@"'
RUN_ALONE: Final = RUN + " </dev/null"
"""Tells its process id in a first line, by which it can be killed, enters a directory, and becomes the command. The
shell also makes 126 and 127 of what cannot be run, which the provider's own exec does not promise. `RUN_ALONE` is for
a command without an input: that saves the message that would end it."""
