"""Contexts: several kernels of one language in one session."""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable

import pytest

from agentbay import (
    AgentBayError,
    AsyncAgentBay,
    AsyncSession,
    CodeContext,
    CodeError,
    CodeStdout,
    Config,
    InvalidArgumentError,
    NotSupportedError,
)
from tests._async.calls import handle
from tests.scripted import Service, tool_says


async def value(session: AsyncSession, code: str, context: CodeContext | str) -> str:
    return (await session.code.run_code(code, context=context)).check().result


async def test_contexts_are_apart(session: AsyncSession) -> None:
    """Definitions of one context are missing in others and in the language's own."""
    first, second = await session.code.create_context(), await session.code.create_context("py", name="Mine ü")
    assert (first, second) == (CodeContext("python-1", "python"), CodeContext("Mine ü", "python"))
    await value(session, "x = 1", first)
    await value(session, "x = 2", second)
    assert not await session.code.run_code("x", "python")
    assert [await value(session, "x", context) for context in (first, second, "Mine ü")] == ["1", "2", "2"]
    assert await session.code.list_contexts() == [first, second, CodeContext("python", "python")]
    assert pickle.loads(pickle.dumps(first)) == first


async def ending(session: AsyncSession, mine: CodeContext, end: Callable[[], Awaitable[None]]) -> str:
    """Return how code ends that runs in a context when `end` is called."""
    async with session.code.stream("print('on')\nwhile True: pass", context=mine) as stream:
        async for event in stream:
            if isinstance(event, CodeStdout):
                await end()
    return stream.result.error_message


async def test_restart(session: AsyncSession) -> None:
    """A restart ends running code and clears definitions, in this context alone."""
    mine, other = await session.code.create_context(), await session.code.create_context()
    await value(session, "x = 1", mine)
    await value(session, "x = 2", other)
    ended = await ending(session, mine, lambda: session.code.restart_context(mine))
    assert ended.startswith("KernelDied: its context was restarted")
    assert ended.endswith("the next call gets a new kernel")
    assert "name 'x' is not defined" in (await session.code.run_code("x", context=mine)).error_message
    assert await value(session, "x", other) == "2"
    await session.code.run_code("x = 3", "python")
    await session.code.restart_context("python")
    assert not await session.code.run_code("x", "python")


async def test_remove(session: AsyncSession) -> None:
    """A removed context is gone, with its kernel and its running code."""
    mine = await session.code.create_context(name="mine")
    pid = await value(session, "import os; os.getpid()", mine)
    ended = await ending(session, mine, lambda: session.code.remove_context(mine))
    assert ended == (
        "KernelDied: its context was removed; what was defined is lost, the next call needs another context"
    )
    assert not (await session.command.run(f"kill -0 {pid}")).success
    assert "There is no context 'mine'" in (await session.code.run_code("1", context=mine)).error_message
    assert await session.code.list_contexts() == []
    assert await session.code.create_context(name="mine") == mine


async def test_stream_and_interrupt(session: AsyncSession) -> None:
    """A context is streamed and interrupted like a language."""
    mine = await session.code.create_context()
    async with session.code.stream("kept = 1\nprint('on')\nwhile True: pass", context=mine) as stream:
        async for event in stream:
            if isinstance(event, CodeStdout):
                assert not await session.code.interrupt("python")
                assert await stream.interrupt()
    assert stream.result.error_message == "KeyboardInterrupt"
    assert await value(session, "kept", mine) == "1"


async def test_refusals(session: AsyncSession) -> None:
    """Impossible requests say why and change nothing."""
    code = session.code
    mine = await code.create_context(name="mine")
    for asked, why in (
        (code.run_code("1", "python", context=mine), "not both"),
        (code.run_code("1"), "Unsupported language"),
        (code.run_code("1", context="nosuch"), "There is no context 'nosuch'"),
        (code.run_code("1", context=""), "is a CodeContext or its name"),
        (code.run_code("1", context="nosuch", stream_beta=True), "There is no context 'nosuch'"),
    ):
        assert why in (await asked).error_message
    for refused, why in (
        (lambda: code.create_context(name="mine"), "'mine' already"),
        (lambda: code.create_context(name="python"), "'python' already"),
        (lambda: code.create_context(name="x" * 101), "100 characters at most"),
        (lambda: code.create_context("cobol"), "Unsupported language"),
        (lambda: code.create_context("jupyter:nosuch"), "there is no kernelspec 'nosuch'"),
        (lambda: code.restart_context("nosuch"), "There is no context 'nosuch'"),
        (lambda: code.remove_context("nosuch"), "There is no context 'nosuch'"),
        (lambda: code.remove_context("python"), "always there"),
        (lambda: code.interrupt(context="nosuch"), "There is no context 'nosuch'"),
    ):
        with pytest.raises(CodeError, match=why):
            await refused()
    with pytest.raises(InvalidArgumentError):
        code.stream("1", context=5)  # type: ignore[arg-type]
    assert await code.list_contexts() == [mine]


async def test_service_without_contexts() -> None:
    """On a service without contexts the error says what to do instead."""
    with Service(tool_says("Tool not found: list_code_contexts", is_error=True)) as service:
        async with AsyncAgentBay("akm-test", Config(endpoint=service.url), timeout=60.0) as bay:
            code = handle(bay).code
            for call in (
                lambda: code.create_context(),
                lambda: code.list_contexts(),
                lambda: code.restart_context("a"),
                lambda: code.remove_context("a"),
            ):
                with pytest.raises(NotSupportedError, match=r"has no named contexts.*use another session"):
                    await call()
    for text, is_error in (("out of order", True), ("[1]", False), ("nonsense", False), ('{"a": 1}', False)):
        with Service(tool_says(text, is_error=is_error)) as service:
            async with AsyncAgentBay("akm-test", Config(endpoint=service.url), timeout=60.0) as bay:
                with pytest.raises(AgentBayError) as caught:
                    await handle(bay).code.list_contexts()
                assert type(caught.value).__name__ == ("CodeError" if is_error else "ReplyError")
