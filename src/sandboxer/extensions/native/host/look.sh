# look.sh WORK NAME TAG OWNER: three lines: running, stopped (by stop.sh), ended (the next command starts it again),
# absent or unknown; the marker; the handle.
work=$1 name=$2 tag=$3 owner=$4 dir=$1/$2
answer() {
  marker='' handle=''
  { IFS= read -r marker <"$dir/.sandboxer.json"; } 2>/dev/null
  { IFS= read -r handle <"$dir/run/handle.json"; } 2>/dev/null
  printf '%s\n' "$1" "$marker" "$handle"
  exit 0
}
if [ -d "$dir" ]; then
  recorded && answer running
  [ ! -e "$dir/stopped" ] || answer stopped
  answer ended
fi
if [ -e "$dir" ] || [ -L "$dir" ]; then answer ended; fi
# a folder that we may not enter hides what is below it
place=$work
while [ -n "$place" ] && [ ! -d "$place" ]; do place=${place%/*}; done
[ -x "$place/" ] || answer unknown
tagged && answer ended
answer absent
