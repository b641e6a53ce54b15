"""Use a session from either client: `session_program.py FLAVOUR URL KEY`.

Both packages are imported as `agentbay`; which one it is depends on the interpreter. Methods of the synchronous flavour
return what those of the other one return when awaited.
"""

import asyncio
import inspect
import json
import sys

import agentbay
from agentbay import Config, CreateSessionParams

TEXT = "Grüße, 漢字 and a --- line\n" * 5000  # more than one chunk where there are chunks


async def resolve(value):
    """Return the value, awaited if it is awaitable."""
    return await value if inspect.isawaitable(value) else value


async def use_session(bay):
    """Use one session from creation to deletion, and return the observations."""
    seen = {}
    made = await resolve(bay.create(CreateSessionParams(labels={"task": "main job"}, image_id="linux_latest")))
    assert made.success, made.error_message
    session = made.session
    seen["resource"] = "resourceId=" in session.resource_url
    command, files = session.command, session.file_system
    hello = await resolve(command.execute_command("echo hello; echo oops >&2; pwd; id -un"))
    seen["command"] = [hello.success, hello.exit_code, hello.stdout, hello.stderr, hello.output]
    failed = await resolve(command.execute_command("echo out; echo err >&2; exit 3"))
    seen["failed command"] = [failed.success, failed.exit_code, failed.stdout, failed.stderr, failed.error_message]
    late = await resolve(command.execute_command("echo hi; sleep 30", timeout_ms=500))
    seen["late command"] = [late.success, late.output, bool(late.error_message)]
    with_env = await resolve(command.execute_command('echo "$GREETING"', cwd="/tmp", envs={"GREETING": "moin"}))
    seen["environment"] = with_env.output
    seen["written"] = (await resolve(files.write_file("notes/long.txt", TEXT))).success
    seen["appended"] = (await resolve(files.write_file("notes/long.txt", "the end", mode="append"))).success
    content = await resolve(files.read_file("notes/long.txt"))
    seen["read"] = [content.success, content.content == TEXT + "the end"]
    raw = await resolve(files.read_file("notes/long.txt", format="bytes"))
    seen["bytes"] = [raw.success, raw.content == (TEXT + "the end").encode()]
    listing = await resolve(files.list_directory("notes"))
    seen["listing"] = [(entry.name, entry.is_directory) for entry in listing.entries]
    missing = await resolve(files.read_file("notes/none.txt"))
    seen["missing"] = [missing.success, bool(missing.error_message)]
    seen["labelled"] = (await resolve(session.set_labels({"task": "main job", "part": "two"}))).success
    seen["labels"] = (await resolve(session.get_labels())).data
    info = (await resolve(session.info())).data
    seen["info"] = [info.session_id == session.session_id, "resourceId=" in info.resource_url, info.resource_type]
    seen["link"] = (await resolve(session.get_link("https", 30150))).data.startswith("http://127.0.0.1:")
    try:
        await resolve(session.get_link(port=70000))
    except agentbay.SessionError as error:
        seen["bad link"] = "Port must be an integer in the range [1, 65535]" in str(error)
    tools = await resolve(session.list_mcp_tools())
    seen["tools"] = {"shell", "read_file", "write_file", "list_directory"} <= {tool.name for tool in tools.tools}
    metrics = await resolve(session.get_metrics())
    seen["metrics"] = [metrics.success, metrics.metrics.cpu_count > 0, metrics.metrics.mem_total > 0]
    seen["kept alive"] = (await resolve(session.keep_alive())).success
    listed = await resolve(bay.list(labels={"part": "two"}))
    seen["list"] = [[item["sessionId"] for item in listed.session_ids] == [session.session_id], listed.total_count]
    found = await resolve(bay.get(session.session_id))
    again = await resolve(found.session.command.execute_command("cat notes/long.txt | wc -c"))
    seen["found again"] = [found.success, int(again.output)]
    paused = await resolve(session.beta_pause(timeout=20, poll_interval=0.1))
    seen["paused"] = [paused.success, (await resolve(session.get_status())).status]
    refused = await resolve(command.execute_command("true"))
    seen["command while paused"] = refused.success
    resumed = await resolve(session.beta_resume(timeout=20, poll_interval=0.1))
    seen["resumed"] = [resumed.success, (await resolve(command.execute_command("echo back"))).output]
    deleted = await resolve(bay.delete(session))
    seen["deleted"] = deleted.success
    gone = await resolve(bay.get(session.session_id))
    seen["gone"] = [gone.success, "not found" in gone.error_message]
    seen["left"] = (await resolve(bay.list(labels={"part": "two"}))).total_count
    return seen


def main():
    flavour, url, key = sys.argv[1:4]
    client = agentbay.AsyncAgentBay if flavour == "async" else agentbay.AgentBay
    seen = asyncio.run(use_session(client(api_key=key, cfg=Config(endpoint=url))))
    print("RESULT", json.dumps(seen))


if __name__ == "__main__":
    main()
