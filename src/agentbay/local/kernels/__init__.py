"""Kernels of sessions: processes that run code and remember what it defined.

Kept empty: the zygote of Python kernels imports this package.
"""
