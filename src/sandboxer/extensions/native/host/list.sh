# list.sh WORK SUFFIX: for each sandbox three lines: name, marker, handle; names of processes without a directory last.
work=$1 suffix=$2
plain() { [ -f "$1" ] && [ ! -L "$1" ]; }
if [ -e "$work" ]; then
  [ -r "$work" ] && [ -x "$work" ] || { echo "$work cannot be read" >&2; exit 3; }
  for dir in "$work"/sbx-*; do
    [ -d "$dir" ] && [ ! -L "$dir" ] || continue
    # a stack's: what is in it its containers may have written, which would say here what else there is
    [ ! -e "$work/.sandboxer/${dir##*/}" ] || continue
    marker='' handle=''
    plain "$dir/.sandboxer.json" && { IFS= read -r marker <"$dir/.sandboxer.json"; } 2>/dev/null
    plain "$dir/run/handle.json" && { IFS= read -r handle <"$dir/run/handle.json"; } 2>/dev/null
    printf '%s\n' "${dir##*/}" "$marker" "$handle"
  done
fi
owner=''
for found in $(grep -laF -- "SANDBOXER_HOLDER=sbx-" /proc/[0-9]*/environ 2>/dev/null); do
  pid=${found#/proc/}
  outside "${pid%/environ}" && grep -aoE "SANDBOXER_HOLDER=sbx-[a-z][a-z0-9]{11}\\.$suffix" "$found" 2>/dev/null
done
exit 0
