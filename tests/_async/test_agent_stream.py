"""A task of a phone's agent, followed over a session's WebSocket."""

from __future__ import annotations

from typing import Any

import pytest

from agentbay import AgentEvent, AsyncAgentBay, AsyncSession, Config
from tests.scripted_ws import Talk, WsServer

pytestmark = pytest.mark.anyio


def session(bay: AsyncAgentBay, url: str) -> AsyncSession:
    """Make a session with a WebSocket there."""
    made = AsyncSession(bay, "session-x")
    made.ws_url, made.token = url, "token"
    return made


def client() -> AsyncAgentBay:
    """Make a client whose service does not matter."""
    return AsyncAgentBay("akm-test", Config(endpoint="http://127.0.0.1:9"), max_retries=0)


def event(kind: str, **data: Any) -> dict[str, Any]:
    """Make the data of an event."""
    return {"phase": "event", "eventType": kind, "seq": 1, "round": 2, **data}


async def test_events_and_end() -> None:
    """Each event reaches the callback of its kind, and the end gives the result."""
    asked: list[Any] = []

    def script(talk: Talk) -> None:
        asked.append(talk.hear())
        talk.reply(asked[0], **event("reasoning", content="hm"))
        talk.reply(asked[0], **event("content", content="Tapping. "))
        talk.reply(asked[0], **event("tool_call", toolCallId="c-1", toolName="tap", args={"x": 1}))
        talk.reply(asked[0], **event("tool_result", toolCallId="c-1", toolName="tap", result={"isError": False}))
        talk.reply(asked[0], phase="end", status="finished", taskResult="It is done.")
        talk.hear()

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

    def script(talk: Talk) -> None:
        asked = talk.hear()
        talk.reply(asked, **event("tool_call", toolCallId="c-9", toolName="call_for_user", args={"prompt": "PIN?"}))
        heard.append((asked, talk.hear()))
        talk.reply(asked, phase="end", status="finished", taskResult="unlocked")
        talk.hear()

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

    def script(talk: Talk) -> None:
        asked = talk.hear()
        match asked["data"]["params"]["task"]:
            case "error":
                talk.reply(asked, **event("error", error={"message": "no model"}))
                talk.reply(asked, phase="end", status="finished")
            case "bad end":
                talk.reply(asked, **event("content", content="half"))
                talk.reply(asked, phase="end", status="failed")
            case "lost":
                talk.drop()
                return
        talk.hear()

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
