"""Runs in process 1 of a sandbox and what it forks, without privileges.

It may import `shared` and the standard library.
"""
