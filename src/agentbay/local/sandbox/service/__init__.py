"""Runs in the service, on its event loop.

It may import `shared`, nothing of `zygote` or `inside`.
"""
