"""Messages of a session's browser, over real sockets."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

from agentbay import (
    AsyncAgentBay,
    AsyncSession,
    BrowserError,
    BrowserNotifyMessage,
    BrowserOption,
    BrowserProxy,
    BrowserScreen,
    BrowserViewport,
    Config,
)
from agentbay._websocket import AsyncQueue
from tests.scripted_ws import Peer, WsServer

TARGET = "wuying_cdp_mcp_server"
CAPTCHA = {"type": "call-for-user", "id": 7, "code": 101, "message": "captcha", "action": "takeover"}


def session(bay: AsyncAgentBay, url: str) -> AsyncSession:
    """Make a session with a WebSocket there."""
    made = AsyncSession(bay, "session-x")
    made.ws_url, made.token = url, "token"
    return made


def client() -> AsyncAgentBay:
    """Make a client whose service does not matter."""
    return AsyncAgentBay("akm-test", Config(endpoint="http://127.0.0.1:9"), max_retries=0)


async def test_messages_are_delivered_in_order() -> None:
    """Each message reaches the callback once, and what the callback raises ends nothing."""

    def script(peer: Peer) -> None:
        peer.receive()
        for number in range(3):
            peer.push(TARGET, **{**CAPTCHA, "id": number, "extraParams": {"max_wait_time": 180}})
        peer.receive()

    received: AsyncQueue[BrowserNotifyMessage] = AsyncQueue()

    def callback(message: BrowserNotifyMessage) -> None:
        received.put(message)
        raise ValueError("a fault of the user's")

    with WsServer(script) as server:
        async with client() as bay:
            browser = session(bay, server.url).browser
            assert await browser.register_callback(callback)
            assert await browser.send_takeover_done(0)
            found = [await received.get(10) for _ in range(3)]
            await browser.unregister_callback()
    assert [message.id for message in found] == [0, 1, 2]
    assert (found[0].code, found[0].action, found[0].extra_params) == (101, "takeover", {"max_wait_time": 180})


async def test_what_is_sent() -> None:
    """A message travels as one frame, and `send_takeover_done` has its documented form."""
    heard: list[dict[str, Any]] = []
    both = threading.Event()

    def script(peer: Peer) -> None:
        heard.extend(peer.receive() for _ in range(2))
        both.set()

    with WsServer(script) as server:
        async with client() as bay:
            browser = session(bay, server.url).browser
            assert await browser.send_notify_message(BrowserNotifyMessage("note", 1, 0, "hällo"))
            assert await browser.send_takeover_done(7)
            assert both.wait(10)
    assert [frame["target"] for frame in heard] == [TARGET, TARGET]
    assert heard[0]["data"] == {"type": "note", "id": 1, "code": 0, "message": "hällo"}
    done = {"type": "call-for-user", "id": 7, "code": 199, "message": "user handle done", "action": "takeoverdone"}
    assert heard[1]["data"] == done


async def test_a_callback_can_be_registered_again() -> None:
    """After `unregister_callback` nothing is delivered, and another callback takes over."""
    go_on = threading.Event()

    def script(peer: Peer) -> None:
        peer.push(TARGET, **{**CAPTCHA, "id": 1})
        assert go_on.wait(10)
        peer.push(TARGET, **{**CAPTCHA, "id": 2})
        peer.receive()

    first: AsyncQueue[int | None] = AsyncQueue()
    second: AsyncQueue[int | None] = AsyncQueue()
    with WsServer(script) as server:
        async with client() as bay:
            browser = session(bay, server.url).browser
            assert await browser.register_callback(lambda message: first.put(message.id))
            assert await first.get(10) == 1
            await browser.unregister_callback()
            assert await browser.register_callback(lambda message: second.put(message.id))
            go_on.set()
            assert await second.get(10) == 2
            assert first.get_or_none() is None
            await browser.unregister_callback()


async def test_messages_go_on_after_a_lost_connection() -> None:
    """A connection that is lost is made again by itself."""

    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.drop()
            return
        peer.push(TARGET, **{**CAPTCHA, "id": peer.number})
        peer.receive()

    received: AsyncQueue[int | None] = AsyncQueue()
    with WsServer(script) as server:
        async with client() as bay:
            browser = session(bay, server.url).browser
            assert await browser.register_callback(lambda message: received.put(message.id))
            assert await received.get(30) == 2
            await browser.unregister_callback()


async def test_without_a_websocket() -> None:
    """A session without a WebSocket says so by False, and nothing is left registered."""
    async with client() as bay:
        browser = AsyncSession(bay, "session-x").browser
        assert not await browser.register_callback(print)
        assert not await browser.send_takeover_done(1)
        with pytest.raises(BrowserError, match="initialize"):
            await browser.get_endpoint_url()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: BrowserViewport(-1, 600), "width must be a whole number of pixels, 1 to 16384, not -1 (int)"),
        (
            lambda: BrowserScreen(800, 10**9),
            "height must be a whole number of pixels, 1 to 16384, not 1000000000 (int)",
        ),
        (lambda: BrowserOption(viewport=(800, 600)), "viewport must be a BrowserViewport or None, not of type tuple"),
        (lambda: BrowserOption(user_agent=1), "user_agent must be a string or None, not 1 (int)"),
        (lambda: BrowserOption(cmd_args=["--a", 1]), "cmd_args[1] must be a string, not 1 (int)"),
        (lambda: BrowserOption(proxies=["x"]), "proxies[0] must be a BrowserProxy, not 'x' (str)"),
        (lambda: BrowserOption(use_stealth="yes"), "use_stealth must be True or False, not 'yes' (str)"),
        (lambda: BrowserProxy("custom", "http://x", password=1), "password must be a string or None, not of type int"),
    ],
)
async def test_wrong_options_are_refused(wrong: Any, said: str) -> None:
    """A wrong option is refused where it is written, by its name."""
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        wrong()
