"""What a subscription makes of pushes: all that is meant for it, in order, each once."""

from __future__ import annotations

from typing import Any

import pytest

from agentbay import FileError, ToolError
from agentbay._transport.watch import Subscription


def push(number: int | None, name: str = "a", path: str = "w") -> dict[str, Any]:
    events = [{"eventType": "create", "path": name, "pathType": "file"}]
    more = {} if number is None else {"number": number}
    return {"eventType": "file_change", "path": path, "events": events, **more}


def test_numbers() -> None:
    """What was before the answer, comes again or comes before its turn is passed over; after a loss it goes on."""
    subscription = Subscription("w")
    assert "since" not in subscription.beginning()["params"]
    assert subscription.read(push(4)) == []
    subscription.begin({"phase": "end", "number": 4})
    assert subscription.numbered
    taken = [number for number in (4, 5, 5, 7, 6, 7) if subscription.read(push(number))]
    assert taken == [5, 6, 7]
    again = subscription.beginning()["params"]
    assert (again["since"], again["subscriber"]) == (7, subscription.ending()["params"]["subscriber"])
    subscription.begin({"phase": "end", "number": 9, "lost": False})
    assert [bool(subscription.read(push(number))) for number in (8, 9, 10)] == [True, True, True]


def test_lost() -> None:
    """Changes that the service has no more are an error, after which it goes on with what comes then."""
    subscription = Subscription("w")
    subscription.begin({"number": 1})
    with pytest.raises(FileError, match="Changes below w are lost"):
        subscription.begin({"number": 30, "lost": True})
    assert subscription.read(push(31))


def test_no_numbers() -> None:
    """A service that numbers nothing is taken at its word."""
    subscription = Subscription("w")
    subscription.begin({"phase": "end", "status": "finished"})
    assert not subscription.numbered
    assert [event.path for event in subscription.read(push(None, "x")) + subscription.read(push(None, "x"))] == [
        "x",
        "x",
    ]
    assert subscription.read(push(None, path="w/")) == []
    assert subscription.read({"eventType": "other", "path": "w"}) == []
    with pytest.raises(ToolError):
        subscription.begin({"phase": "error"})
