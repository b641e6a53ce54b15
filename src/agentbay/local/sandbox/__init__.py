"""Isolated sandboxes, in one folder for each process that runs the files.

Empty on purpose: the zygote imports this package and must start in milliseconds.
"""
