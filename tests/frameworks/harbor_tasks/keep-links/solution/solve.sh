#!/bin/sh
ln -f a c && ln -f a e
