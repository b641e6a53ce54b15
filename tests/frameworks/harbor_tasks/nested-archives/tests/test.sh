#!/bin/sh
[ "$(cat /app/word.txt)" = walrus ]
echo "$((! $?))" > /logs/verifier/reward.txt
