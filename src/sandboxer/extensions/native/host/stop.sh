# stop.sh WORK NAME TAG OWNER INSTALL TOKEN CENTISECONDS: asks what runs inside to end, by what the header on stdin says,
# for as long as that; ends the rest, leaves the mark with which nothing starts it again, and empties /tmp. What is wrong
# is told on stdout, one line each.
work=$1 name=$2 tag=$3 owner=$4 token=$6 grace=$7
cd /
stand "$5"
lock || { echo "gone $work/$name"; exit 0; }
hundredths() {
  read -r now rest </proc/uptime
  now=${now%.*}${now#*.}
}
kids() { # PID: $kids; fails where the kernel does not tell
  kids=''
  [ -r "/proc/$1/task/$1/children" ] || return 1
  { read -r kids; } 2>/dev/null <"/proc/$1/task/$1/children"
  return 0
}
quiet() { # whether nothing runs inside but what every sandbox has: process 1, and its child that waits
  kids "$child" || return 1
  case $kids in '' | *[!0-9]*) return 1 ;; esac
  kids "$kids" && [ -z "$kids" ] || return 1
  # commands are no children of anybody inside; each has a record of its session, and so have we
  read -r stat </proc/self/stat
  set -- ${stat##*) }
  for session in ./track/*; do
    session=${session##*/}
    [ "${session%%.*}" = "$4" ] || ! start_of "${session%%.*}" || return 1
  done
}
if recorded && [ "$grace" -gt 0 ] && ! quiet && { command exec 5<"/proc/$monitor/exe"; } 2>/dev/null; then
  # as enter.sh does: what it was is looked at again once it is held
  if start_of "$monitor" && [ "$start" = "$monitor_began" ]; then
    exec 6<&0
    /proc/self/fd/5 enter "$token" "$child" "$child_began" "$owner" - <&6 >/dev/null 2>&1 7<&- &
    asking=$!
    exec 5<&- 6<&-
    hundredths
    last=$((now + grace))
    # what runs inside may hold up who asks it
    while start_of "$asking" && [ "$now" -lt "$last" ]; do
      sleep 0.02
      hundredths
    done
  fi
fi
# before its processes are gone: without it, the next command would start it again
# One that is there while it runs is of a start that died at its last step.
if recorded || [ ! -f ./stopped ]; then
  echo stopping | dd of=./stopped conv=fsync 2>/dev/null || { echo 'left no mark that it is stopped'; exit 0; }
fi
if recorded; then # quicker than to look for all that may be left, which follows
  kill -9 "$child" 2>/dev/null
  tries=0
  while start_of "$monitor" && [ "$start" = "$monitor_began" ] && [ $tries -lt 1000 ]; do
    tries=$((tries + 1))
    sleep 0.003
  done
fi
end_holder || { echo "left processes $child $tagged"; exit 0; }
empty_tmp || exit 0
echo stopped >./stopped
