#!/bin/sh
# Ends with 0 if the task is solved.
[ "$(cat "$REPORT")" = "200 9
404 3" ]
