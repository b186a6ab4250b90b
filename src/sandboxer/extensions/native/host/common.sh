# Looks at /proc and at the record of a sandbox. Builtins only, where it is on the way of every command.
# Expects $dir (the sandbox's directory), $tag (what its processes on the host carry in their environment) and $owner
# (the uid of what runs inside).

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
      monitor) monitor=$pid ;;
      child) child=$pid ;;
      up) up=$pid ;;
    esac
  done <"$dir/run/holder"
  [ -n "$monitor" ] && [ -n "$child" ] && [ "$up" = "$child" ]
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

outside() { # PID: on our side, or the first process of a namespace. What runs inside may carry any environment it likes.
  while read -r key first second third; do
    case $key in
      Uid:)
        case $first in 0 | "$owner" | "${me:=$(my_uid)}") ;; *) [ -z "$owner" ] || return 1 ;; esac
        ;;
      NSpid:) [ -z "$third" ] && case $second in '' | 1) return 0 ;; esac; return 1 ;;
    esac
  done 2>/dev/null <"/proc/$1/status"
  return 1
}

# Becomes the words, with a session keyring of its own. Kernel keys follow whoever possesses the session's keyring through
# every change of user and namespace, so what a login keeps there (Kerberos, disks) could be read inside. No shell and
# nothing in util-linux makes a new one.
keyless() { # WORD...: the first is a path
  keyring=''
  while read -r _ _ _ _ _ _ _ type name _; do
    case $type:$name in keyring:_uid* | keyring:.*) ;; keyring:*) keyring=yes ;; esac
  done 2>/dev/null </proc/keys
  [ -n "$keyring" ] || exec "$@"
  case $(uname -m) in
    x86_64) keyctl=250 ;;
    aarch64 | riscv64 | loongarch64) keyctl=219 ;;
    ppc64le) keyctl=271 ;;
    s390x) keyctl=280 ;;
    *) exec "$@" ;;
  esac
  command -v perl >/dev/null && exec perl -e 'syscall(shift, 1, 0); exec {$ARGV[0]} @ARGV' "$keyctl" "$@"
  command -v python3 >/dev/null && exec python3 -I -S -c 'if 1:
    import ctypes, os, signal, sys
    ctypes.CDLL(None).syscall(int(sys.argv[1]), 1, None)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execv(sys.argv[2], sys.argv[2:])' "$keyctl" "$@"
  exec "$@"
}

my_uid() {
  while read -r key first rest; do [ "$key" != Uid: ] || echo "$first"; done </proc/self/status
}

end_holder() { # kills it with all that is inside; fails when something lives on
  tries=0
  while :; do
    recorded
    if [ -z "$monitor$child" ]; then tagged || return 0; else tagged=''; fi
    kill -9 $child $monitor $tagged 2>/dev/null
    tries=$((tries + 1))
    [ $tries -lt 2000 ] || return 1
    sleep 0.003
  done
}
