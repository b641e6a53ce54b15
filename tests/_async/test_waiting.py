"""What waits and what lists reads all that there is, however often the service fails or how short the time is."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from agentbay import (
    AsyncAgentBay,
    AsyncExtensionsService,
    AsyncMobileSimulateService,
    Config,
    ContextSync,
    NotSupportedError,
)
from tests.scripted import NOT_FOUND, Peer, Request, Service, ok, refused, tool_says

from .calls import client, handle

BUSY = refused("ServiceUnavailable", 503)


def transfers(*statuses: str) -> Any:
    """Answer with uploads of these statuses."""
    tasks = [{"contextId": "c", "path": "/d", "status": status, "taskType": "upload"} for status in statuses]
    return ok({"ContextStatus": json.dumps([{"type": "data", "data": json.dumps(tasks)}])})


async def test_failed_polls_say_nothing_about_transfers() -> None:
    """Only answers without a transfer count as none; polls that failed do not."""
    polls = [BUSY, BUSY, BUSY, transfers(), transfers("Success")]
    with Service({"SyncContext": ok(), "GetContextInfo": polls}) as service:
        async with client(service.url, max_retries=0) as bay:
            assert (await handle(bay).context.sync("c", "/d")).success
    assert service.count("GetContextInfo") == len(polls)


@pytest.mark.parametrize("timeout", [0, 1, 2, 3])
async def test_a_task_is_polled_at_least_once(timeout: int) -> None:
    """A task that is done is found so, however short its time limit."""
    done = tool_says(json.dumps({"taskId": "t", "status": "finished", "result": "it"}))
    with Service(done) as service:
        async with client(service.url) as bay:
            result = await handle(bay).agent.computer.execute_task_and_wait("look", timeout)
    assert (result.success, result.task_result) == (True, "it")
    phone = tool_says(json.dumps({"taskId": "t", "status": "completed", "result": "it"}))
    with Service(phone) as service:
        async with client(service.url) as bay:
            result = await handle(bay).agent.mobile.execute_task_and_wait("look", timeout)
    assert (result.success, result.task_result) == (True, "it")


def pages(names: list[str]) -> Any:
    """Answer with pages of a folder."""

    def behave(peer: Peer, request: Request) -> None:
        size, number = int(request.fields["PageSize"]), int(request.fields["PageNumber"])
        shown = [{"FileName": name} for name in names[(number - 1) * size : number * size]]
        ok(shown, Count=len(names))(peer, request)

    return behave


@pytest.mark.parametrize(("count", "calls"), [(3, 1), (100, 1), (101, 2), (250, 3)])
async def test_all_extensions_are_listed(count: int, calls: int) -> None:
    """A list of extensions has all of them, a call for each hundred."""
    names = [f"ext_{number}.zip" for number in range(count)]
    with Service({"GetContext": ok({"Id": "c", "Name": "n"}), "DescribeContextFiles": pages(names)}) as service:
        async with client(service.url) as bay:
            assert [found.id for found in await AsyncExtensionsService(bay, "n").list()] == names
    assert service.count("DescribeContextFiles") == calls


async def test_a_description_on_a_later_page_is_found() -> None:
    """A description of a device is found behind other files, and below a path with a slash at its end."""
    names = [*(f"{number}.txt" for number in range(60)), "dev_info.json"]
    with Service({"DescribeContextFiles": pages(names)}) as service:
        async with client(service.url) as bay:
            assert await AsyncMobileSimulateService(bay).has_mobile_info(ContextSync("c", "/data/x/"))
    assert {asked.fields["ParentFolderPath"] for asked in service.requests} == {"/data/x/agentbay_mobile_info/"}


async def test_a_browser_that_does_not_start_says_why() -> None:
    """An agent's task without a browser fails with the reason of the service."""
    with Service({"InitBrowser": refused("SomeCode")}) as service:
        async with client(service.url) as bay:
            result = await handle(bay).agent.browser.execute_task("look")
    assert "Failed to initialize browser: [SomeCode] it says no" in result.error_message


async def test_watch_directory_keeps_the_http_client() -> None:
    """The thread of watch_directory() uses the http_client of its client, or refuses if it cannot."""
    asked: list[httpx.Request] = []
    hooks: Any = {"request": [asked.append]}
    with Service(NOT_FOUND) as service:
        async with (
            httpx.AsyncClient(event_hooks=hooks) as mine,
            AsyncAgentBay("k", Config(endpoint=service.url), http_client=mine) as bay,
        ):
            files = handle(bay).file_system
            if isinstance(mine, httpx.Client):
                thread = files.watch_directory("/x", print)
                thread.start()
                thread.join()
                assert asked
            else:
                with pytest.raises(NotSupportedError, match=r"http_client.*Use watch\(\) instead"):
                    files.watch_directory("/x", print)
