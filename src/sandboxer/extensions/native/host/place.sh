# Standing in a sandbox's directory, for what is removed there. Expects $work and $name.
mounts_below() { # PATH below the directory (or nothing): tells what somebody has mounted there; fails if there is any.
  # The name holds the id, so no other mount point has it.
  none=yes
  while read -r _ _ _ _ at _; do
    case $at in */"$name$1" | */"$name$1"/*) none='' && echo "left mount $at" ;; esac
  done </proc/self/mountinfo
  [ -n "$none" ]
}

stand() { # INSTALL: makes our own directory the working directory, and $dir `.`; says why not, and ends, when it is not
  # ours: whoever owns a folder above may put another one in its place at any moment
  dir=$work/$name
  [ ! -L "$dir" ] || { echo "foreign $dir"; exit 0; }
  cd -P -- "$dir" 2>/dev/null || { echo "gone $dir"; exit 0; }
  here=$(pwd -P) marker=''
  { IFS= read -r marker <./.sandboxer.json; } 2>/dev/null
  case $marker in *'"sandboxer.install":"'"$1"'"'*) ;; *) here='' ;; esac
  [ -O . ] && [ "${here##*/}" = "$name" ] || { echo "foreign $dir"; exit 0; }
  dir=.
}

empty_tmp() { # nothing of the sandbox runs: what it wrote there is nobody's
  mounts_below /tmp || return 1
  [ -d ./tmp ] && [ ! -L ./tmp ] || return 0
  [ -x ./tmp ] && [ -r ./tmp ] || chmod u+rwx ./tmp
  (
    cd -P ./tmp || exit 1
    emptied() {
      find . ! -name . -prune -exec rm -rf -- {} + && [ -z "$(find . ! -name . -prune)" ]
    }
    emptied 2>/dev/null || {
      # folders that their owner may not enter
      find . ! -name . -prune ! -type l -exec chmod -R u+rwX -- {} + 2>/dev/null
      emptied
    }
  ) || { echo 'left files in /tmp'; return 1; }
}
