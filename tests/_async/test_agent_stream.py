"""A task of an agent, followed over a session's WebSocket."""

from __future__ import annotations

from typing import Any

import pytest

from agentbay import AgentEvent, AsyncAgentBay, AsyncSession, Config, McpTool, WsCancelledError
from agentbay.errors import AgentError
from tests.scripted_ws import Peer, WsServer


def session(bay: AsyncAgentBay, url: str) -> AsyncSession:
    """Make a session with a WebSocket there."""
    made = AsyncSession(bay, "session-x")
    made.ws_url, made.token = url, "token"
    return made


def client(*, strict: bool = False) -> AsyncAgentBay:
    """Make a client whose service does not matter."""
    return AsyncAgentBay("akm-test", Config(endpoint="http://127.0.0.1:9"), max_retries=0, strict=strict)


def event(kind: str, **data: Any) -> dict[str, Any]:
    """Make the data of an event."""
    return {"phase": "event", "eventType": kind, "seq": 1, "round": 2, **data}


async def test_events_and_end() -> None:
    """Each event reaches the callback of its kind, and the end gives the result."""
    asked: list[Any] = []

    def script(peer: Peer) -> None:
        asked.append(peer.receive())
        peer.reply(asked[0], **event("reasoning", content="hm"))
        peer.reply(asked[0], **event("content", content="Tapping. "))
        peer.reply(asked[0], **event("tool_call", toolCallId="c-1", toolName="tap", args={"x": 1}))
        peer.reply(asked[0], **event("tool_result", toolCallId="c-1", toolName="tap", result={"isError": False}))
        peer.reply(asked[0], phase="end", status="finished", taskResult="It is done.")
        peer.receive()

    seen: list[tuple[str, AgentEvent]] = []
    with WsServer(script) as server:
        async with client() as bay:
            mobile = session(bay, server.url).agent.mobile
            result = await mobile.execute_task_and_wait(
                "open the settings",
                20,
                max_steps=7,
                on_reasoning=lambda event: seen.append(("reasoning", event)),
                on_content=lambda event: seen.append(("content", event)),
                on_tool_call=lambda event: seen.append(("tool_call", event)),
                on_tool_result=lambda event: seen.append(("tool_result", event)),
            )
    assert (result.success, result.task_status, result.task_result) == (True, "finished", "It is done.")
    assert [name for name, _ in seen] == [event.type for _, event in seen]
    assert [name for name, _ in seen] == ["reasoning", "content", "tool_call", "tool_result"]
    assert (seen[2][1].tool_name, seen[2][1].args, seen[2][1].round) == ("tap", {"x": 1}, 2)
    assert asked[0]["target"] == "wuying_mobile_agent"
    wanted = {"method": "exec_task", "params": {"task": "open the settings", "max_steps": 7}}
    assert asked[0]["data"] == wanted
    assert result.request_id == asked[0]["invocationId"]


@pytest.mark.parametrize(("answer", "sent"), [("1234", "1234"), (None, ""), (ValueError("nobody there"), "")])
async def test_a_person_is_asked(answer: Any, sent: str) -> None:
    """The answer of `on_call_for_user` goes back in the same exchange."""
    heard: list[Any] = []

    def script(peer: Peer) -> None:
        asked = peer.receive()
        peer.reply(asked, **event("tool_call", toolCallId="c-9", toolName="call_for_user", args={"prompt": "PIN?"}))
        heard.append((asked, peer.receive()))
        peer.reply(asked, phase="end", status="finished", taskResult="unlocked")
        peer.receive()

    def ask(event: AgentEvent) -> Any:
        assert event.prompt == "PIN?"
        if isinstance(answer, Exception):
            raise answer
        return answer

    with WsServer(script) as server:
        async with client() as bay:
            mobile = session(bay, server.url).agent.mobile
            result = await mobile.execute_task_and_wait("unlock", 20, on_call_for_user=ask)
    asked, resumed = heard[0]
    assert resumed["invocationId"] == asked["invocationId"]
    assert resumed["data"] == {"method": "resume_task", "params": {"toolCallId": "c-9", "response": sent}}
    assert result.task_result == "unlocked"


async def test_failures_are_results() -> None:
    """Each way to fail gives a failed result with the reason."""

    def script(peer: Peer) -> None:
        asked = peer.receive()
        match asked["data"]["params"]["task"]:
            case "error":
                peer.reply(asked, **event("error", error={"message": "no model"}))
                peer.reply(asked, phase="end", status="finished")
            case "bad end":
                peer.reply(asked, **event("content", content="half"))
                peer.reply(asked, phase="end", status="failed")
            case "lost":
                peer.drop()
                return
        peer.receive()

    found = {}
    with WsServer(script) as server:
        async with client() as bay:
            for task, timeout in (("error", 20), ("bad end", 20), ("lost", 20), ("late", 1)):
                mobile = session(bay, server.url).agent.mobile
                found[task] = await mobile.execute_task_and_wait(task, timeout, on_content=print)
    assert not any(result.success for result in found.values())
    assert "no model" in found["error"].error_message
    assert (found["bad end"].task_status, found["bad end"].task_result) == ("failed", "half")
    assert "lost" in found["lost"].error_message.lower()
    assert found["late"].error_message == "Task execution timed out after 1 seconds."


async def test_browsers_and_desktops() -> None:
    """Agents of browsers and desktops are followed in the same way, each at its own server."""
    asked: list[Any] = []

    def script(peer: Peer) -> None:
        for _ in range(2):
            asked.append(peer.receive())
            peer.reply(asked[-1], **event("content", content="looking"))
            peer.reply(asked[-1], phase="end", status="finished", taskResult="found")
        peer.receive()

    seen: list[str] = []
    with WsServer(script) as server:
        async with client() as bay:
            made = session(bay, server.url)
            made.mcpTools = [McpTool("flux_execute_task", "another_server")]
            made.agent.browser.initialized = True
            task = await made.agent.browser.stream_task("buy", on_content=lambda event: seen.append(event.content))
            found = [await task.wait(20), await task.wait(20)]
            computer = made.agent.computer
            found.append(
                await computer.execute_task_and_wait("type", 20, on_content=lambda event: seen.append(event.content))
            )
    assert [result.task_result for result in found] == ["found"] * 3
    assert [result.request_id for result in found[::2]] == [frame["invocationId"] for frame in asked]
    assert seen == ["looking"] * 2
    assert [frame["target"] for frame in asked] == ["wuying_browseruse", "another_server"]
    assert asked[1]["data"] == {"method": "exec_task", "params": {"task": "type"}}
    params = asked[0]["data"]["params"]
    assert (params["task"], params["use_vision"], params["full_page_screenshot"]) == ("buy", False, False)
    assert '"title": "DefaultSchema"' in params["output_schema"]


@pytest.mark.parametrize("strict", [False, True])
async def test_cancelling(strict: bool) -> None:
    """`cancel` ends the task, tells the service, and is the outcome of `wait`."""
    heard: list[Any] = []

    def script(peer: Peer) -> None:
        asked = peer.receive()
        heard.append((asked, peer.receive()))
        peer.receive()

    with WsServer(script) as server:
        async with client(strict=strict) as bay:
            task = await session(bay, server.url).agent.computer.stream_task("type", on_content=print)
            await task.cancel()
            await task.cancel()
            if strict:
                with pytest.raises(WsCancelledError):
                    await task.wait(20)
            else:
                result = await task.wait(20)
                assert (result.success, result.task_status) == (False, "cancelled")
                assert result.error_message == "The task was cancelled."
    asked, cancelled = heard[0]
    assert cancelled["invocationId"] == asked["invocationId"]
    assert cancelled["data"]["phase"] == "cancel"


async def test_a_callback_cancels() -> None:
    """A callback can end the task that it is told about."""

    def script(peer: Peer) -> None:
        asked = peer.receive()
        peer.reply(asked, **event("tool_call", toolCallId="c-1", toolName="pay", args={}))
        peer.receive()
        peer.receive()

    with WsServer(script) as server:
        async with client() as bay:
            tasks: list[Any] = []

            async def stop(event: AgentEvent) -> None:
                await tasks[0].cancel()

            tasks.append(await session(bay, server.url).agent.computer.stream_task("buy", on_tool_call=stop))
            assert (await tasks[0].wait(20)).task_status == "cancelled"


async def test_strict_tasks_raise() -> None:
    """With `strict=True` a failed task is an exception, followed or not."""

    def script(peer: Peer) -> None:
        peer.reply(peer.receive(), phase="end", status="failed")
        peer.receive()

    with WsServer(script) as server:
        async with client(strict=True) as bay:
            computer = session(bay, server.url).agent.computer
            with pytest.raises(AgentError, match="ended with status: failed"):
                await computer.execute_task_and_wait("type", 20, on_error=print)


async def test_without_a_websocket() -> None:
    """A session without a WebSocket cannot be followed, and says so."""
    async with client() as bay:
        result = await AsyncSession(bay, "session-x").agent.computer.execute_task_and_wait("x", 5, on_content=print)
    assert (result.success, result.task_status, result.task_result) == (False, "failed", "Task Failed")
    assert "ws_url" in result.error_message
