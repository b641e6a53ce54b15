"""Use contexts from either client: `contexts_program.py FLAVOUR URL KEY MOUNTS`."""

import asyncio
import inspect
import json
import pathlib
import sys
import tempfile
import time
import urllib.request

import agentbay
from agentbay import (
    BetaContextMount,
    Config,
    ContextListParams,
    ContextSync,
    CreateSessionParams,
    SyncPolicy,
    UploadMode,
    UploadPolicy,
)


async def resolve(value):
    """Return the value, awaited if it is awaitable."""
    return await value if inspect.isawaitable(value) else value


def put(url, content):
    """Upload bytes to a presigned URL, and return the status."""
    request = urllib.request.Request(url, data=content, method="PUT")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        return answer.status


async def use_contexts(bay, seen, name):
    """Create a context, upload files to it, and return its id."""
    contexts = bay.context
    context = (await resolve(contexts.create(name))).context
    again = await resolve(contexts.get(name, create=True))
    seen["made"] = [context.id.startswith("SdkCtx-"), again.context_id == context.id]
    listed = await resolve(contexts.list(ContextListParams(max_results=100)))
    seen["listed"] = name in [one.name for one in listed.contexts]
    missing = await resolve(contexts.get(name + "-no"))
    seen["missing"] = [missing.success, bool(missing.error_message)]
    context.name = name + "-2"
    seen["renamed"] = (await resolve(contexts.update(context))).success
    url = await resolve(contexts.get_file_upload_url(context.id, "/tmp/data/up.txt"))
    seen["upload url"] = [url.success, put(url.url, b"uploaded")]
    url = await resolve(contexts.get_file_upload_url(context.id, "/tmp/data/del.txt"))
    put(url.url, b"x")
    files = await resolve(contexts.list_files(context.id, "/tmp/data"))
    seen["files"] = [(one.file_name, one.file_type, one.size) for one in files.entries]
    seen["deleted file"] = (await resolve(contexts.delete_file(context.id, "/tmp/data/del.txt"))).success
    return context.id


async def use_mounts(session, seen, context_id):
    """Mount a context in a running session."""
    bound = await resolve(session.context.bind(BetaContextMount.new(context_id, "/mnt/live")))
    seen["bound"] = [bound.success, bound.error_message]
    await resolve(session.command.execute_command("echo live > /mnt/live/f"))


async def use_sessions(bay, seen, context_id, mounts):
    """Sync a context with two sessions, one after the other."""
    sync = ContextSync.new(context_id, "/tmp/data")
    made = await resolve(bay.create(CreateSessionParams(context_syncs=[sync])))
    session = made.session
    read = await resolve(session.file_system.read_file("/tmp/data/up.txt"))
    seen["came down"] = read.content
    await resolve(session.file_system.write_file("/tmp/data/new.txt", "new"))
    seen["synced"] = (await resolve(session.context.sync())).success
    info = await resolve(session.context.info())
    seen["info"] = sorted((one.path, one.task_type, one.status) for one in info.context_status_data)
    if mounts:
        await use_mounts(session, seen, context_id)
    listed = await resolve(session.context.list_bindings())
    seen["bindings"] = sorted(one.path for one in listed.bindings)
    await resolve(session.command.execute_command("echo late > /tmp/data/late.txt"))
    seen["ended"] = (await resolve(bay.delete(session, sync_context=True))).success
    files = await resolve(bay.context.list_files(context_id, "/tmp/data"))
    seen["kept"] = [one.file_name for one in files.entries]
    files = await resolve(bay.context.list_files(context_id, "/mnt/live"))
    seen["kept live"] = [one.file_name for one in files.entries]
    policy = SyncPolicy(upload_policy=UploadPolicy(upload_mode=UploadMode.ARCHIVE))
    made = await resolve(
        bay.create(CreateSessionParams(context_syncs=[ContextSync.new(context_id, "/tmp/data", policy)]))
    )
    listing = await resolve(made.session.command.execute_command("ls /tmp/data"))
    seen["next session"] = listing.output.split()
    await resolve(bay.delete(made.session, sync_context=True))
    files = await resolve(bay.context.list_files(context_id, "/tmp/data"))
    seen["archived"] = [one.file_name for one in files.entries]


async def use_files(bay, seen, folder):
    """Upload a file to a session, and download another."""
    session = (await resolve(bay.create(CreateSessionParams()))).session
    local = folder / "in.bin"
    local.write_bytes(b"\0\1" * 100_000)
    up = await resolve(session.file_system.upload_file(str(local), "/tmp/in.bin"))
    seen["up"] = [up.success, up.bytes_sent, bool(up.etag)]
    await resolve(session.command.execute_command("cat /tmp/in.bin /tmp/in.bin > ~/out.bin"))
    down = await resolve(session.file_system.download_file("/home/wuying/out.bin", str(folder / "out.bin")))
    seen["down"] = [down.success, (folder / "out.bin").read_bytes() == b"\0\1" * 200_000]
    seen["path"] = await resolve(session.file_system.get_file_transfer_context_path())
    await resolve(bay.delete(session))


async def use_all(bay, mounts):
    """Run all parts, and return their observations."""
    seen = {}
    context_id = await use_contexts(bay, seen, f"program-{time.time_ns()}")
    await use_sessions(bay, seen, context_id, mounts)
    with tempfile.TemporaryDirectory() as folder:
        await use_files(bay, seen, pathlib.Path(folder))
    cleared = await resolve(bay.context.clear(context_id, timeout=10, poll_interval=0.2))
    seen["cleared"] = [cleared.success, cleared.status]
    seen["empty"] = (await resolve(bay.context.list_files(context_id, "/"))).entries == []
    context = (await resolve(bay.context.get(context_id=context_id))).context
    seen["deleted"] = (await resolve(bay.context.delete(context))).success
    return seen


def main():
    flavour, url, key, mounts = sys.argv[1:5]
    client = agentbay.AsyncAgentBay if flavour == "async" else agentbay.AgentBay
    seen = asyncio.run(use_all(client(api_key=key, cfg=Config(endpoint=url)), mounts == "1"))
    print("RESULT", json.dumps(seen))


if __name__ == "__main__":
    main()
