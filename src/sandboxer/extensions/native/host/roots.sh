# roots.sh WORK NAME...: for each sandbox that runs its name and its first process; whose uid that has is not asked.
work=$1 owner=''
shift
for name; do
  dir=$work/$name
  recorded && echo "$name $child"
done
exit 0
