# enter.sh DIR TAG OWNER TOKEN MODE SETPRIV NSENTER CGROUPS NAMESPACES HEADER WORD...: runs the words inside, after
# starting the sandbox again when it does not run. When that fails, TOKEN and the reason are the first thing on stderr.
# HEADER '' or a file that the words get on descriptor 3.
dir=$1 tag=$2 owner=$3 token=$4 mode=$5 setpriv=$6 nsenter=$7 cgroups=$8 namespaces=$9
shift 9
header=$1
shift
fail() {
  printf '%s%s\n' "$token" "$1" >&2
  exit 125
}
[ -f "$dir/start" ] || fail 'its directory is gone'
if ! recorded; then
  said=$(flock -o "$dir/start" sh "$dir/start" </dev/null 2>&1) || fail "$said"
  recorded || fail 'it ended at once'
fi
for group in $cgroups; do
  { echo 0 >"$group/cgroup.procs"; } 2>/dev/null || fail "its control group $group cannot be joined"
done
if [ -n "$header" ]; then
  exec 3<"$header" || fail 'the command did not arrive'
  rm -f -- "$header"
fi
cd / || fail 'there is no /'
# between entering and its own start, the environment of the program's process can be read from inside
export HOME=/ PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
unset LANG PWD OLDPWD SHLVL
if [ "$mode" = root ]; then
  keyless "$setpriv" --reuid "$owner" --regid "$owner" --clear-groups --no-new-privs \
    --inh-caps +sys_admin,+sys_chroot,+sys_ptrace --ambient-caps +sys_admin,+sys_chroot,+sys_ptrace \
    "$nsenter" --target "$child" $namespaces --preserve-credentials -- "$@"
fi
keyless "$setpriv" --no-new-privs "$nsenter" --target "$monitor" --user --preserve-credentials -- \
  "$nsenter" --target "$child" $namespaces --preserve-credentials -- "$@"
