"""The environment tools: what is set holds for every command, terminal and piece of code that begins afterwards."""

from __future__ import annotations

import json
import re

from agentbay._wire.tools import GetEnv, SetEnv, ToolReply
from agentbay.local.dispatch import runs
from agentbay.local.session import Session
from agentbay.local.tooling import check_text, failed, said

_OWN = "AGENTBAY_COMMAND"  # by which the sandbox knows its commands
_OLD_PATH = re.compile(r"\$(?:PATH\b|\{PATH\})")
_LIMIT = 1 << 20  # characters of all variables together: each process gets them as arguments, whose room is small


@runs(SetEnv)
async def set_env(session: Session, tool: SetEnv) -> ToolReply:
    wanted = {variable.key: variable.value for variable in tool.envs}
    if not wanted:
        return failed("envs must not be empty")
    try:
        check_text(*wanted, *wanted.values())
    except ValueError as error:
        return failed(str(error))
    wrong = [name for name in wanted if not name or "=" in name or name == _OWN]
    if wrong:
        return failed(f"not a name for an environment variable: {wrong[0]!r:.80}")
    if "PATH" in wanted:  # the one that is mostly added to
        found = (await _found(session)).get("PATH", "")
        wanted["PATH"] = _OLD_PATH.sub(lambda _: found, wanted["PATH"])
    together = {**session.environment, **wanted}
    if sum(len(name) + len(value) for name, value in together.items()) > _LIMIT:
        return failed(f"The variables are more than {_LIMIT} characters together")
    session.environment.update(wanted)
    return said("True")


@runs(GetEnv)
async def get_env(session: Session, tool: GetEnv) -> ToolReply:
    """Tell what a command would find; a variable that is not set is left out."""
    found = await _found(session)
    if tool.keys:
        found = {name: found[name] for name in tool.keys if name in found}
    return said(json.dumps(found, ensure_ascii=False))


async def _found(session: Session) -> dict[str, str]:
    """What a command would find."""
    listed = await session.run(["env", "-0"])
    pairs = (entry.partition("=") for entry in listed.stdout.decode("utf-8", "replace").split("\0") if entry)
    return {name: value for name, _, value in pairs if name not in (_OWN, "_")}
