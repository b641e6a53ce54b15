"""Kernels: processes in a sandbox that run code and keep its state.

Nothing is imported here, since the zygote of Python kernels imports this package.
"""
