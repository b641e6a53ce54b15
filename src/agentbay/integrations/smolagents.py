"""smolagents: run the code of a `CodeAgent` in a session."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import base64
from contextlib import ExitStack
from io import BytesIO
from typing import Any

from agentbay import Session
from agentbay.errors import CodeTimeoutError
from agentbay.integrations import missing, open_session

try:
    import PIL.Image
    from smolagents.local_python_executor import CodeOutput
    from smolagents.monitoring import AgentLogger, LogLevel
    from smolagents.remote_executors import RemotePythonExecutor
    from smolagents.utils import AgentError
except ImportError as error:
    raise missing("smolagents", error) from error

_FORMATS = ("json", "text", "html", "markdown", "latex", "svg", "chart")


class AgentBayExecutor(RemotePythonExecutor):
    """Runs an agent's Python code in a session: `CodeAgent(..., executor=AgentBayExecutor())`.

    Args:
        additional_imports: Packages to install in the session.
        logger: The agent's logger; None is one that shows nothing.
        session: Session to use, which its owner deletes; None makes one, which `cleanup` deletes.
        timeout_s: Seconds that one piece of code may run.
        allow_pickle: As in smolagents: take objects that JSON cannot carry. The code could then run anything here.
    """

    def __init__(
        self,
        additional_imports: list[str] | None = None,
        logger: AgentLogger | None = None,
        session: Session | None = None,
        timeout_s: float = 300,
        allow_pickle: bool = False,
    ) -> None:
        super().__init__(additional_imports or [], logger or AgentLogger(level=LogLevel.OFF), allow_pickle)
        self._exit_stack, self._timeout_s = ExitStack(), timeout_s
        self.session = session.with_options(strict=False) if session else self._exit_stack.enter_context(open_session())
        try:
            self.installed_packages = self.install_packages(self.additional_imports)
        except BaseException:
            self.cleanup()
            raise

    def run_code_raise_errors(self, code: str) -> CodeOutput:
        """Run code, and return its value or the agent's final answer.

        Raises:
            AgentError: The code failed.
        """
        result = self.session.code.run(code, "python", self._timeout_s)
        if not isinstance(result.exception, CodeTimeoutError):  # of which the agent sees what was printed before
            result.unwrap()
        logs = "".join(result.logs.stdout)
        if error := result.error:
            if error.name == self.FINAL_ANSWER_EXCEPTION:
                answer = self._deserialize_final_answer(error.value, self.allow_pickle)
                return CodeOutput(output=answer, logs=logs, is_final_answer=True)
            text = f"{logs}\nExecuting code yielded an error:\n{error.name}\n{error.value}\n{error.traceback}"
            raise AgentError(text, self.logger)
        main = next((shown for shown in result.results if shown.is_main_result), None)
        value: Any = None
        if main and (image := main.png or main.jpeg):
            value = PIL.Image.open(BytesIO(base64.b64decode(image)))
        elif main:
            value = next((found for name in _FORMATS if (found := getattr(main, name)) is not None), None)
        return CodeOutput(output=value, logs=logs, is_final_answer=False)

    def cleanup(self) -> None:
        """Delete the session, if this executor has made it."""
        self._exit_stack.close()
