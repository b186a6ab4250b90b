# supervise NAME RESTART...: the first program of a sandbox. Says `up`, keeps the services running, and stays.
echo up
exec >/dev/null 2>&1
state() {
  read -r now rest </proc/uptime
  printf '%s %s %s\n' "$2" "$3" "${now%.*}${now#*.}" >"/run/services/$1"
}
serve() {
  pause=1
  while :; do
    sh "/run/sandboxer/services/$1" >>"/var/log/services/$1.log" 2>&1 &
    state "$1" running $!
    wait $!
    code=$?
    state "$1" ended $code
    case $2 in never) return ;; on-failure) [ $code -ne 0 ] || return ;; esac
    sleep $pause
    [ $pause -ge 30 ] || pause=$((pause * 2))
  done
}
while [ $# -gt 0 ]; do
  serve "$1" "$2" &
  shift 2
done
wait
exec sleep 2147483647
