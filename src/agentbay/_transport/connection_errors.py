"""Errors of a connection, independent of the library or socket behind it."""

from __future__ import annotations


class NothingSent(Exception):
    """No connection was made, so the call may be sent again."""


class PoolExhausted(NothingSent):
    """All connections of the pool were in use until the time limit."""


class WaitTimedOut(Exception):
    """A wait for the connection reached its time limit."""


class Disconnected(Exception):
    """The connection broke, or the peer sent something that is not HTTP."""


class WriteInterrupted(Disconnected):
    """The connection broke before everything was written."""


class Unreadable(Exception):
    """The request cannot be written, or the answer read, as HTTP."""


CONNECTION_ERRORS = (NothingSent, WaitTimedOut, Disconnected, Unreadable)
