# end.sh WORK NAME TAG OWNER INSTALL: ends the processes, takes control groups and directories away, and looks again.
# Each step is tried whatever became of the others; what is left is told on stdout, one line each.
work=$1 name=$2 tag=$3 owner=$4 install=$5 dir=$1/$2
if [ -L "$dir" ]; then # what is behind a link is not ours to remove
  echo "foreign $dir"
  exit 0
fi
# Whoever owns a folder above may put another directory in its place at any moment. So what is looked at, believed and
# removed is the one that we stand in, by names without a way; it is ours when the kernel says that we made it.
cd / && here=''
[ ! -d "$dir" ] || [ -x "$dir" ] || chmod u+rwx -- "$dir" 2>/dev/null
if [ -d "$dir" ] && cd -P -- "$dir" 2>/dev/null; then
  here=$PWD
  dir=.
  if [ ! -O . ] || [ "${here##*/}" != "$name" ]; then
    dir=/proc/none # the record in it may name anybody; processes of ours are known by what they carry
    end_holder || echo "left processes $tagged"
    echo "foreign $work/$name"
    exit 0
  fi
fi
marker=''
[ -f "$dir/.sandboxer.json" ] && { IFS= read -r marker <"$dir/.sandboxer.json"; } 2>/dev/null
case $marker in
  *'"sandboxer.install":"'"$install"'"'*) ;;
  *'"sandboxer.install":"'*) echo "foreign $work/$name"; exit 0 ;;
esac
end_holder || echo "left processes $child $monitor $tagged"
for group in /sys/fs/cgroup/memory/$name /sys/fs/cgroup/cpu/$name /sys/fs/cgroup/$name; do
  tries=0
  while [ -d "$group" ]; do
    rmdir "$group" 2>/dev/null && break
    while read -r pid; do kill -9 "$pid"; done 2>/dev/null <"$group/cgroup.procs"
    tries=$((tries + 1))
    [ $tries -lt 200 ] || { echo "left control group $group"; break; }
    sleep 0.01
  done
done
mounts_below '' || exit 0 # that is not ours to empty
remove() { # the marker goes last: a half-removed sandbox can still be told as ours
  set --
  for item in ./* ./.[!.]* ./..?*; do
    if [ "$item" != ./.sandboxer.json ] && { [ -e "$item" ] || [ -L "$item" ]; }; then set -- "$@" "$item"; fi
  done
  { [ $# -eq 0 ] || rm -rf -- "$@"; } && rm -f -- ./.sandboxer.json
}
dir=$work/$name
if [ -n "$here" ]; then
  for again in 1 2 3; do # a command that is just starting may have left its record meanwhile
    remove 2>/dev/null || {
      # folders that their owner may not enter
      chmod -R u+rwX -- . 2>/dev/null
      find . ! -name . -prune ! -name .sandboxer.json -exec rm -rf -- {} + && rm -f -- ./.sandboxer.json
    }
    rmdir -- "$dir" 2>/dev/null || [ ! -d "$dir" ] && break
  done
elif [ -e "$dir" ]; then
  rm -f -- "$dir"
fi
if [ -e "$dir" ] || [ -L "$dir" ]; then echo "left directory $dir"; fi
exit 0
