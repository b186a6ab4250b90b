# logs.sh LINES FOLLOW MOST FILE...: the last LINES lines of each file (nothing: all of it); with FOLLOW, what comes later
# too. A file of TiB may be a hole without the end of a line: of each no more than the last MOST bytes are looked at.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH
lines=$1 follow=$2 most=$3
shift 3
[ -n "$lines" ] || exec tail -n +1 ${follow:+-F} -- "$@"
if [ -n "$follow" ]; then
  start="-n $lines"
  for file; do
    size=$(stat -c %s -- "$file") || exit 1
    [ "$size" -le "$most" ] || [ "$(tail -c "$most" -- "$file" | wc -l)" -gt "$lines" ] || start="-c $most"
  done
  exec tail $start -F -- "$@"
fi
number=0
for file; do
  [ -r "$file" ] || { echo "$file cannot be read" >&2; exit 1; }
  if [ "$#" -gt 1 ]; then # as tail itself names them
    [ $number = 0 ] || echo
    printf '==> %s <==\n' "$file"
  fi
  tail -c "$most" -- "$file" | tail -n "$lines" || exit
  number=$((number + 1))
done
