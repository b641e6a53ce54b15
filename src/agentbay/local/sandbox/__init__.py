"""Isolated sandboxes on this machine; `host` is the door, `zygote` and `agent` run as processes of their own.

Kept empty: the zygote imports this package and must start in milliseconds.
"""
