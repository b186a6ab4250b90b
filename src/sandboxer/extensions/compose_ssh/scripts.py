"""The shell texts that run on a host, each a batch of steps in one trip. Constants: nothing is ever put into them.

Their input comes as arguments (`$1` ...), which `argv.py` names, and on stdin. POSIX sh, as dash and busybox have it.
"""

from __future__ import annotations

from typing import Final

ABSOLUTE: Final = r"""
path=; set -f; IFS=:; for d in $PATH; do case $d in /*) path=$path:$d ;; esac; done; unset IFS; set +f; PATH=${path#:}
"""
"""Before each script: some of them work in what a stranger sent, where a PATH with `.` in it would find programs."""

CHECK: Final = r"""
front=$1 engine=$2; shift 2
others() { for o in docker-compose podman-compose; do command -v "$o" >/dev/null && echo "has $o"; done; exit 0; }
for p in "$front" "$engine"; do
  command -v -- "$p" >/dev/null || { echo "missing $p"; others; }
done
case ${engine##*/} in
  docker) "$engine" version --format '{{.Server.Version}}' </dev/null 2>&1 >/dev/null || { echo refused; exit 0; } ;;
esac
[ $# = 0 ] || "$@" </dev/null >/dev/null 2>&1 || { echo "missing $*"; others; }
echo fine
"""
"""$1 front end, $2 engine, the rest a command that shows that a plug-in is there. The answer is lines that begin with
missing, has, refused or fine."""

PREPARE: Final = r"""
umask 077; front=$1 engine=$2 dir=$3 state=$4
for p in "$front" "$engine"; do command -v -- "$p" >/dev/null || exit 6; done
case ${engine##*/} in docker) "$engine" version --format . </dev/null >/dev/null || exit 7 ;; esac
i=0; until mkdir -p "$state/sessions" "$state/project" 2>/dev/null; do
  i=$((i+1)); [ $i -lt 5 ] || { mkdir -p "$state/sessions" "$state/project"; exit; }
done
for f in handle.json marker.json; do
  IFS= read -r line && printf '%s\n' "$line" >"$state/$f.new" && mv -f "$state/$f.new" "$state/$f" || exit
done
: >"$state/project/.env" && cat >"$state/compose.yaml" && mkdir -p "$dir"
"""
"""$1 front end, $2 engine, $3 directory, $4 state; stdin: the handle (a line), the marker (a line), the rewritten
compose file. Exit 6: a program is missing; 7: docker's daemon does not let us in; nothing was made then. Making is
tried again because a teardown beside it may take the common parent away while that is empty."""

OBSERVE: Final = r"""
cd -- "$1" || exit
while IFS= read -r line && [ "$line" != = ]; do
  at=./${line#? } sum= to=
  if [ -h "$at" ]; then kind=l to=$(readlink "$at"); elif [ -d "$at" ]; then kind=d; elif [ -f "$at" ]; then
    kind=f; [ "${line%% *}" = p ] || { sum=$(sha256sum <"$at") || exit; }
  elif [ -e "$at" ]; then kind=o; else kind=-; fi
  printf '%s\0' "${line#? }" $kind "${sum%% *}" "$to"
done
printf '//\0'
while IFS= read -r line; do
  at=./${line#? }
  [ -d "$at" ] && [ ! -h "$at" ] || continue
  find "$at" -type l -exec sh -c 'for l do p=${l#.}; while [ "${p#/}" != "$p" ]; do p=${p#/}; done
    printf "%s\0" "$p" "$(readlink "$l")"; done' sh {} + || exit
done
printf 'end\0'
"""
"""$1 directory; stdin: lines `p PATH` and `r PATH` (with its hash), a line `=`, lines `t PATH` (a directory). The
answer is what `Observed.compare` reads."""

PIN: Final = r"""
dir=$1 to=$2; umask 077; mkdir -p "$to" || exit
while IFS= read -r path; do
  at=$dir/$path
  [ -e "$at" ] || [ -h "$at" ] || continue
  if [ -z "$path" ]; then cp -a "$dir/." "$to/" || exit; continue; fi
  case $path in */*) mkdir -p "$to/${path%/*}" || exit ;; esac
  rm -rf "$to/$path" && cp -a "$at" "$to/$path" || exit
done
"""
"""$1 directory, $2 where copies go; stdin: paths in the directory, an empty line for all of it. What is copied here is
mounted, and built from, instead of what a container may write."""

COMPOSE: Final = r"""
project=$1 state=$2 sha=$3; shift 3
compose() {
  exec 4<"$state/compose.yaml" || exit 125
  if [ -n "$sha" ]; then
    sum=$(sha256sum </dev/fd/4) && [ "${sum%% *}" = "$sha" ] ||
      { echo "the compose file in $state is not the one that was judged" >&2; exit 125; }
    export GIT_DIR=/dev/null BUILDX_GIT_INFO=false BUILDX_GIT_LABELS=false
  fi
  "$@" <&4 4<&-
}
"""
"""$1 where the command runs, $2 state, $3 hash of the compose file that was judged, or nothing for one that never was.
The only way in which a compose program is run: with the file on stdin, if it is still that one. buildx asks git about
each build context, and git runs programs that the settings of a `.git` in it name: of a judged repository git finds
nothing."""

UP: Final = r"""
dir=$1 keep=$2; shift 2
for n in $(awk 'BEGIN { for (n in ENVIRON) if (n ~ /^[A-Za-z_][A-Za-z0-9_]*$/) print n }'); do
  case $n in
    PATH|HOME|USER|LOGNAME|SHELL|PWD|LANG|LC_*|TZ|TMPDIR|XDG_*|DBUS_SESSION_BUS_ADDRESS|SSH_AUTH_SOCK) continue ;;
    COMPOSE_FILE|COMPOSE_PROJECT_*|COMPOSE_PROFILES|COMPOSE_ENV_FILES) ;;
    COMPOSE_*|DOCKER_*|BUILDKIT_*|BUILDX_*|BUILDAH_*|CONTAINER*|PODMAN_*|STORAGE_*|REGISTRY_AUTH_FILE) continue ;;
    http_proxy|https_proxy|no_proxy|all_proxy|HTTP_PROXY|HTTPS_PROXY|NO_PROXY|ALL_PROXY) continue ;; esac
  case " $keep " in *" $n "*) continue ;; esac
  unset "$n" 2>/dev/null
done
cd -- "$project" || exit 125
(compose "$@" >"$state/up.out" 2>"$state/up.err"); code=$?
if [ $code = 0 ]; then
  # by rename: a container that may write the directory could have put a link in its place
  umask 077; cp "$state/marker.json" "$state/copy" && mv -fT "$state/copy" "$dir/.sandboxer.json" || rm -f "$state/copy"
  exit
fi
tail -c 1500 "$state/up.out" >&2; tail -c 4000 "$state/up.err" >&2; exit $code
"""
"""Behind COMPOSE. $1 directory, $2 names of variables to keep, the rest the `up` command.

Only what the programs themselves need is left in their environment: a compose file interpolates whatever is there, and
what is there belongs to whoever runs the host. The marker comes last, so that it is in no build context."""

LOOK: Final = r"""
e=$1 filter=$2; shift 2
ids=$("$e" ps -aq --no-trunc --filter "$filter") || exit
while [ $# -gt 0 ]; do timeout -k 1 "$2" "$e" healthcheck run "$1" >/dev/null 2>&1 </dev/null & shift 2; done; wait
date +%s.%N
[ -n "$ids" ] || { echo '[]'; exit 0; }
exec "$e" inspect --type container $ids
"""
"""$1 engine, $2 label filter, then pairs of a container whose health check is to be run and its seconds."""

LAST_EXIT: Final = r"""
e=$1; shift
case ${e##*/} in
  podman) set -- --stream=false "$@" --filter event=died --format '{{.ContainerExitCode}}' ;;
  *) set -- --until 0s "$@" --filter event=die --format '{{.Actor.Attributes.exitCode}}' ;;
esac
"$e" events --since 10m "$@" </dev/null | tail -n 1
"""
"""$1 engine, the rest a filter: the exit code with which a container last ended, though it runs again by now."""

DESCRIBE: Final = r"""
e=$1 filter=$2
ids=$("$e" ps -aq --no-trunc --filter "$filter") || exit
show() { kind=$1; shift; echo "== ${kind}s"; [ $# -gt 0 ] || { echo '[]'; return; }; "$e" "$kind" inspect "$@"; }
show container $ids || exit
used=
[ -z "$ids" ] || used=$("$e" container inspect --format '{{range .Mounts}}{{println .Type .Name .Source}}{{end}}
{{range $n, $v := .NetworkSettings.Networks}}{{println "network" $n}}{{end}}' $ids | sort -u) || exit
names() { printf '%s\n' "$used" | sed -n "s/^$1 \([^ ]*\).*/\1/p" | grep -vx -e host -e none; }
show volume $(names volume) || exit
show network $(names network) || exit
echo '== info'
"$e" info --format '{{json .}}' || exit
echo '== paths'
printf '%s\n' "$used" | sed -n 's/^bind  *//p' | while IFS= read -r path; do
  printf '%s\n%s\n' "$path" "$(readlink -f -- "$path")"
done
echo '== end'
"""
"""$1 engine, $2 label filter: all that the engine shows of the project's containers, of what they use, and of itself;
and where the sources of their bind mounts lead, which the engine does not follow."""

DOWN: Final = r"""
[ -f "$state/compose.yaml" ] || exit 0
cd -- "$project" 2>/dev/null || cd -- "$state" || exit 125
compose "$@"
"""
"""Behind COMPOSE; its arguments are the `down` command. What it does not do because the file is another one, the sweep
by labels does."""

STOP: Final = r"""
: >"$state/stopped" && cd -- "$project" || exit
compose "$@"
"""
"""Behind COMPOSE; its arguments are the `stop` command. The mark tells it from a stack whose programs have ended."""

START: Final = r"""
cd -- "$project" && compose "$@" && rm -f -- "$state/stopped"
"""
"""Behind COMPOSE; its arguments are the `start` command."""

_LISTS: Final = r"""
e=$1 name=$2 dir=$3 state=$4
lab=label=com.docker.compose.project=$name own="name=^$name[-_]" bad=0
containers() { "$e" ps -aq --no-trunc --filter "$lab" && "$e" ps -aq --no-trunc --filter "$own"; }
networks() { "$e" network ls -q --no-trunc --filter "$lab" && "$e" network ls -q --no-trunc --filter "$own"; }
volumes() { "$e" volume ls -q --filter "$lab" && "$e" volume ls -q --filter "$own"; }
pods() { case ${e##*/} in podman) "$e" pod ps -q --no-trunc --filter "name=^pod_$name\$" ;; esac; }
images() { "$e" images --format '{{.Repository}}:{{.Tag}}' | grep -E "^(localhost/)?$name[-_]" | sort -u; }
"""

SWEEP: Final = (
    _LISTS
    + r"""
command -v -- "$e" >/dev/null || { [ ! -e "$dir" ] && [ ! -e "$state" ] && exit; exit 6; }
each() { kind=$1; shift; again=
  for try in 1 2 3 4 5 6; do  # podman keeps a container that another one depends on, until that one is gone
    found=$($kind) || { echo "$kind of $name could not be listed" >&2; bad=1; return; }
    [ -n "$found" ] && [ "$found" != "$again" ] || break
    again=$found said=$(for o in $(printf '%s\n' $found | sort -u); do
      why=$("$@" "$o" 2>&1 >/dev/null </dev/null) ||
        printf '%s %s: %s\n' "$kind" "$o" "$(printf '%s' "$why" | tail -n 1)"
    done)
  done
  [ -z "$found" ] || printf '%s\n' "$said" >&2; }
fast=; case ${e##*/} in podman) fast='-t 0' ;; esac
mkdir -p "$state" 2>/dev/null &&
  "$e" ps -a --no-trunc --filter "$lab" --format '{{.Image}}' 2>/dev/null | sort -u >>"$state/images"
each containers "$e" rm -f -v $fast
each pods "$e" pod rm -f $fast
each networks "$e" network rm
each volumes "$e" volume rm -f
if [ -f "$state/up.out" ]; then
  # a failed step of docker's old builder leaves its container, without any label. A build can print such a line of
  # its own, with another's container in it: only what has ended and has no labels is taken
  for o in $(sed -n 's/.*---> Running in \([0-9a-f]\{12\}\).*/\1/p' "$state/up.out"); do
    seen=$("$e" inspect --type container -f '{{.State.Running}} {{len .Config.Labels}}' "$o" 2>/dev/null </dev/null)
    [ "$seen" != "false 0" ] || "$e" rm -v "$o" >/dev/null 2>&1 </dev/null
  done
fi
if [ -e "$dir" ] && ! rm -rf -- "$dir" 2>/dev/null; then
  case ${e##*/} in
    podman) "$e" unshare rm -rf -- "$dir" ;;
    *) sort -u "$state/images" 2>/dev/null | while read -r i; do
        [ -e "$dir" ] || break
        # the image may be the repository's own, and so may its `rm`: it is given this directory and nothing above it
        "$e" run --rm --pull never --network none --user 0:0 --label "${lab#label=}" -v "$dir:/sbx-left" \
          --entrypoint rm "$i" -rf /sbx-left </dev/null >/dev/null 2>&1
        rm -rf -- "$dir" 2>/dev/null
      done ;;
  esac
fi
[ ! -e "$dir" ] || printf 'directory %s: files in it cannot be removed by this user\n' "$dir" >&2
for i in $(images); do "$e" rmi "$i" >/dev/null 2>&1 </dev/null; done
left=0
for kind in containers pods networks volumes; do
  found=$($kind) || { echo "$kind of $name could not be listed" >&2; bad=1; continue; }
  for o in $found; do echo "$kind $o"; left=1; done
done
[ ! -e "$dir" ] || { echo "directory $dir"; left=1; }
if [ $bad$left = 00 ]; then
  rm -rf -- "$state"; rmdir -- "${state%/*}" 2>/dev/null
  [ ! -e "$state" ] || { echo "directory $state"; left=1; }
fi
[ $bad = 0 ] || exit 4
[ $left = 0 ] || exit 3
"""
)
"""$1 engine, $2 project, $3 directory, $4 state. Exit 0: all is gone, and was looked for; 3: stdout lists what is left;
4: something could not be listed; 6: no engine, but a directory. The state goes last: while anything may be left, it
can be found again."""

PRESENT: Final = (
    _LISTS
    + r"""
[ ! -d "$state" ] || echo "directory $state"
[ ! -d "$dir" ] || echo "directory $dir"
[ ! -f "$state/handle.json" ] || { printf 'handle '; cat "$state/handle.json" || exit 4; }
command -v -- "$e" >/dev/null || exit 6
"$e" ps -a --no-trunc --filter "$lab" --format 'container {{.Status}}' || exit 4
for kind in pods networks volumes; do
  found=$($kind) || exit 4
  for o in $found; do echo "$kind $o"; done
done
"""
)
"""$1 engine, $2 project, $3 directory, $4 state: lines of what exists. Exit 4: could not be listed; 6: no engine."""

INVENTORY: Final = r"""
install=$1 work=$2; shift 2
for f in "$work"/.sandboxer/sbx-*/marker.json "$work"/.sandboxer/sbx-*/handle.json; do
  [ -f "$f" ] && [ ! -h "$f" ] || continue
  line=; IFS= read -r line <"$f" || { [ -f "$f" ] && [ -z "$line" ] && ! [ -r "$f" ] && exit 4; }
  printf 'file %s\n%s\n' "$f" "$line"
done
# these lie where containers may write: they count where ours is not there, and little of them is read
for f in "$work"/sbx-*/.sandboxer.json; do
  [ -f "$f" ] && [ ! -h "$f" ] || continue
  d=${f%/*}
  [ ! -e "$work/.sandboxer/${d##*/}/marker.json" ] || continue
  [ -r "$f" ] || { [ -f "$f" ] && exit 4; continue; }
  line=$(head -c 65536 -- "$f" | tr -d '\000' | head -n 1)
  printf 'file %s\n%s\n' "$f" "$line"
done
for e in "$@"; do
  command -v -- "$e" >/dev/null || { echo "absent $e"; continue; }
  for kind in container network volume; do
    case $kind in container) list="ps -aq --no-trunc" ;; *) list="$kind ls -q" ;; esac
    ids=$("$e" $list --filter "label=sandboxer.install=$install") || exit 4
    echo "labels $kind"
    [ -n "$ids" ] || { echo '[]'; continue; }
    "$e" $kind inspect $ids || exit 5
  done
done
echo end
"""
"""$1 installation, $2 work directory, the rest engines. Exit 4: could not be listed; 5: something went meanwhile."""

RENEW: Final = r"""
umask 077; dir=$1 state=$2
IFS= read -r line || [ -n "$line" ] || exit 1
[ -d "$state" ] || exit 3
printf '%s\n' "$line" >"$state/marker.json.new" && mv -f "$state/marker.json.new" "$state/marker.json" || exit
[ ! -d "$dir" ] || { # only for people to read: containers may have put anything there
  printf '%s\n' "$line" >"$state/copy" && mv -fT "$state/copy" "$dir/.sandboxer.json" ||
    rm -f "$state/copy"; } 2>/dev/null
"""
"""$1 directory, $2 state; stdin: the marker. Exit 3: there is no such sandbox."""

EXEC: Final = r"""
sbx_s=$1 sbx_n=$2; shift 2; umask 077
sbx_f=$(mktemp "$sbx_s/env.XXXXXX") || exit 125
exec 3<"$sbx_f"; sbx_i=0
while [ $sbx_i -lt "$sbx_n" ]; do
  eval "printf '%s\n' \"\$SANDBOXER_ENV_$sbx_i\"; unset SANDBOXER_ENV_$sbx_i"; sbx_i=$((sbx_i+1))
done >"$sbx_f"
rm -f -- "$sbx_f"
exec "$@"
"""
"""$1 state, $2 how many SANDBOXER_ENV_<i> hold a NAME=VALUE, the rest the engine's command, which reads them from
descriptor 3: a file that has no name any more when the engine's client starts."""

KILL: Final = r"""
mark=SANDBOXER_EXEC=$1 total=0 round=0
while [ $round -lt 20 ]; do
  pids=$(grep -lsF -- "$mark" /proc/[0-9]*/environ | sed 's,/proc/,,; s,/environ,,')
  all=$pids
  while [ -n "$pids" ]; do
    more=; for p in $pids; do more="$more $(cat "/proc/$p/task/"*/children 2>/dev/null)"; done
    set -- $more; pids=$*; all="$all $pids"
  done
  all=$(printf '%s\n' $all | sort -un); [ -n "$all" ] || break
  for p in $all; do kill -9 "$p" 2>/dev/null && total=$((total+1)); done
  round=$((round+1))
done
echo $total
"""
"""$1 mark: kills what carries it in its environment, with all descendants; prints how many kills were sent."""

PEEK: Final = 'e=$(mktemp) || exit; exec 3<"$e" 4>"$e"; rm -f "$e"; "$@" 2>&4 </dev/null | head -c 65536; cat <&3 >&2'
"""The command's first 64 KiB; what it complains of comes whole behind it."""

REAL_PATH: Final = r"""
p=$1 rest=
until r=$(readlink -f -- "$p"); do rest=/${p##*/}$rest p=${p%/*}; [ -n "$p" ] || exit; done
printf '%s\n' "${r%/}$rest"
"""
"""Runs inside. $1 a path: what it is without links; what does not exist stays as it is."""

SOCKETS: Final = 'at=$(readlink -f -- "$1") && [ -d "$at" ] && exec find "$at" -type s -print0'
"""Runs inside. $1 a path: the sockets in a directory, which docker leaves out without a word."""

FOLLOW: Final = r"""
e=$1 tail=$2; shift 2
if printf x | sed -u s/x/x/ >/dev/null 2>&1; then mark() { sed -u "s,^,$1 | ,"; }
else mark() { while IFS= read -r l; do printf '%s | %s\n' "$1" "$l"; done; }; fi
while [ $# -gt 0 ]; do "$e" logs --follow ${tail:+--tail "$tail"} "$2" 2>&1 </dev/null | mark "$1" & shift 2; done; wait
"""
"""$1 engine, $2 how many lines or nothing for all, then pairs of a service's name and its container."""
