"""A subscription yields its pushed events in order, each once."""

from __future__ import annotations

from typing import Any

import pytest

from agentbay import FileError, ToolError
from agentbay._transport.subscription import Subscription


def push(number: int | None, name: str = "a", path: str = "w") -> dict[str, Any]:
    events = [{"eventType": "create", "path": name, "pathType": "file"}]
    more = {} if number is None else {"number": number}
    return {"eventType": "file_change", "path": path, "events": events, **more}


def test_numbers() -> None:
    """Old, repeated and early events are skipped, also after a loss."""
    subscription = Subscription("w")
    assert "since" not in subscription.subscribe_request()["params"]
    assert subscription.read_changes_of(push(4)) == []
    subscription.on_answer({"phase": "end", "number": 4})
    assert subscription.is_numbered
    taken = [number for number in (4, 5, 5, 7, 6, 7) if subscription.read_changes_of(push(number))]
    assert taken == [5, 6, 7]
    again = subscription.subscribe_request()["params"]
    assert (again["since"], again["subscriber"]) == (7, subscription.unsubscribe_request()["params"]["subscriber"])
    subscription.on_answer({"phase": "end", "number": 9, "lost": False})
    assert [bool(subscription.read_changes_of(push(number))) for number in (8, 9, 10)] == [True, True, True]


def test_lost() -> None:
    """Lost events raise an error, and later events still arrive."""
    subscription = Subscription("w")
    subscription.on_answer({"number": 1})
    with pytest.raises(FileError, match="Changes below w are lost"):
        subscription.on_answer({"number": 30, "lost": True})
    assert subscription.read_changes_of(push(31))


def test_no_numbers() -> None:
    """Events without numbers are all accepted."""
    subscription = Subscription("w")
    subscription.on_answer({"phase": "end", "status": "finished"})
    assert not subscription.is_numbered
    assert [
        event.path
        for event in subscription.read_changes_of(push(None, "x")) + subscription.read_changes_of(push(None, "x"))
    ] == [
        "x",
        "x",
    ]
    assert subscription.read_changes_of(push(None, path="w/")) == []
    assert subscription.read_changes_of({"eventType": "other", "path": "w"}) == []
    with pytest.raises(ToolError):
        subscription.on_answer({"phase": "error"})
