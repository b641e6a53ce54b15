#!/bin/sh
[ "$(cat /app/report.txt)" = "200 9
404 3
500 3" ]
echo "$((! $?))" > /logs/verifier/reward.txt
