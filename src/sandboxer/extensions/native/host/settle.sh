# settle CENTISECONDS NAME...: waits until every service has run that long, or ended with 0. Says which one failed.
settle=$1
shift
while :; do
  read -r now rest </proc/uptime
  now=${now%.*}${now#*.}
  waiting=''
  for name; do
    what='' value='' since=''
    { read -r what value since <"/run/services/$name"; } 2>/dev/null
    case $what in
      ended) [ "$value" = 0 ] || { echo "failed $name $value"; exit 0; } ;;
      running) [ -n "$since" ] && [ $((now - since)) -ge "$settle" ] || waiting=yes ;;
      *) waiting=yes ;;
    esac
  done
  [ -n "$waiting" ] || { echo settled; exit 0; }
  sleep 0.1
done
