"""Contexts: stores of files that outlive the sessions that use them."""
