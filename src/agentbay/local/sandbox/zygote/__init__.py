"""Runs in the zygote and its children until a sandbox is set up.

It may import `inside`, `shared` and the standard library.
"""
