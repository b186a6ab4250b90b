# enter.sh DIR TAG OWNER TOKEN HASH CGROUPS HEADER LIMIT...: runs inside what a header says, which is on stdin or, with a
# terminal there, in the file HEADER (else -), after starting the sandbox again when it does not run. When that fails,
# TOKEN and the reason are the first thing on stderr. HASH is the SHA-256 of the start file.
dir=$1 tag=$2 owner=$3 token=$4 hash=$5 cgroups=$6 header=$7
shift 7
fail() {
  [ "$header" = - ] || rm -f -- "$header" # it may hold secrets of the command's environment
  printf '%s%s\n' "$token" "$1" >&2
  exit 125
}
[ -f "$dir/start" ] || fail 'its directory is gone'
if [ -e "$dir/stopped" ] || ! recorded; then
  lock || fail 'its directory is gone'
  if recorded; then
    rm -f -- "$dir/stopped" # of a stop that died before it ended anything
  elif [ -e "$dir/stopped" ]; then
    fail 'it is stopped'
  else
    start_again "$hash" || fail "$said"
    recorded || fail 'it ended at once'
  fi
  exec 7<&-
fi
for group in $cgroups; do
  { echo 0 >"$group/cgroup.procs"; } 2>/dev/null || fail "its control group $group cannot be joined"
done
cd / || fail 'there is no /'
# The holder's image is a copy of ours that nobody can write any more. It is opened first, and then the holder is looked
# at again: had its number meanwhile become another's, that other (of a sandbox of the same user) would say what we run.
{ command exec 5<"/proc/$monitor/exe"; } 2>/dev/null || fail 'its first process has just ended'
start_of "$monitor" && [ "$start" = "$monitor_began" ] || fail 'its first process has just ended'
exec /proc/self/fd/5 enter "$token" "$child" "$child_began" "$owner" "$header" "$@"
