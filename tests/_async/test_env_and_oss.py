"""Environment variables and object storage on the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentbay import (
    AsyncAgentBay,
    AsyncSession,
    Config,
    ConnectionLost,
    EnvResult,
    McpTool,
    OSSClientResult,
    OssError,
    ReplyError,
    ToolError,
)
from tests.scripted import Behaviour, Service, hang_up, tool_says

KEYS = ("LTAI-key-id", "the-secret-key", "the-security-token")
URL = "https://bucket.oss.example.com/a%20b?Expires=1&OSSAccessKeyId=LTAI-key-id&Signature=c2lnbmF0dXJl"


@asynccontextmanager
async def scripted(answer: Behaviour, *, strict: bool = False) -> AsyncIterator[tuple[AsyncSession, Service]]:
    with Service(answer) as service:
        async with AsyncAgentBay("akm-EXAMPLE", Config(endpoint=service.url), strict=strict, max_retries=0) as bay:
            yield AsyncSession(bay, "session-x"), service


def sent(service: Service) -> tuple[str, str, Any]:
    fields = service.requests[-1].fields
    return fields["Name"], fields["Server"], json.loads(fields["Args"])


async def test_set_env() -> None:
    """Variables travel as pairs to a server that the session does not list."""
    async with scripted(tool_says("anything")) as (session, service):
        result = await session.env.set({"A": "b", "É": ""})
        assert (result.success, result.data) == (True, True)
        pairs = [{"key": "A", "value": "b"}, {"key": "É", "value": ""}]
        assert sent(service) == ("set_env", "wuying_system", {"envs": pairs})
        assert session.mcpTools == [McpTool("set_env", "wuying_system"), McpTool("get_env", "wuying_system")]
        await session.env.set({"A": "b"})
        assert len(session.mcpTools) == 2


async def test_set_env_keeps_the_server_that_is_known() -> None:
    """The server that a session lists itself is used."""
    async with scripted(tool_says("")) as (session, service):
        session.mcpTools = [McpTool("get_env", "other")]
        await session.env.get()
        assert sent(service) == ("get_env", "other", {})


@pytest.mark.parametrize("envs", [{}, None, {"A": 1}, {1: "a"}])
async def test_set_env_refuses(envs: Any) -> None:
    """Empty and non-text variables are refused before anything is sent."""
    async with scripted(tool_says("")) as (session, service):
        with pytest.raises(ValueError, match="must"):
            await session.env.set(envs)
        assert service.count() == 0


@pytest.mark.parametrize(("keys", "args"), [(None, {}), ([], {}), (["A"], {"keys": ["A"]}), (("A",), {"keys": ["A"]})])
async def test_get_env(keys: Any, args: object) -> None:
    """No names mean all names, and unset variables are left out."""
    async with scripted(tool_says('{"A": "b", "GONE": null, "N": 1}')) as (session, service):
        result = await session.env.get(keys)
        assert (result.success, result.envs) == (True, {"A": "b", "N": "1"})
        assert sent(service) == ("get_env", "wuying_system", args)


async def test_get_env_refuses_a_bare_name() -> None:
    """A string instead of a list of names is refused."""
    async with scripted(tool_says("{}")) as (session, service):
        for keys in ("PATH", [1]):
            with pytest.raises(ValueError, match="keys"):
                await session.env.get(keys)  # type: ignore[arg-type]
        assert service.count() == 0


async def test_get_env_says_when_it_cannot_read_the_answer() -> None:
    """An answer that is no JSON object fails without being quoted."""
    async with scripted(tool_says("")) as (session, _):
        assert (await session.env.get()).envs == {}
    for text in ("SECRET=x", "[1]"):
        async with scripted(tool_says(text)) as (session, _):
            result = await session.env.get()
            assert (result.success, result.envs) == (False, {})
            assert isinstance(result.exception, ReplyError)
            assert "SECRET" not in result.error_message


async def test_env_failures() -> None:
    """Failures of the tool and lost answers are reported, or raised if strict."""
    async with scripted(tool_says("no room", is_error=True)) as (session, _):
        for result in (await session.env.set({"A": "b"}), await session.env.get()):
            assert (result.success, result.error_message) == (False, "no room")
            assert isinstance(result.exception, ToolError)
    async with scripted(hang_up, strict=True) as (session, _):
        with pytest.raises(ConnectionLost) as caught:
            await session.env.set({"A": "hunter22"})
        assert "hunter22" not in repr(vars(caught.value))


def test_env_values_are_in_no_repr() -> None:
    """The repr of a result shows names only."""
    shown = repr(EnvResult(success=True, envs={"API_KEY": "hunter22"}))
    assert "API_KEY" in shown
    assert "hunter22" not in shown


async def test_env_init() -> None:
    """Credentials travel under the tool's names, absent ones not at all."""
    async with scripted(tool_says("done")) as (session, service):
        result = await session.oss.env_init(*KEYS)
        assert (result.success, result.client_config) == (True, "done")
        names = ("access_key_id", "access_key_secret", "security_token")
        assert sent(service)[2] == dict(zip(names, KEYS, strict=True))
        await session.oss.env_init(*KEYS, "oss.example.com", "cn-x")
        assert sent(service)[2] == {
            **dict(zip(names, KEYS, strict=True)),
            "endpoint": "oss.example.com",
            "region": "cn-x",
        }


async def test_copies() -> None:
    """The four copies travel under the tools' names."""
    async with scripted(tool_says("Upload success")) as (session, service):
        assert (await session.oss.upload("b", "o", "/p")).content == "Upload success"
        assert sent(service) == ("oss_upload", "", {"bucket": "b", "object": "o", "path": "/p"})
        assert await session.oss.upload_anonymous(URL, "/p")
        assert sent(service) == ("oss_upload_annon", "", {"url": URL, "path": "/p"})
        assert await session.oss.download("b", "o", "/p")
        assert sent(service) == ("oss_download", "", {"bucket": "b", "object": "o", "path": "/p"})
        assert await session.oss.download_anonymous(URL, "/p")
        assert sent(service) == ("oss_download_annon", "", {"url": URL, "path": "/p"})


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (tool_says("Init FAILED: bad key"), "OSS environment initialization failed: Init FAILED: bad key"),
        (tool_says(""), "Failed to initialize OSS environment"),
        (tool_says("", is_error=True), "Failed to initialize OSS environment"),
        (tool_says("no", is_error=True), "no"),
    ],
)
async def test_env_init_fails(answer: Behaviour, message: str) -> None:
    """A text that reports failure fails, and config is then empty."""
    async with scripted(answer) as (session, _):
        result = await session.oss.env_init(*KEYS)
        assert (result.success, result.error_message, result.client_config) == (False, message, {})
        assert isinstance(result.exception, OssError)


async def test_copies_fail() -> None:
    """A failed copy has the tool's text, or a default one."""
    async with scripted(tool_says("", is_error=True)) as (session, _):
        assert (await session.oss.upload("b", "o", "p")).error_message == "Failed to upload to OSS"
        assert (await session.oss.upload_anonymous("u", "p")).error_message == "Failed to upload anonymously"
        assert (await session.oss.download("b", "o", "p")).error_message == "Failed to download from OSS"
        assert (await session.oss.download_anonymous("u", "p")).error_message == "Failed to download anonymously"


async def test_storage_secrets_are_never_shown() -> None:
    """Neither keys nor presigned URLs appear in errors, whatever the tool quotes."""
    quoting = f"failed: {' '.join(KEYS)} for {URL}"
    for answer in (tool_says(quoting), tool_says(quoting, is_error=True)):
        async with scripted(answer) as (session, _):
            shown = repr(await session.oss.env_init(*KEYS))
            assert "failed" in shown
            assert not any(secret in shown for secret in (*KEYS, "c2lnbmF0dXJl"))
    async with scripted(tool_says(f"could not reach {URL}", is_error=True)) as (session, _):
        for result in (await session.oss.upload_anonymous(URL, "p"), await session.oss.download_anonymous(URL, "p")):
            assert "could not reach https://bucket.oss.example.com" in result.error_message
            assert not any(secret in f"{result!r} {result.exception!r}" for secret in (KEYS[0], "c2lnbmF0dXJl"))
    shown = repr(OSSClientResult(success=True, client_config=" ".join(KEYS)))
    assert not any(secret in shown for secret in KEYS)
