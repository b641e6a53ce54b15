"""What can happen to a connection, whichever library or socket it is of."""

from __future__ import annotations


class NothingSent(Exception):
    """There is no connection, so a call may be sent again."""


class PoolExhausted(NothingSent):
    """All connections of the pool were in use until the limit."""


class WaitTimedOut(Exception):
    """A wait for the connection took as long as it may."""


class Disconnected(Exception):
    """The connection broke, or what came is no HTTP."""


class WriteInterrupted(Disconnected):
    """The connection broke before everything was written."""


class Unreadable(Exception):
    """The request or the answer cannot be put into HTTP or read from it."""


CONNECTION_ERRORS = (NothingSent, WaitTimedOut, Disconnected, Unreadable)
