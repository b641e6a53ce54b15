#!/bin/sh
mkdir /tmp/out && cd /tmp/out && tar -xzf /app/archive.tar.gz && tar -xf 2.tar && tar -xzf 3.tar.gz && cp word.txt /app
