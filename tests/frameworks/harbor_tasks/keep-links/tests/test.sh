#!/bin/sh
cd /app/data && [ "$(cat a b c d e)" = "same
other
same
else
same" ] && [ "$(stat -c %h a)" = 3 ] && [ c -ef a ] && [ e -ef a ] && [ "$(stat -c %a:%h b)" = 600:1 ] && [ "$(readlink f)" = d ]
echo "$((! $?))" > /logs/verifier/reward.txt
