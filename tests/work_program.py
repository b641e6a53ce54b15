"""Work inside a session as a program: `work_program.py FLAVOUR URL KEY`. The published client and ours both run it.

Both packages are imported as `agentbay`; which one it is depends on the interpreter. It prints what it saw.
"""

import asyncio
import inspect
import json
import sys
import threading
import time
from pathlib import Path

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
    """Watch a directory; return the events: two of the new file, one of each change after that."""
    files, events = session.file_system, []
    await settled(files.create_directory("/tmp/watched"))
    thread = files.watch_directory("/tmp/watched", events.extend, 0.2, threading.Event())
    thread.start()
    assert await asyncio.to_thread(thread.ready_event.wait, 30)
    await asyncio.sleep(1)
    for number, text in enumerate(("new", "newer", "newest")):
        await settled(files.write_file("/tmp/watched/x.txt", text))
        until = time.monotonic() + 20
        while len(events) <= number + 1 and time.monotonic() < until:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.6)
    thread.stop_event.set()
    await asyncio.to_thread(thread.join, 20)
    return [(event.event_type, event.path, event.path_type) for event in events]


async def work_with_git(session):
    """Make two repositories and work in them; return what was seen."""
    git, files = session.git, session.file_system
    first = await settled(git.init("/tmp/first", initial_branch="main"))
    seen = {"made": first.path}
    await settled(git.configure_user("/tmp/first", "A B", "a@example.com", scope="local"))
    await settled(files.write_file("/tmp/first/a ü.txt", "one\n"))
    status = await settled(git.status("/tmp/first"))
    seen["status"] = [status.current_branch, status.is_clean, status.has_untracked, len(status.files)]
    await settled(git.add("/tmp/first"))
    seen["commit"] = bool((await settled(git.commit("/tmp/first", "it's a start"))).commit_hash)
    await settled(git.create_branch("/tmp/first", "side"))
    branches = await settled(git.list_branches("/tmp/first"))
    seen["branches"] = [sorted(branch.name for branch in branches.branches), branches.current]
    seen["cloned"] = (await settled(git.clone("/tmp/first", path="/tmp/second", branch="side"))).path
    await settled(git.checkout_branch("/tmp/first", "main"))
    log = await settled(git.log("/tmp/second", max_count=5))
    seen["log"] = [(entry.author_name, entry.author_email, entry.message) for entry in log.entries]
    seen["remote"] = await settled(git.remote_get("/tmp/second", "origin"))
    seen["no remote"] = await settled(git.remote_get("/tmp/second", "none"))
    await settled(git.pull("/tmp/second"))
    seen["config"] = await settled(git.get_config("/tmp/first", "user.name", scope="local"))
    try:
        await settled(git.status("/tmp"))
    except agentbay.GitNotARepoError:
        seen["no repository"] = True
    return seen


async def transfer(session, folder):
    """Send a file and fetch it again; return what was seen."""
    files, data = session.file_system, bytes(range(256)) * 5000
    (folder / "sent").write_bytes(data)
    there = f"{await settled(files.get_file_transfer_context_path())}/a b.bin"
    sent = await settled(files.upload_file(str(folder / "sent"), there))
    seen = {"sent": [sent.success, sent.http_status, sent.bytes_sent, sent.path == there]}
    seen["there"] = (await settled(files.read_file(there, format="bytes"))).content == data
    await settled(session.command.execute_command(f"printf more >> '{there}'"))
    fetched = await settled(files.download_file(there, str(folder / "fetched")))
    seen["fetched"] = [fetched.success, fetched.bytes_received, (folder / "fetched").read_bytes() == data + b"more"]
    return seen


async def tell(bay):
    """Do all of it in one session."""
    session = (await settled(bay.create())).session
    seen = {"files": await work_with_files(session.file_system, session.command)}
    seen["env"] = await work_with_env(session)
    seen["watch"] = await watch(session)
    seen["git"] = await work_with_git(session)
    seen["transfer"] = await transfer(session, Path.cwd())
    metrics = (await settled(session.get_metrics())).metrics
    seen["metrics"] = [metrics.cpu_count > 0, 0 < metrics.mem_used <= metrics.mem_total]
    await settled(bay.delete(session))
    return seen


def main():
    """Run one flavour."""
    flavour, url, key = sys.argv[1:4]
    client = agentbay.AsyncAgentBay if flavour == "async" else agentbay.AgentBay
    print("SEEN", json.dumps(asyncio.run(tell(client(api_key=key, cfg=Config(endpoint=url))))))


if __name__ == "__main__":
    main()
