# claim.sh WORK NAME MARKER: says what this host has, and makes the directory WORK/NAME with its marker. NAME '' only
# says. Builtins only, except for the directory.
# the system's come first: what lies in somebody's home is not ours to run as long as there is another
places="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH"
PATH=$places
while read -r key first rest; do
  case $key in Uid:) uid=$first && echo "uid $uid" && break ;; esac
done </proc/self/status
while read -r first second third fourth fifth rest; do
  case "$first $second $third" in
    'Max processes '*) echo "hard_processes $fourth" ;;
    'Max open files') echo "hard_open_files $fifth" ;;
    'Max file size') echo "hard_file_size $fifth" ;;
    'Max cpu time') echo "hard_cpu_time $fifth" ;;
  esac
done </proc/self/limits
read -r line </proc/sys/kernel/osrelease && echo "kernel $line"

lacking=''
for tool in unshare setpriv mount tar flock env sha256sum bwrap; do
  found=''
  IFS=:
  for place in $places; do
    if [ -f "$place/$tool" ] && [ -x "$place/$tool" ]; then found=$place/$tool && break; fi
  done
  unset IFS
  if [ -n "$found" ]; then echo "tool $tool $found"; eval "tool_$tool=\$found at_$tool=\$place"; elif [ $tool != bwrap ]; then lacking="$lacking $tool"; fi
done
machine=$(uname -m) && echo "machine $machine"
case $machine in x86_64 | aarch64) ;; *) lacking="$lacking machine" ;; esac # guard.MACHINES
line=''
{ read -r line </proc/sys/vm/memfd_noexec && echo "sysctl vm/memfd_noexec $line"; } 2>/dev/null
[ "$line" != 2 ] || lacking="$lacking memory"
# a bubblewrap that we could write ourselves is run as a sealed copy, and only if it is the one of the first time
if [ "$uid" != 0 ] && [ -n "${tool_bwrap-}" ] && { [ -O "$tool_bwrap" ] || [ -w "$tool_bwrap" ] || [ -w "$at_bwrap" ]; }; then
  sum=$(sha256sum <"$tool_bwrap") && echo "bwrap_hash ${sum%% *}"
fi
for name in keys key-users config.gz iomem ioports interrupts kcore latency_stats timer_list sched_debug; do
  [ -e "/proc/$name" ] && echo "mask /proc/$name"
done
for name in bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$name" ] && [ "/$name" -ef "/usr/$name" ]; then echo "link $name"; elif [ -d "/$name" ]; then echo "folder $name"; fi
done
for name in /mnt /media /srv /opt /tmp; do [ -d "$name" ] && echo "cover $name" && break; done
for name in 11 12 13 14 15 16 17 18 19; do [ -x "/usr/bin/python3.$name" ] && echo "python /usr/bin/python3.$name"; done
[ -e /dev/vsock ] && echo 'vsock yes'
[ -e /proc/self/ns/cgroup ] && echo 'cgroup_namespace yes'
tree=/sys/fs/cgroup
if [ -f "$tree/cgroup.controllers" ]; then
  [ -w "$tree/cgroup.procs" ] && read -r line <"$tree/cgroup.subtree_control" && for name in $line; do
    echo "cgroup2 $name"
  done
else
  for name in memory cpu; do [ -w "$tree/$name/cgroup.procs" ] && echo "cgroup1 $name"; done
fi
# user namespaces of ours are given lower bounds there; a container may show it read-only
while read -r _ _ _ _ place line _; do
  case $place,$line, in /proc/sys,ro,*) echo 'bounds no' ;; esac
done </proc/self/mountinfo
for name in kernel/unprivileged_userns_clone kernel/apparmor_restrict_unprivileged_userns user/max_user_namespaces; do
  { read -r line <"/proc/sys/$name" && echo "sysctl $name $line"; } 2>/dev/null
done
[ -z "$lacking" ] && [ -n "$2" ] || exit 0

dir=$1/$2
if [ -e "$dir" ] || [ -L "$dir" ]; then echo 'exists yes'; exit 0; fi
umask 077
mkdir -p -- "$dir" && printf '%s\n' "$3" >"$dir/.sandboxer.json" && echo 'claimed yes'
