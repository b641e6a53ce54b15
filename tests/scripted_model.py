"""A model of the tests: an OpenAI-compatible server that answers from a script, and keeps what it was asked."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from tests.http_server import Handler, Server, serving

Answer = dict[str, Any]
Step = Answer | Callable[["Asked"], Answer]


class Asked:
    """One request: its headers, and the conversation."""

    def __init__(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> None:
        self.path, self.headers, self.body = path, headers, body

    @property
    def shown(self) -> str:
        """What the model was shown last."""
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)

    @property
    def said(self) -> str:
        """The whole conversation as text."""
        return json.dumps(self.body, ensure_ascii=False)

    @property
    def images(self) -> int:
        """How many images it has."""
        return self.said.count('"image_url": {"url": "data:image/')

    def element(self, name: str) -> int:
        """Return the number of the element with this name."""
        found = re.search(rf"^\[(\d+)\] [^']*'{re.escape(name)}'", self.shown, re.MULTILINE)
        assert found, self.shown
        return int(found[1])


def call(tool: str, **arguments: Any) -> Answer:
    """Answer by calling a tool."""
    function = {"name": tool, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"tool_calls": [{"id": f"call-{tool}", "type": "function", "function": function}], "content": None}


def click(name: str) -> Step:
    """Answer by a click on the element of this name."""
    return lambda asked: call("click", element=asked.element(name))


def fill(name: str, text: str, **more: Any) -> Step:
    """Answer by typing into the field of this name."""
    return lambda asked: call("type", element=asked.element(name), text=text, **more)


def say(text: str) -> Answer:
    """Answer with a text."""
    return {"content": text}


class ModelServer:
    """Serves the script on loopback.

    Attributes:
        asked: The requests so far.
        status: The HTTP status of the answers.
        failure: The body of the answers, in the place of the script.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.status, self.failure, self.location = 200, "", ""
        self._script: deque[Step] = deque()
        self._again: Step | None = None
        model = self

        class Playing(Handler):
            def do_POST(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.path, headers, json.loads(self.body()))
                model.asked.append(asked)
                answer = model.failure.encode() if model.failure else model._answer(asked)
                location = {"location": model.location} if model.location else {}
                self.answer(model.status, answer, {"content-type": "application/json", **location})

        self._running = ExitStack()
        self.url = f"http://{self._running.enter_context(serving(Server(Playing))).host}/v1"
        self.close = self._running.close

    def play(self, *script: Step, again: Step | None = None) -> None:
        """Answer with these steps from now on, and then always with `again`."""
        self.asked.clear()
        self._script, self._again = deque(script), again
        self.status, self.failure, self.location = 200, "", ""

    def _answer(self, asked: Asked) -> bytes:
        step = self._script.popleft() if self._script else self._again
        assert step is not None, "the script is over"
        message = {"role": "assistant", **(step(asked) if callable(step) else step)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
        made = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
        return json.dumps(made).encode()


def names_of_tools(asked: Asked) -> Iterable[str]:
    """Return the tools that the model may call."""
    return [tool["function"]["name"] for tool in asked.body.get("tools", ())]
