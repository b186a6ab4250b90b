# Starting a sandbox again, one at a time: for enter.sh, again.sh and stop.sh. Expects $dir.
lock() { # until this shell ends or closes descriptor 7, nobody else starts or stops the sandbox
  { command exec 7<"$dir/start"; } 2>/dev/null && flock 7
}

start_again() { # HASH: runs the start file, whose SHA-256 that is; the caller holds the lock. $said: what went wrong
  # the very bytes that are run are hashed: read once, into a variable
  restart='text=$(cat "$1" && echo .) && text=${text%.} && sum=$(printf %s "$text" | sha256sum) || exit 3
    [ "${sum%% *}" = "$2" ] || { echo "$1 is not what it was when the sandbox was made"; exit 3; }
    set --; eval "$text"'
  said=$(/bin/sh -c "$restart" start "$dir/start" "$1" </dev/null 2>&1 7<&-)
}
