"""A client of the model that carries out tasks, at an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agentbay._lazy_attrs import define
from agentbay.local.outbound.address_check import resolve

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_REQUEST_TIMEOUT_SECONDS = 120.0
_MAX_ANSWER_BYTES = 1 << 20  # of one answer, which stays in memory as long as its task
_MAX_CALLS = 100  # of tools, in one answer
_CHARACTERS_PER_TOKEN = 4  # a rough estimate, for an endpoint that does not count them
# At DEBUG these log the contents of requests, which must never be in the log of a runtime.
_CHATTY_LOGGERS = ("openai", "httpcore", "httpcore2", "httpx", "httpx2")

Message = dict[str, Any]


class ModelError(Exception):
    """The model gave no usable answer, for this reason."""


@define(frozen=True, slots=False)
class ToolCall:
    """A call of a tool that the model asks for.

    Attributes:
        arguments: None if the model wrote no JSON object.
    """

    id: str
    name: str
    arguments: dict[str, Any] | None


@define(frozen=True, slots=False)
class ModelAnswer:
    """What the model answers.

    Attributes:
        reasoning: Its reasoning, if the endpoint returns it.
        tokens: How many the request and the answer have together.
        message: The answer, in the form that the next request repeats it.
    """

    text: str
    reasoning: str
    calls: list[ToolCall]
    tokens: int
    message: Message


class Model:
    """A model by its name, at an OpenAI-compatible endpoint (chat completions with tools).

    Requests go to this endpoint only. Redirects are not followed, since they would send the key to another host.
    """

    def __init__(self, url: str, name: str, key: str) -> None:
        self.name = name
        self._url, self._key = url, key
        self._client: asyncio.Future[AsyncOpenAI] | None = None

    def __repr__(self) -> str:
        return f"Model({self._url!r}, {self.name!r})"

    async def complete(self, messages: Sequence[Message], tools: Sequence[Message]) -> ModelAnswer:
        """Ask the model what to say or to call next.

        Raises:
            ModelError: It gave no usable answer.
        """
        client = await self._connected()
        from openai import OpenAIError

        request: dict[str, Any] = {"model": self.name, "messages": list(messages)}
        if tools:
            request["tools"] = list(tools)
        try:
            completion = await client.chat.completions.create(**request)
            return _read_answer(completion, messages)
        except OpenAIError as error:
            cause = error.__cause__
            # Not chained: the cause holds the request, with the key in its headers.
            raise ModelError(self._describe(cause if isinstance(cause, ModelError) else error)) from None
        except ModelError as error:
            raise ModelError(self._describe(error)) from None
        except (AttributeError, TypeError, IndexError, ValueError, RecursionError):
            raise ModelError(f"the model at {self._url} gave an answer that is no chat completion") from None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await (await self._client).close()

    async def _connected(self) -> AsyncOpenAI:
        if self._client is None:
            # In a thread, since the import takes a second, in which all sessions would wait.
            self._client = asyncio.ensure_future(asyncio.to_thread(self._connect))
        return await asyncio.shield(self._client)

    def _connect(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        # The HTTP library of openai is httpx or httpx2, by its version.
        library = import_module(DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0])
        for name in _CHATTY_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        http = DefaultAsyncHttpxClient(
            follow_redirects=False,
            trust_env=False,  # as for the service's other requests; a .netrc would bring other credentials
            timeout=_REQUEST_TIMEOUT_SECONDS,
            headers={"accept-encoding": "identity"},  # so that what arrives is as large as it will be in memory
            event_hooks={"request": [self._prepare], "response": [_bound_answers(library.AsyncByteStream)]},
        )
        return AsyncOpenAI(
            base_url=self._url, api_key=self._key or "none", http_client=http, timeout=_REQUEST_TIMEOUT_SECONDS
        )

    async def _prepare(self, request: Any) -> None:
        """Send a request to the resolved address, without a made-up key."""
        parts = urlsplit(self._url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        # The user has named the host, so it may have a private address, like a --storage-host.
        addresses = await resolve(parts.hostname or "", port, public_only=False)
        request.extensions = {**request.extensions, "sni_hostname": parts.hostname}
        request.url = request.url.copy_with(host=addresses[0])
        if not self._key:
            del request.headers["authorization"]

    def _describe(self, error: Exception) -> str:
        if isinstance(error, ModelError):
            return f"the model at {self._url} {error}"
        status = getattr(error, "status_code", None)
        said = str(error).strip() or type(error).__name__
        if self._key:  # some endpoints repeat the key that they refuse
            said = said.replace(self._key, "[key]")
        return f"the model at {self._url} {'answers' if status else 'does not answer'}: {said:.300}"


def missing_package_message() -> str:
    """Return what must be installed before a model can be asked, or ""."""
    return "" if find_spec("openai") else 'a model needs openai: pip install "agentbay-sdk[agent]"'


def _bound_answers(stream_class: Any) -> Callable[[Any], Awaitable[None]]:
    """Return what lets no answer fill the memory of the service.

    Args:
        stream_class: `AsyncByteStream` of the HTTP library.
    """

    class Bounded(stream_class):  # type: ignore[misc] # known at run time only
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for chunk in self._stream:
                size += len(chunk)
                if size > _MAX_ANSWER_BYTES:
                    raise ModelError(f"gave an answer of more than {_MAX_ANSWER_BYTES >> 20} MiB")
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    async def bound(response: Any) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise ModelError("gave a compressed answer, which it was not asked for")
        response.stream = Bounded(response.stream)

    return bound


def _read_answer(made: Any, messages: Sequence[Message]) -> ModelAnswer:
    message = made.choices[0].message
    calls = [call for call in message.tool_calls or () if call.type == "function"]
    if len(calls) > _MAX_CALLS:
        raise ModelError(f"wants {len(calls)} tools called at once, of {_MAX_CALLS} at most")
    if message.refusal and not calls:
        raise ModelError(f"refuses: {message.refusal:.300}")
    text = message.content or ""
    sent_back: Message = {"role": "assistant", "content": text}
    if calls:
        sent_back["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in calls
        ]
    tokens = int(made.usage.total_tokens) if made.usage else 0
    return ModelAnswer(
        text=str(text),
        reasoning=str(getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None) or ""),
        calls=[ToolCall(call.id, call.function.name, _parse_object(call.function.arguments)) for call in calls],
        tokens=tokens if tokens > 0 else len(json.dumps([*messages, sent_back])) // _CHARACTERS_PER_TOKEN,
        message=sent_back,
    )


def _parse_object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
