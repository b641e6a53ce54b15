"""Tools that run commands and code."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Annotated, Literal

from mcp.server.mcpserver import Context, Image
from pydantic import Field

from agentbay import AsyncProcess, CodeStderr, CodeStdout, EnhancedCodeExecutionResult
from agentbay.errors import CommandTimeoutError, DeadlineExceeded

from .tool_group import ToolGroup, shorten, tool

_LANGUAGES = Literal["python", "javascript", "r", "java"]
_Seconds = Annotated[float, Field(gt=0, le=3600, description="Seconds after which it is killed.")]
_ProcessId = Annotated[str, Field(description="Id of the process, as start_process returned it.")]


class CommandTools(ToolGroup):
    """Run shell commands, and follow those in the background."""

    group = "commands"

    @tool(destroys=True)
    async def run_command(
        self,
        ctx: Context,
        command: Annotated[str, Field(description="Line for the shell, such as: ls -la | head")],
        arguments: Annotated[
            list[str],
            Field(description="If given, the command is the name of a program, and no shell expands anything."),
        ] = [],  # noqa: B006  # pydantic copies it
        cwd: Annotated[str, Field(description="Directory to run it in; empty is the home directory.")] = "",
        stdin: Annotated[str, Field(description="Text for its standard input.")] = "",
        timeout_seconds: _Seconds = 120,
    ) -> str:
        """Run a shell command in the sandbox and wait for its end.

        Returns standard output, standard error and the exit code. For servers and other programs that run on, use
        start_process.
        """
        run = (await self.current.get()).command.run
        progress = Progress(ctx)
        result = await run(
            [command, *arguments] if arguments else command,
            cwd=cwd or None,
            stdin=stdin,
            on_stdout=progress.tell,
            on_stderr=progress.tell,
            timeout=timeout_seconds,
        )
        if isinstance(late := result.exception, CommandTimeoutError):
            shown = _describe(late.stdout, late.stderr, None)
            raise CommandTimeoutError(f"The command was killed after {timeout_seconds:g} s.\n{shown}")
        if result.exit_code == -1:  # it could not run at all
            result.unwrap()
        return _describe(result.stdout, result.stderr, result.exit_code)

    @tool(destroys=True)
    async def start_process(
        self,
        command: Annotated[str, Field(description="Line for the shell, such as: python3 -m http.server 30100")],
        cwd: Annotated[str, Field(description="Directory to run it in; empty is the home directory.")] = "",
    ) -> str:
        """Start a command in the background and return its id at once."""
        process = await (await self.current.get()).command.start(command, cwd=cwd or None)
        return f"Started process {process.id} (pid {process.pid})."

    @tool(writes=False)
    async def read_process(
        self,
        process_id: _ProcessId,
        wait_seconds: Annotated[float, Field(ge=0, le=600, description="Seconds to wait for its end first.")] = 0,
    ) -> str:
        """Read all that a background process has written, and whether it still runs."""
        process = await (await self.current.get()).command.attach(process_id)
        with contextlib.suppress(DeadlineExceeded):  # it still runs, which the answer says
            await process.wait(timeout=wait_seconds)
        stdout, stderr = [await _read_so_far(process, name) for name in ("stdout", "stderr")]
        return _describe(stdout, stderr, process.exit_code)

    @tool()
    async def write_process(
        self,
        process_id: _ProcessId,
        text: Annotated[str, Field(description="Text for its standard input; end a line with a line break.")],
    ) -> str:
        """Write to the standard input of a background process."""
        await (await (await self.current.get()).command.attach(process_id)).send_stdin(text)
        return "Written."

    @tool(destroys=True)
    async def stop_process(self, process_id: _ProcessId) -> str:
        """Kill a background process with its children, and forget its output."""
        process = await (await self.current.get()).command.attach(process_id)
        await process.kill()
        code = await process.wait()
        await process.remove()
        return f"Stopped; exit code {code}."

    @tool(writes=False)
    async def list_processes(self) -> str:
        """List the background processes of the sandbox."""
        processes = await (await self.current.get()).command.list()
        lines = [f"{each.id}  {_state(each.exit_code)}  {each.command}" for each in processes]
        return "\n".join(lines) or "There are none."


class CodeTools(ToolGroup):
    """Run code in kernels that keep their variables."""

    group = "code"

    @tool(destroys=True)
    async def run_code(
        self,
        ctx: Context,
        code: Annotated[str, Field(description="Code to run, as in the cell of a notebook.")],
        language: Annotated[_LANGUAGES, Field(description="Language of the code.")] = "python",
        timeout_seconds: _Seconds = 120,
    ) -> list[str | Image]:
        """Run code in a kernel that keeps its variables between calls.

        Returns what the code printed, the value of its last expression, and its plots as images.
        """
        session = await self.current.get()
        progress = Progress(ctx)
        # Leaving the stream early, as a cancelled call does, cancels the code.
        async with session.code.stream(code, language, timeout=timeout_seconds) as stream:
            async for event in stream:
                if isinstance(event, CodeStdout | CodeStderr):
                    await progress.tell(event.text)
        return _show_code(stream.result)


class Progress:
    """Sends output to the client while it is being written."""

    def __init__(self, ctx: Context) -> None:
        self._ctx, self._sent = ctx, 0

    async def tell(self, text: str) -> None:
        """Send a piece of output, counted in characters."""
        self._sent += len(text)
        await self._ctx.report_progress(self._sent, message=text)


async def _read_so_far(process: AsyncProcess, stream: str) -> str:
    """Return what a process has written to a stream until now."""
    data, size = b"", 1
    while len(data) < size:
        state = await process._poll_output(stream, len(data), 0.0)
        data, size = data + state.data, state.size if state.data else 0
    return data.decode("utf-8", "replace")


def _describe(stdout: str, stderr: str, exit_code: int | None) -> str:
    parts = [shorten(stdout.rstrip("\n"))] if stdout else []
    parts += [f"standard error:\n{shorten(stderr.rstrip())}"] if stderr else []
    return "\n".join([*parts, f"[{_state(exit_code)}]"])


def _state(exit_code: int | None) -> str:
    return "still running" if exit_code is None else f"exit code {exit_code}"


def _show_code(result: EnhancedCodeExecutionResult) -> list[str | Image]:
    """Return what code printed and displayed."""
    result.unwrap()
    printed = ["".join(result.logs.stdout), "".join(result.logs.stderr)]
    shown: list[str | Image] = [shorten(text) for text in printed if text]
    for item in result.results:
        if item.png or item.jpeg:
            data = base64.b64decode(item.png or item.jpeg or "")
            shown.append(Image(data=data, format="png" if item.png else "jpeg"))
        elif text := item.text or item.markdown or item.html or item.latex or item.svg:
            shown.append(shorten(text))
        elif item.json is not None:
            shown.append(shorten(json.dumps(item.json)))
    if result.error is not None and result.error.traceback not in shown:
        shown.append(shorten(result.error.traceback or result.error_message))
    return shown or ["The code has ended without output."]
