"""A tool loop in the form of OpenAI's chat completions, with a session.

    python examples/tool_loop.py

The model is scripted, so this needs no key; `client.chat.completions.create(..., tools=TOOLS)` is a real one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from agentbay import AgentBay, AgentBayError, Session

Message = dict[str, Any]


def tool(name: str, description: str, **parameters: str) -> Message:
    """Describe a tool whose parameters are all required strings."""
    properties = {key: {"type": "string", "description": about} for key, about in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": [*parameters]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = [
    tool("write_file", "Write a file.", path="Relative to the home directory.", content="All of it."),
    tool("shell", "Run a command.", command="As typed at a prompt."),
]


def call(session: Session, name: str, arguments: dict[str, str]) -> str:
    """Call a tool, and return its result or error to the model."""
    try:
        if name == "write_file":
            session.file_system.write_file(arguments["path"], arguments["content"]).unwrap()
            return "written"
        result = session.command.run(arguments["command"], timeout=20).unwrap()
        return json.dumps({"exit_code": result.exit_code, "output": result.output[-4000:]})
    except (AgentBayError, KeyError) as error:
        return f"{type(error).__name__}: {error}"


def converse(model: Callable[[list[Message]], Message], task: str, session: Session, turns: int = 10) -> str:
    """Let the model call tools until it answers."""
    messages: list[Message] = [{"role": "user", "content": task}]
    for _ in range(turns):
        said = model(messages)
        messages.append(said)
        if not said.get("tool_calls"):
            return str(said["content"])
        for asked in said["tool_calls"]:
            function = asked["function"]
            answer = call(session, function["name"], json.loads(function["arguments"]))
            print(f"  {function['name']}: {answer}")
            messages.append({"role": "tool", "tool_call_id": asked["id"], "content": answer})
    return f"The model has no answer after {turns} turns."


def scripted() -> Iterator[Message]:
    """Play a model that makes a mistake, sees it, and corrects it."""
    for name, arguments in (
        ("write_file", {"path": "primes.py", "content": "print([n for n in range(2, 30) if is_prime(n)])\n"}),
        ("shell", {"command": "python3 primes.py 2>&1 | tail -n 1"}),
        ("shell", {"command": "sed -i '1i def is_prime(n): return all(n % d for d in range(2, n))' primes.py"}),
        ("shell", {"command": "python3 primes.py"}),
    ):
        function = {"name": name, "arguments": json.dumps(arguments)}
        asked = {"id": f"call_{name}", "type": "function", "function": function}
        yield {"role": "assistant", "content": None, "tool_calls": [asked]}
    yield {"role": "assistant", "content": "The primes below 30 are in the output above."}


if __name__ == "__main__":
    script = scripted()
    with AgentBay.local() as bay, bay.session() as session:
        print(converse(lambda _: next(script), "Which numbers below 30 are prime?", session))
