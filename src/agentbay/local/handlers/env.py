"""The environment tools, which set variables for everything that starts afterwards."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from agentbay._wire.tools import GetEnv, SetEnv, ToolReply
from agentbay.local.handlers.handler_tables import tool_handler
from agentbay.local.handlers.results import check_no_nul, error_result, text_result
from agentbay.local.sessions.session import Session

_PATH_REFERENCE = re.compile(r"\$(?:PATH\b|\{PATH\})")
_NOT_FOUND = 127  # the exit code for a program that is not there
_MAX_TOTAL_CHARACTERS = 1 << 20  # of all variables together, since the kernel limits what execve() passes on


@tool_handler(SetEnv)
async def set_env(session: Session, tool: SetEnv) -> ToolReply:
    variables = {variable.key: variable.value for variable in tool.envs}
    if not variables:
        return error_result("envs must not be empty")
    try:
        check_variables({**session.environment, **variables})
    except ValueError as error:
        return error_result(str(error))
    await set_variables(session, variables)
    return text_result("True")


def check_variables(variables: Mapping[str, str]) -> None:
    """Raise ValueError if no program could be started with these variables."""
    check_no_nul(*variables, *variables.values())
    invalid = [name for name in variables if not name or "=" in name]
    if invalid:
        raise ValueError(f"not a name for an environment variable: {invalid[0]!r:.80}")
    if sum(len(name) + len(value) for name, value in variables.items()) > _MAX_TOTAL_CHARACTERS:
        raise ValueError(f"The variables are more than {_MAX_TOTAL_CHARACTERS} characters together")


async def set_variables(session: Session, variables: Mapping[str, str]) -> None:
    """Set variables for everything that starts in a session from now on."""
    changed = dict(variables)
    if "PATH" in changed:  # callers mostly want to add to it: $PATH stands for its present value
        found = (await _read_environment(session)).get("PATH", "")
        changed["PATH"] = _PATH_REFERENCE.sub(lambda _: found, changed["PATH"])
    session.environment.update(changed)


@tool_handler(GetEnv)
async def get_env(session: Session, tool: GetEnv) -> ToolReply:
    """Return the variables that a command would find, without those that are not set."""
    found = await _read_environment(session)
    if tool.keys:
        found = {name: found[name] for name in tool.keys if name in found}
    return text_result(json.dumps(found, ensure_ascii=False))


async def _read_environment(session: Session) -> dict[str, str]:
    with session.using() as sandbox:
        listed = await sandbox.run(["env", "-0"], env=session.environment)
        if listed.exit_code == _NOT_FOUND:  # an image without `env`: commands have the variables of process 1
            return {**await sandbox.environment(), **session.environment}
    pairs = (entry.partition("=") for entry in listed.stdout.decode("utf-8", "replace").split("\0") if entry)
    return {name: value for name, _, value in pairs if name != "_"}
