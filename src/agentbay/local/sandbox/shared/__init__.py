"""Runs in the service, the zygote and the sandbox alike.

It may import the standard library only, and nothing of the other folders.
"""
