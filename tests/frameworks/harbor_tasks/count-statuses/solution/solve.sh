#!/bin/sh
awk '{ count[$4]++ } END { for (status in count) print status, count[status] }' access.log | sort > report.txt
