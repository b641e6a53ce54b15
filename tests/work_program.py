"""Use the tools of a session from either client: `work_program.py FLAVOUR URL KEY`.

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


async def resolve(value):
    """Return the value, awaited if it is awaitable."""
    return await value if inspect.isawaitable(value) else value


async def use_files(files, command):
    """Use every file tool, and return the observations."""
    seen = {}
    seen["directory"] = (await resolve(files.create_directory("/tmp/w/deep"))).data
    for name, text in (("a.txt", "one\ntwo"), ("b.md", "x: y"), ("deep/c.txt", "three")):
        assert (await resolve(files.write_file(f"/tmp/w/{name}", text))).success
    info = await resolve(files.get_file_info("/tmp/w/a.txt"))
    seen["info"] = [info.success, info.is_file, info.is_directory, info.size, info.file_info["permissions"]]
    seen["info of a directory"] = (await resolve(files.get_file_info("/tmp/w"))).is_directory
    read = await resolve(files.read_multiple_files(["/tmp/w/a.txt", "/tmp/w/deep/c.txt"]))
    seen["several"] = [read.success, read.contents]
    seen["found"] = (await resolve(files.search_files("/tmp/w", "*.txt"))).matches
    seen["found but"] = (await resolve(files.search_files("/tmp/w", "*.*", ["deep", "*.md"]))).matches
    seen["not found"] = (await resolve(files.search_files("/tmp/w", "*.none"))).matches
    edits = [{"oldText": "one", "newText": "ONE"}]
    seen["dry"] = (await resolve(files.edit_file("/tmp/w/a.txt", edits, True))).success
    seen["still"] = (await resolve(files.read_file("/tmp/w/a.txt"))).content
    seen["edited"] = (await resolve(files.edit_file("/tmp/w/a.txt", edits))).data
    seen["then"] = (await resolve(files.read_file("/tmp/w/a.txt"))).content
    seen["not edited"] = (await resolve(files.edit_file("/tmp/w/a.txt", edits))).success
    seen["moved"] = (await resolve(files.move_file("/tmp/w/deep", "/tmp/w/far"))).data
    seen["deleted"] = (await resolve(files.delete_file("/tmp/w/b.md"))).data
    listing = await resolve(files.list_directory("/tmp/w"))
    seen["listing"] = [(entry.name, entry.is_directory) for entry in listing.entries]
    lost = await resolve(files.get_file_info("/tmp/w/none"))
    seen["missing"] = [lost.success, "No such file" in lost.error_message]
    aliases = (files.delete, files.remove, files.rm)
    seen["aliases"] = [(await resolve(remove("/tmp/none"))).success for remove in aliases]
    seen["whole"] = (await resolve(command.execute_command("cat /tmp/w/a.txt /tmp/w/far/c.txt"))).output
    return seen


async def use_env(session):
    """Set and read environment variables, and return the observations."""
    seen = {"set": (await resolve(session.env.set({"GREETING": "moin moin", "N": "1"}))).data}
    seen["got"] = (await resolve(session.env.get(["GREETING", "NOT_SET"]))).envs
    seen["all"] = {"GREETING", "HOME", "PATH"} <= set((await resolve(session.env.get())).envs)
    seen["command"] = (await resolve(session.command.execute_command('echo "$GREETING"'))).output
    ran = await resolve(session.code.run_code("import os; print(os.environ['GREETING'])", "python"))
    seen["code"] = "".join(ran.logs.stdout)
    return seen


async def watch(session):
    """Watch a directory, and return its events in order."""
    files, events = session.file_system, []
    await resolve(files.create_directory("/tmp/watched"))
    thread = files.watch_directory("/tmp/watched", events.extend, 0.2, threading.Event())
    thread.start()
    assert await asyncio.to_thread(thread.ready_event.wait, 30)
    await asyncio.sleep(1)
    for number, text in enumerate(("new", "newer", "newest")):
        await resolve(files.write_file("/tmp/watched/x.txt", text))
        until = time.monotonic() + 20
        while len(events) <= number + 1 and time.monotonic() < until:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.6)
    thread.stop_event.set()
    await asyncio.to_thread(thread.join, 20)
    return [(event.event_type, event.path, event.path_type) for event in events]


async def use_git(session):
    """Work in two git repositories, and return the observations."""
    git, files = session.git, session.file_system
    first = await resolve(git.init("/tmp/first", initial_branch="main"))
    seen = {"made": first.path}
    await resolve(git.configure_user("/tmp/first", "A B", "a@example.com", scope="local"))
    await resolve(files.write_file("/tmp/first/a ü.txt", "one\n"))
    status = await resolve(git.status("/tmp/first"))
    seen["status"] = [status.current_branch, status.is_clean, status.has_untracked, len(status.files)]
    await resolve(git.add("/tmp/first"))
    seen["commit"] = bool((await resolve(git.commit("/tmp/first", "it's a start"))).commit_hash)
    await resolve(git.create_branch("/tmp/first", "side"))
    branches = await resolve(git.list_branches("/tmp/first"))
    seen["branches"] = [sorted(branch.name for branch in branches.branches), branches.current]
    seen["cloned"] = (await resolve(git.clone("/tmp/first", path="/tmp/second", branch="side"))).path
    await resolve(git.checkout_branch("/tmp/first", "main"))
    log = await resolve(git.log("/tmp/second", max_count=5))
    seen["log"] = [(entry.author_name, entry.author_email, entry.message) for entry in log.entries]
    seen["remote"] = await resolve(git.remote_get("/tmp/second", "origin"))
    seen["no remote"] = await resolve(git.remote_get("/tmp/second", "none"))
    await resolve(git.pull("/tmp/second"))
    seen["config"] = await resolve(git.get_config("/tmp/first", "user.name", scope="local"))
    try:
        await resolve(git.status("/tmp"))
    except agentbay.GitNotARepoError:
        seen["no repository"] = True
    return seen


async def transfer(session, folder):
    """Upload and download a file, and return the observations."""
    files, data = session.file_system, bytes(range(256)) * 5000
    (folder / "sent").write_bytes(data)
    there = f"{await resolve(files.get_file_transfer_context_path())}/a b.bin"
    sent = await resolve(files.upload_file(str(folder / "sent"), there))
    seen = {"sent": [sent.success, sent.http_status, sent.bytes_sent, sent.path == there]}
    seen["there"] = (await resolve(files.read_file(there, format="bytes"))).content == data
    await resolve(session.command.execute_command(f"printf more >> '{there}'"))
    fetched = await resolve(files.download_file(there, str(folder / "fetched")))
    seen["fetched"] = [fetched.success, fetched.bytes_received, (folder / "fetched").read_bytes() == data + b"more"]
    return seen


async def use_session(bay):
    """Use one session for all parts, and return the observations."""
    session = (await resolve(bay.create())).session
    seen = {"files": await use_files(session.file_system, session.command)}
    seen["env"] = await use_env(session)
    seen["watch"] = await watch(session)
    seen["git"] = await use_git(session)
    seen["transfer"] = await transfer(session, Path.cwd())
    metrics = (await resolve(session.get_metrics())).metrics
    seen["metrics"] = [metrics.cpu_count > 0, 0 < metrics.mem_used <= metrics.mem_total]
    await resolve(bay.delete(session))
    return seen


def main():
    flavour, url, key = sys.argv[1:4]
    client = agentbay.AsyncAgentBay if flavour == "async" else agentbay.AgentBay
    print("RESULT", json.dumps(asyncio.run(use_session(client(api_key=key, cfg=Config(endpoint=url))))))


if __name__ == "__main__":
    main()
