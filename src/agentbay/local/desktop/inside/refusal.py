"""The error that a client is told."""

from __future__ import annotations


class Refused(Exception):
    """A request cannot be done, for this reason."""
