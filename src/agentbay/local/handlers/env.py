"""The environment tools: what is set holds for every command, terminal and piece of code that begins afterwards."""

from __future__ import annotations

import json
import re

from agentbay._wire.tools import GetEnv, SetEnv, ToolReply
from agentbay.local.handlers.dispatch import tool_handler
from agentbay.local.handlers.results import check_no_nul, error_result, text_result
from agentbay.local.sessions.session import Session

_COMMAND_VARIABLE = "AGENTBAY_COMMAND"  # by which the sandbox knows its commands
_PATH_REFERENCE = re.compile(r"\$(?:PATH\b|\{PATH\})")
_MAX_TOTAL_CHARACTERS = (
    1 << 20
)  # characters of all variables together: each process gets them as arguments, whose room is small


@tool_handler(SetEnv)
async def set_env(session: Session, tool: SetEnv) -> ToolReply:
    wanted = {variable.key: variable.value for variable in tool.envs}
    if not wanted:
        return error_result("envs must not be empty")
    try:
        check_no_nul(*wanted, *wanted.values())
    except ValueError as error:
        return error_result(str(error))
    wrong = [name for name in wanted if not name or "=" in name or name == _COMMAND_VARIABLE]
    if wrong:
        return error_result(f"not a name for an environment variable: {wrong[0]!r:.80}")
    if "PATH" in wanted:  # the one that is mostly added to
        found = (await _read_environment(session)).get("PATH", "")
        wanted["PATH"] = _PATH_REFERENCE.sub(lambda _: found, wanted["PATH"])
    together = {**session.environment, **wanted}
    if sum(len(name) + len(value) for name, value in together.items()) > _MAX_TOTAL_CHARACTERS:
        return error_result(f"The variables are more than {_MAX_TOTAL_CHARACTERS} characters together")
    session.environment.update(wanted)
    return text_result("True")


@tool_handler(GetEnv)
async def get_env(session: Session, tool: GetEnv) -> ToolReply:
    """Tell what a command would find; a variable that is not set is left out."""
    found = await _read_environment(session)
    if tool.keys:
        found = {name: found[name] for name in tool.keys if name in found}
    return text_result(json.dumps(found, ensure_ascii=False))


async def _read_environment(session: Session) -> dict[str, str]:
    """What a command would find."""
    with session.using() as sandbox:
        listed = await sandbox.run(["env", "-0"], env=session.environment)
    pairs = (entry.partition("=") for entry in listed.stdout.decode("utf-8", "replace").split("\0") if entry)
    return {name: value for name, _, value in pairs if name not in (_COMMAND_VARIABLE, "_")}
