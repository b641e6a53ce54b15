"""Every public method against every fault of a service, over real sockets."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest

from agentbay import (
    AgentBayError,
    APIError,
    AsyncCode,
    AsyncCommand,
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    RateLimitError,
    ReplyError,
    ServerError,
    ServiceUnavailableError,
    TransportError,
)
from tests.at_once import async_at_once
from tests.scripted import (
    Behaviour,
    Hangup,
    Peer,
    Service,
    cut,
    endless,
    hang_up,
    http,
    message,
    nobody,
    ok,
    raw,
    refused,
    reset,
    silence,
    zipped,
)

from .calls import CALLS, Call, client, handle, outcome, root

SHORT, LONG = 1.0, 60.0  # time limits, seconds: of calls that run into theirs, and of those that do not
SLACK = 20.0  # how much later than its time limit a call may end on a busy machine, seconds; the default limit is 60

_ONCE, _IF_REPEATABLE, _TWICE = "once", "once more if repeatable", "once more"
_DEEP = b"[" * 200_000


class Fault(NamedTuple):
    """A fault of a service, and the error expected with one retry allowed."""

    name: str
    behaviour: Behaviour
    error: type[AgentBayError] | tuple[type[AgentBayError], ...]
    sent: str = _ONCE
    timeout: float = LONG
    direct: type[AgentBayError] | None = None  # of calls by a session's own link, whose answers have another envelope
    refusal: bool = False
    ordinary: bool = False  # a refusal that is no HTTP error
    only_data: bool = False  # harmless where the answer's data has no meaning


FAULTS = [
    Fault("never answers", silence, DeadlineExceeded, timeout=SHORT),
    Fault("drips its head", endless(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.01), DeadlineExceeded, timeout=SHORT),
    Fault(
        "drips its body",
        endless(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{", b" ", 0.01),
        DeadlineExceeded,
        timeout=SHORT,
    ),
    Fault(
        "floods without end",
        # The pause leaves the processor to the other stalls; each read still has data.
        endless(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", b" " * 4096, 0.001),
        DeadlineExceeded,
        timeout=SHORT,
    ),
    Fault(
        "promises more than it sends",
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"),
        DeadlineExceeded,
        timeout=SHORT,
    ),
    Fault("closes without an answer", hang_up, ConnectionLost, _IF_REPEATABLE),
    Fault("resets without an answer", reset, ConnectionLost, _IF_REPEATABLE),
    Fault("drops in its head", cut(b"HTTP/1.1 200 OK\r\nContent-Le"), ConnectionLost, _IF_REPEATABLE),
    Fault("drops in its body", cut(message(200, b" " * 99)[:-50]), ConnectionLost, _IF_REPEATABLE),
    Fault("speaks no HTTP", cut(b"SSH-2.0-OpenSSH_9.6\r\n"), ConnectionLost, _IF_REPEATABLE),
    Fault("429, at once again", refused("Throttling", 429, {"Retry-After": "0"}), RateLimitError, _TWICE, refusal=True),
    Fault("429, much later", refused("Throttling", 429, {"Retry-After": "99"}), RateLimitError, refusal=True),
    Fault(
        "503, at once again",
        refused("ServiceUnavailable", 503, {"Retry-After": "0"}),
        ServiceUnavailableError,
        _TWICE,
        refusal=True,
    ),
    Fault(
        "503, no word when", refused("ServiceUnavailable", 503), ServiceUnavailableError, _IF_REPEATABLE, refusal=True
    ),
    Fault("502 of a gateway", http(502, b"<h1>Bad Gateway</h1>"), ServerError, _IF_REPEATABLE, refusal=True),
    Fault("HTML", http(200, b"<!doctype html><h1>Welcome</h1>", {"Content-Type": "text/html"}), ReplyError),
    Fault("half a document", http(200, b'{"RequestId": "R", "Success": tr'), ReplyError),
    Fault("nothing at all", http(200, b""), ReplyError),
    Fault("a list", http(200, b"[]"), ReplyError),
    Fault("10 MiB of junk", http(200, b"\xa5" * (10 << 20)), ReplyError),
    Fault("redirects", http(302, b"", {"Location": "/elsewhere"}), ReplyError),
    Fault("sends less than is there", http(200, b'{"Success": true}', {"Content-Length": "9"}), ReplyError),
    Fault("gzip that is none", http(200, b"{}", {"Content-Encoding": "gzip"}), ReplyError),
    Fault("gzip around nonsense", zipped("nonsense"), ReplyError),
    Fault("no UTF-8", http(200, b'{"Success": true, "Data": "\xff\xfe"}'), ReplyError),
    Fault("endless nesting", http(200, b'{"Success": true, "Data": ' + _DEEP), ReplyError),
    Fault("refuses with a code", refused(), APIError, refusal=True),
    Fault(
        "refuses with 200",
        http(200, {"Success": False, "Code": "SomeCode"}),
        APIError,
        direct=ReplyError,
        refusal=True,
        ordinary=True,
    ),
    Fault(
        "refuses with nothing", http(200, {"Success": False}), APIError, direct=ReplyError, refusal=True, ordinary=True
    ),
    Fault("an undecided answer", http(200, {"Success": "perhaps"}), ReplyError),
    Fault("data of another type", http(200, {"Success": True, "Data": 7, "data": 7}), ReplyError, only_data=True),
]
STALLS = [fault for fault in FAULTS if fault.timeout == SHORT]
CALLS_AT_ONCE = [CALLS[start : start + 4] for start in range(0, len(CALLS), 4)]  # few enough to send within SHORT


@pytest.fixture(autouse=True)
def _no_margin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for service, margin in (
        (AsyncCommand, "_COMMAND_REPLY_MARGIN_SECONDS"),
        (AsyncCode, "_CODE_REPLY_MARGIN_SECONDS"),
    ):
        monkeypatch.setattr(sys.modules[service.__module__], margin, 0.0)
    return


def _called(call: Call, timeout: float) -> Call:
    """Give commands and code the time limit that the other calls have."""
    if call.name.endswith("execute_command"):
        return call._replace(make=lambda _, session: session.command.execute_command("true", int(timeout * 1000)))
    if call.name.endswith("run_code"):
        return call._replace(make=lambda _, session: session.code.run_code("1", "python", timeout))
    return call


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in STALLS], ids=lambda fault: fault.name)
async def test_fault(fault: Fault, call: Call) -> None:
    """Each method ends in time with the right error, repeating only if safe."""
    await check(fault, call)


@pytest.mark.slow
@pytest.mark.parametrize("calls", CALLS_AT_ONCE, ids=lambda calls: " ".join(call.name for call in calls))
async def test_stalls(calls: list[Call]) -> None:
    """Faults that use up the whole time limit end in time too, for several methods at once."""
    await async_at_once([partial(check, fault, call) for call in calls for fault in STALLS])


async def meet(fault: Fault, call: Call, **options: Any) -> tuple[Service, Any, AgentBayError | None, bool]:
    """Make a call of a service that has the fault, and return the service and the outcome."""
    timeout = fault.timeout
    while True:
        with Service(fault.behaviour) as service:
            async with client(service.url, timeout, **options) as bay:
                session = handle(bay, service.url if call.direct else "")
                began = time.monotonic()
                result, error, raised = await outcome(_called(call, timeout), bay, session)
                assert time.monotonic() - began < timeout + SLACK, (fault.name, call.name)
        # On a busy machine a short limit may be over before the request has arrived, and then the fault is not met.
        if service.requests or timeout > LONG:
            return service, result, error, raised
        timeout *= 4


async def check(fault: Fault, call: Call) -> None:
    """Compare what a fault does to a call with what it should do."""
    service, result, error, raised = await meet(fault, call, max_retries=1)
    if fault.only_data and call.acknowledged:
        return
    expected = (call.direct and fault.direct) or fault.error
    assert isinstance(root(error), expected), f"{error!r} for {result!r}"
    refusal = fault.refusal and not (call.direct and fault.direct)
    contract = call.raises_refusal if refusal else call.raises
    if fault.ordinary and call.folds_ordinary:
        contract = None
    assert raised is (contract is not None)
    if contract is not None:
        assert isinstance(error, contract)
    else:
        assert result.success is False
        assert not result
        assert result.error_message == str(error)
        with pytest.raises(type(error)):
            result.unwrap()
    again = fault.sent == _TWICE or (fault.sent == _IF_REPEATABLE and call.repeatable)
    assert service.count(call.action) == (2 if again else 1)
    # a command or code at its time limit asks whether the session is paused
    assert {request.action for request in service.requests} <= {call.action, "GetSessionDetail"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_strict(fault: Fault) -> None:
    """A strict client raises the error that others find in the result."""
    for call in CALLS:
        if (fault.only_data and call.acknowledged) or (fault in STALLS and call.name != "get"):
            continue
        _, result, error, raised = await meet(fault, call, max_retries=0, strict=True)
        assert raised, f"{call.name} returned {result!r}"
        assert isinstance(root(error), (call.direct and fault.direct) or fault.error), f"{call.name}: {error!r}"


def _close_at_once(peer: Peer) -> None:
    raise Hangup


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
async def test_closes_after_accepting(call: Call) -> None:
    """A service that closes each connection is a connection error."""
    with Service(ok(), accepting=_close_at_once) as service:
        async with client(service.url, max_retries=1) as bay:
            _, error, raised = await outcome(call, bay, handle(bay, service.url if call.direct else ""))
        assert service.count() == 0
    assert isinstance(root(error), (ConnectionFailed, ConnectionLost))
    assert raised is (call.raises is not None)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
async def test_nobody_listens(call: Call) -> None:
    """A refused connection is retried and ends as ConnectionFailed."""
    with nobody() as url:
        async with client(url, max_retries=1) as bay:
            _, error, raised = await outcome(call, bay, handle(bay, url if call.direct else ""))
    assert isinstance(root(error), ConnectionFailed)
    assert isinstance(root(error), TransportError)
    assert raised is (call.raises is not None)
