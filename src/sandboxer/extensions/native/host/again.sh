# again.sh WORK NAME TAG OWNER INSTALL HASH: starts a sandbox that was stopped, or does not run. What is wrong is told on
# stdout, one line each.
work=$1 name=$2 tag=$3 owner=$4 hash=$6
cd /
stand "$5"
lock || { echo "gone $work/$name"; exit 0; }
if ! recorded; then
  stopped=''
  [ ! -f ./stopped ] || read -r stopped <./stopped
  if [ "$stopped" != stopped ] && [ -f ./stopped ]; then # its stop died before its end
    end_holder || { echo "left processes $child $tagged"; exit 0; }
    empty_tmp || exit 0
  fi
  start_again "$hash" || { echo "refused $said"; exit 0; }
  recorded || { echo 'refused it ended at once'; exit 0; }
fi
# last: what did not start is still stopped
rm -f -- ./stopped
