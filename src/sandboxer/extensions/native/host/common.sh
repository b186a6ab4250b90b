# Looks at /proc and at the record of a sandbox. Builtins only, where it is on the way of every command.
# Expects $dir (the sandbox's directory), $tag (what its processes on the host carry in their environment) and $owner
# (the uid of what runs inside).
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH

start_of() { # PID: $start is when it began, in clock ticks after boot; fails when it is gone or a zombie
  stat=''
  # a process can put newlines and parentheses into its own name: what counts stands behind the last one
  while IFS= read -r line || [ -n "$line" ]; do stat=$stat$line; done 2>/dev/null <"/proc/$1/stat" || return 1
  set -- ${stat##*) }
  case $1 in '' | [ZX]) return 1 ;; esac
  start=${20}
}

recorded() { # $monitor, $child: what still lives of the recorded processes; fails unless the sandbox is up
  monitor='' child='' up=''
  read -r boot </proc/sys/kernel/random/boot_id
  [ -f "$dir/run/holder" ] || return 1
  while read -r what pid began when; do
    [ "$when" = "$boot" ] && start_of "$pid" && [ "$start" = "$began" ] || continue
    case $what in
      monitor) monitor=$pid monitor_began=$began ;;
      child) child=$pid child_began=$began ;;
      up) up=$pid ;;
    esac
  done <"$dir/run/holder"
  # whom we enter and end is the first process of a namespace, whatever the record says
  [ -n "$monitor" ] && [ -n "$child" ] && [ "$up" = "$child" ] && outside "$child" first
}

record() { # WHAT PID: adds a line
  start_of "$2" && printf '%s %s %s %s\n' "$1" "$2" "$start" "$boot" >>"$dir/run/holder"
}

tagged() { # $tagged: processes that carry the tag, also those that no record names
  tagged=''
  for found in $(grep -lF -- "SANDBOXER_HOLDER=$tag" /proc/[0-9]*/environ 2>/dev/null); do
    found=${found#/proc/}
    found=${found%/environ}
    outside "$found" && tagged="$tagged $found"
  done
  [ -n "$tagged" ]
}

outside() { # PID [first]: on our side, or (with `first`, only) the first process of a namespace. What runs inside may
  # carry any environment it likes.
  while read -r key first second third; do
    case $key in
      Uid:)
        case $first in 0 | "$owner" | "${me:=$(my_uid)}") ;; *) [ -z "$owner" ] || return 1 ;; esac
        ;;
      NSpid:)
        [ -z "$third" ] && case $second:$2 in : | 1:*) return 0 ;; esac
        return 1
        ;;
    esac
  done 2>/dev/null <"/proc/$1/status"
  return 1
}

my_uid() {
  while read -r key first rest; do [ "$key" != Uid: ] || echo "$first"; done </proc/self/status
}

lives() { # PID START: whether that very process does
  start_of "$1" && [ "$start" = "$2" ]
}

end_holder() { # kills it with all that is inside; fails when something lives on
  recorded
  # Who is recorded goes first: all that is inside ends with it, and so does the holder. Looking through the processes of
  # the whole host, which costs most, then mostly finds nothing the first time.
  if [ -n "$child" ] && outside "$child" first && kill -9 "$child" 2>/dev/null; then
    tries=0
    while [ $tries -lt 100 ] && { lives "$child" "$child_began" || lives "${monitor:-0}" "${monitor_began-}"; }; do
      tries=$((tries + 1))
    done
  fi
  tries=0
  while :; do
    recorded
    # the record alone does not say whom to kill: the holder carries our tag, and the other is the first of a namespace
    [ -z "$child" ] || outside "$child" first || child=''
    tagged || [ -n "$child" ] || return 0
    kill -9 $child $tagged 2>/dev/null
    tries=$((tries + 1))
    [ $tries -lt 2000 ] || return 1
    sleep 0.003
  done
}
