"""An HTTP server that records requests and gives prepared answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from tests.http_server import Handler, Server, serving


class Captured(NamedTuple):
    """A request as it arrived, with query and form fields in `fields`."""

    path: str
    query: dict[str, str]
    form: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def fields(self) -> dict[str, str]:
        return {**self.query, **self.form}

    @property
    def action(self) -> str:
        return self.query.get("Action", self.path)


class Answered(NamedTuple):
    """A response to send."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Capture:
    """The requests recorded so far, and the address of the server."""

    def __init__(self, answer: Callable[[Captured], Answered | dict[str, Any]]) -> None:
        self.requests: list[Captured] = []
        self.answer = answer
        self.url = ""

    def take(self, request: Captured) -> Answered:
        self.requests.append(request)
        made = self.answer(request)
        return made if isinstance(made, Answered) else Answered(json.dumps(made).encode())


@contextmanager
def capturing(answer: Callable[[Captured], Answered | dict[str, Any]]) -> Iterator[Capture]:
    """Serve on a free loopback port until the block ends."""
    capture = Capture(answer)

    class Capturing(Handler):
        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            body = self.body()
            headers = {name.lower(): value for name, value in self.headers.items()}
            is_form = headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
            form = dict(parse_qsl(body.decode(), keep_blank_values=True)) if is_form else {}
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            made = capture.take(Captured(parts.path, query, form, headers, body))
            self.answer(made.status, made.body, dict(made.headers))

    with serving(Server(Capturing)) as server:
        capture.url = f"http://{server.host}"
        yield capture
