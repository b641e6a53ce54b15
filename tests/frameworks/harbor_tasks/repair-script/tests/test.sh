#!/bin/sh
[ "$(/app/average.sh 1 2 6)" = 3 ] && [ "$(/app/average.sh 7)" = 7 ] && ! /app/average.sh 999 2
echo "$((! $?))" > /logs/verifier/reward.txt
