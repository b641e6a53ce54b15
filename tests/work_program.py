"""Work inside a session as a program: `work_program.py FLAVOUR URL KEY`. The published client and ours both run it.

Both packages are imported as `agentbay`; which one it is depends on the interpreter. It prints what it saw.
"""

import asyncio
import inspect
import json
import sys
import threading
import time

import agentbay
from agentbay import Config


async def settled(value):
    """Return the value, awaited if it must be."""
    return await value if inspect.isawaitable(value) else value


async def work_with_files(files, command):
    """Live through the file tools; return what was seen."""
    seen = {}
    seen["directory"] = (await settled(files.create_directory("/tmp/w/deep"))).data
    for name, text in (("a.txt", "one\ntwo"), ("b.md", "x: y"), ("deep/c.txt", "three")):
        assert (await settled(files.write_file(f"/tmp/w/{name}", text))).success
    info = await settled(files.get_file_info("/tmp/w/a.txt"))
    seen["info"] = [info.success, info.is_file, info.is_directory, info.size, info.file_info["permissions"]]
    seen["info of a directory"] = (await settled(files.get_file_info("/tmp/w"))).is_directory
    read = await settled(files.read_multiple_files(["/tmp/w/a.txt", "/tmp/w/deep/c.txt"]))
    seen["several"] = [read.success, read.contents]
    seen["found"] = (await settled(files.search_files("/tmp/w", "*.txt"))).matches
    seen["found but"] = (await settled(files.search_files("/tmp/w", "*.*", ["deep", "*.md"]))).matches
    seen["not found"] = (await settled(files.search_files("/tmp/w", "*.none"))).matches
    edits = [{"oldText": "one", "newText": "ONE"}]
    seen["dry"] = (await settled(files.edit_file("/tmp/w/a.txt", edits, True))).success
    seen["still"] = (await settled(files.read_file("/tmp/w/a.txt"))).content
    seen["edited"] = (await settled(files.edit_file("/tmp/w/a.txt", edits))).data
    seen["then"] = (await settled(files.read_file("/tmp/w/a.txt"))).content
    seen["not edited"] = (await settled(files.edit_file("/tmp/w/a.txt", edits))).success
    seen["moved"] = (await settled(files.move_file("/tmp/w/deep", "/tmp/w/far"))).data
    seen["deleted"] = (await settled(files.delete_file("/tmp/w/b.md"))).data
    listing = await settled(files.list_directory("/tmp/w"))
    seen["listing"] = [(entry.name, entry.is_directory) for entry in listing.entries]
    lost = await settled(files.get_file_info("/tmp/w/none"))
    seen["missing"] = [lost.success, "No such file" in lost.error_message]
    aliases = (files.delete, files.remove, files.rm)
    seen["aliases"] = [(await settled(remove("/tmp/none"))).success for remove in aliases]
    seen["whole"] = (await settled(command.execute_command("cat /tmp/w/a.txt /tmp/w/far/c.txt"))).output
    return seen


async def work_with_env(session):
    """Set variables and see them; return what was seen."""
    seen = {"set": (await settled(session.env.set({"GREETING": "moin moin", "N": "1"}))).data}
    seen["got"] = (await settled(session.env.get(["GREETING", "NOT_SET"]))).envs
    seen["all"] = {"GREETING", "HOME", "PATH"} <= set((await settled(session.env.get())).envs)
    seen["command"] = (await settled(session.command.execute_command('echo "$GREETING"'))).output
    ran = await settled(session.code.run_code("import os; print(os.environ['GREETING'])", "python"))
    seen["code"] = "".join(ran.logs.stdout)
    return seen


async def watch(session):
    """Watch a directory; return the events, which are one for each change."""
    files, events = session.file_system, []
    await settled(files.create_directory("/tmp/watched"))
    thread = files.watch_directory("/tmp/watched", events.extend, 0.2, threading.Event())
    thread.start()
    assert await asyncio.to_thread(thread.ready_event.wait, 30)
    await asyncio.sleep(1)
    for number, text in enumerate(("new", "newer", "newest")):
        await settled(files.write_file("/tmp/watched/x.txt", text))
        until = time.monotonic() + 20
        while len(events) <= number and time.monotonic() < until:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.6)
    thread.stop_event.set()
    await asyncio.to_thread(thread.join, 20)
    return [(event.event_type, event.path, event.path_type) for event in events]


async def tell(bay):
    """Do all of it in one session."""
    session = (await settled(bay.create())).session
    seen = {"files": await work_with_files(session.file_system, session.command)}
    seen["env"] = await work_with_env(session)
    seen["watch"] = await watch(session)
    await settled(bay.delete(session))
    return seen


def main():
    """Run one flavour."""
    flavour, url, key = sys.argv[1:4]
    client = agentbay.AsyncAgentBay if flavour == "async" else agentbay.AgentBay
    print("SEEN", json.dumps(asyncio.run(tell(client(api_key=key, cfg=Config(endpoint=url))))))


if __name__ == "__main__":
    main()
