# The rest of the generated file start, which sets: $dir $tag $owner $mode (root or user) $cover $unshare $mount
# $setpriv $cgroups $sealed (the SHA-256 of a bwrap to be run as a sealed copy, else -) $libraries, the functions files,
# trusted, etc, limits and owners, and bwrap's words as arguments.
# It returns once the sandbox is up; what was started lives on in a session of its own.
folders() { # never with -p: a directory that was removed meanwhile must not come back
  set --
  for name in workspace tmp logs run run/binds run/inside run/inside/services; do
    [ -d "$dir/$name" ] || set -- "$@" "$dir/$name"
  done
  [ $# -eq 0 ] || mkdir -- "$@"
}

# what is in the directory may be read by who passes it: root gives that right to the sandbox's group alone
umask 022
if [ -n "$first" ]; then
  read -r boot </proc/sys/kernel/random/boot_id
  folders || exit 3
else
  recorded && exit 0
  end_holder || { echo 'processes of this sandbox do not end' >&2; exit 3; }
  # nothing of the inside lives any more: what is looked at now is what will run
  trusted || { echo "a program in $dir/run is not what it was when the sandbox was made" >&2; exit 3; }
fi
files || exit 3
limits || { echo 'its limits could not be set' >&2; exit 3; }
owners || { echo 'its directories could not be given to it' >&2; exit 3; }
umask 077
: >"$dir/run/holder"

hold() { # becomes the holder; the record is there before it leaves our session, so that it can always be found
  read -r self rest </proc/self/stat
  record monitor "$self" || exit 3
  exec 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-
  umask 022
  cd / || exit 3
  # nothing of our environment: the first process inside shows it to everybody in there (the host gave us PATH, HOME
  # and LANG alone; the others are the shell's own)
  unset HOME LANG PWD OLDPWD SHLVL
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C SANDBOXER_HOLDER="$tag"
  [ -z "$libraries" ] || export LD_LIBRARY_PATH="$libraries"
  etc exec "$dir/run/guard" hold "$@"
}

rooted='
cover=$1 dir=$2 owner=$3 mount=$4 setpriv=$5 groups=$6 count=$7; shift 7
for group in $groups; do echo 0 >"$group/cgroup.procs" || exit 1; done
number=0
while [ $number -lt $count ]; do
  place=$dir/run/binds/$number
  if [ -d "$1" ]; then [ -d "$place" ] || mkdir "$place"; else [ -e "$place" ] || : >"$place"; fi
  "$mount" --rbind -- "$1" "$place" || exit 1
  number=$((number + 1)); shift
done
"$mount" --rbind -- "$dir" "$cover" || exit 1
unset PWD OLDPWD SHLVL
exec "$setpriv" --reuid "$owner" --regid "$owner" --clear-groups --no-new-privs "$@"'

up() {
  child='' said=''
  while IFS= read -r line; do
    case $line in
      *'"child-pid": '*)
        child=${line#*'"child-pid": '}
        child=${child%%[!0-9]*}
        record child "$child"
        ;;
      *'"exit-code": '*) ;;
      up) record up "$child" && exit 0 ;;
      *) said="$said$line " ;;
    esac
  done
  echo "${said:-it ended at once}" >&2
  exit 4
}

# Status, errors and `up` come through one pipe that ends here: what is inside keeps no file of ours open.
{
  if [ "$mode" = root ]; then
    hold root - "$unshare" --mount --propagation private /bin/sh -c "$rooted" sh \
      "$cover" "$dir" "$owner" "$mount" "$setpriv" "$cgroups" "$binds" "$@" 2>&1 3>&1 </dev/null &
  else
    hold user "$sealed" "$@" 2>&1 3>&1 </dev/null &
  fi
} | up
