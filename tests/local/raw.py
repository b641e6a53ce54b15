"""A runtime as a child process, and a client of the bare wire."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.local.traces import PATIENCE

KEY = "the-key-of-the-tests"


class Refused(Exception):
    """The service answered no."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(status, body)
        self.status, self.code, self.message = status, body["Code"], body["Message"]
        plain = {"Success", "HttpStatusCode"} if status == 200 else set()
        assert set(body) == {"RequestId", "HostId", "Code", "Message"} | plain


class Wire:
    """Sends actions as forms and reads the envelope, as `protocol/actions.md` has it."""

    def __init__(self, url: str, key: str = KEY) -> None:
        self.url, self.key = url, key
        self.http = httpx.Client(base_url=url, timeout=2 * PATIENCE, trust_env=False)

    def envelope(self, action: str, **fields: Any) -> dict[str, Any]:
        form = {"Authorization": f"Bearer {self.key}", **{name: _form(value) for name, value in fields.items()}}
        answer = self.http.post("/", params={"Action": action, "Format": "json"}, data=form)
        body = answer.json()
        if answer.status_code != 200 or not body.get("Success", True):
            raise Refused(answer.status_code, body)
        assert (body["Success"], body["Code"], body["HttpStatusCode"], body["Message"]) == (True, "ok", 200, "")
        assert body["RequestId"] == body["RequestId"].upper()
        return body

    def data(self, action: str, **fields: Any) -> Any:
        return self.envelope(action, **fields).get("Data")

    def create(self, **fields: Any) -> str:
        return str(self.data("CreateMcpSession", **fields)["SessionId"])

    @contextlib.contextmanager
    def session(self, **fields: Any) -> Iterator[str]:
        session = self.create(**fields)
        try:
            yield session
        finally:
            with contextlib.suppress(Refused):
                self.data("DeleteSessionAsync", SessionId=session)

    def status(self, session: str) -> str:
        return str(self.data("GetSessionDetail", SessionId=session)["Status"])

    def tool(self, session: str, name: str, **args: Any) -> dict[str, Any]:
        reply: dict[str, Any] = self.data("CallMcpTool", SessionId=session, Name=name, Args=args, Server="")
        return reply

    def text(self, session: str, name: str, **args: Any) -> str:
        reply = self.tool(session, name, **args)
        assert not reply["isError"], reply
        return str(reply["content"][0]["text"])

    def sh(self, session: str, command: str, **args: Any) -> dict[str, Any]:
        reply = self.tool(session, "shell", command=command, **{"timeout_ms": int(PATIENCE * 1000), **args})
        result: dict[str, Any] = json.loads(reply["content"][0]["text"])
        assert reply["isError"] == (result["exit_code"] != 0)
        return result

    def stdout(self, session: str, command: str) -> str:
        result = self.sh(session, command)
        assert result["exit_code"] == 0, result
        return str(result["stdout"])


def _form(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


class Child:
    """A process that serves, started as the launcher or a person starts it."""

    def __init__(
        self,
        arguments: list[str],
        *,
        key: str = KEY,
        parent_pipe: bool = True,
        python: Sequence[str] = (sys.executable,),
        **environment: str,
    ) -> None:
        self.process = subprocess.Popen(
            [*python, *arguments],
            stdin=subprocess.PIPE if parent_pipe else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        if parent_pipe:
            assert self.process.stdin is not None
            self.process.stdin.write(key + "\n")
            self.process.stdin.flush()
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.error_lines: list[str] = []
        self._reader = threading.Thread(target=self._read_standard_error, daemon=True)
        self._reader.start()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _read_standard_error(self) -> None:
        assert self.process.stderr is not None
        self.error_lines.extend(self.process.stderr)

    @property
    def url(self) -> str:
        assert self.line.startswith("agentbay local ready at http://127.0.0.1:"), self.standard_error()
        return self.line.split()[-1]

    def standard_error(self) -> str:
        """Wait for its end, and return its standard error."""
        self._reader.join(PATIENCE)
        return "".join(self.error_lines)

    def failure(self) -> str:
        """Return what it says, which must not start."""
        with self:
            assert (self.line, self.process.wait(PATIENCE)) == ("", 1)
            return self.standard_error()

    def close_stdin(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE)

    def send(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def release(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def embedded(state_dir: Path | None = None, *options: str, **more: Any) -> Iterator[tuple[Child, Wire]]:
    """Run `python -m agentbay.local` and yield a client of it."""
    where = ["--state-dir", str(state_dir)] if state_dir else []
    with Child(["-m", "agentbay.local", "--log-level=warning", *where, *options], **more) as child:
        wire = Wire(child.url)
        with wire.http:
            yield child, wire
