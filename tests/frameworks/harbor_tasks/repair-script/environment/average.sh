#!/bin/sh
sum=0
for number; do
  sum=$((sum - number))
  [ "$sum" -le "$LIMIT" ] || { echo "too much" >&2; exit 1; }
done
echo $((sum / $#)
