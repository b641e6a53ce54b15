"""Contexts as a program that both clients run: `contexts_story.py FLAVOUR URL KEY MOUNTS`; MOUNTS is 1 or 0."""

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


async def settled(value):
    """Return the value, awaited if it must be."""
    return await value if inspect.isawaitable(value) else value


def put(url, content):
    """Send a file to a presigned URL."""
    request = urllib.request.Request(url, data=content, method="PUT")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        return answer.status


async def tell_of_contexts(bay, seen, name):
    """Make a context and put files into it; return its id."""
    contexts = bay.context
    context = (await settled(contexts.create(name))).context
    again = await settled(contexts.get(name, create=True))
    seen["made"] = [context.id.startswith("SdkCtx-"), again.context_id == context.id]
    listed = await settled(contexts.list(ContextListParams(max_results=100)))
    seen["listed"] = name in [one.name for one in listed.contexts]
    missing = await settled(contexts.get(name + "-no"))
    seen["missing"] = [missing.success, bool(missing.error_message)]
    context.name = name + "-2"
    seen["renamed"] = (await settled(contexts.update(context))).success
    url = await settled(contexts.get_file_upload_url(context.id, "/tmp/data/up.txt"))
    seen["upload url"] = [url.success, put(url.url, b"uploaded")]
    url = await settled(contexts.get_file_upload_url(context.id, "/tmp/data/del.txt"))
    put(url.url, b"x")
    files = await settled(contexts.list_files(context.id, "/tmp/data"))
    seen["files"] = [(one.file_name, one.file_type, one.size) for one in files.entries]
    seen["deleted file"] = (await settled(contexts.delete_file(context.id, "/tmp/data/del.txt"))).success
    return context.id


async def tell_of_mounts(session, seen, context_id):
    """Mount a context in a session that has it."""
    bound = await settled(session.context.bind(BetaContextMount.new(context_id, "/mnt/live")))
    seen["bound"] = [bound.success, bound.error_message]
    await settled(session.command.execute_command("echo live > /mnt/live/f"))


async def tell_of_sessions(bay, seen, context_id, mounts):
    """Bring the files into sessions, and others back."""
    sync = ContextSync.new(context_id, "/tmp/data")
    made = await settled(bay.create(CreateSessionParams(context_syncs=[sync])))
    session = made.session
    read = await settled(session.file_system.read_file("/tmp/data/up.txt"))
    seen["came down"] = read.content
    await settled(session.file_system.write_file("/tmp/data/new.txt", "new"))
    seen["synced"] = (await settled(session.context.sync())).success
    info = await settled(session.context.info())
    seen["info"] = sorted((one.path, one.task_type, one.status) for one in info.context_status_data)
    if mounts:
        await tell_of_mounts(session, seen, context_id)
    listed = await settled(session.context.list_bindings())
    seen["bindings"] = sorted(one.path for one in listed.bindings)
    await settled(session.command.execute_command("echo late > /tmp/data/late.txt"))
    seen["ended"] = (await settled(bay.delete(session, sync_context=True))).success
    files = await settled(bay.context.list_files(context_id, "/tmp/data"))
    seen["kept"] = [one.file_name for one in files.entries]
    files = await settled(bay.context.list_files(context_id, "/mnt/live"))
    seen["kept live"] = [one.file_name for one in files.entries]
    policy = SyncPolicy(upload_policy=UploadPolicy(upload_mode=UploadMode.ARCHIVE))
    made = await settled(
        bay.create(CreateSessionParams(context_syncs=[ContextSync.new(context_id, "/tmp/data", policy)]))
    )
    listing = await settled(made.session.command.execute_command("ls /tmp/data"))
    seen["next session"] = listing.output.split()
    await settled(bay.delete(made.session, sync_context=True))
    files = await settled(bay.context.list_files(context_id, "/tmp/data"))
    seen["archived"] = [one.file_name for one in files.entries]


async def tell_of_files(bay, seen, folder):
    """Bring single files in and out."""
    session = (await settled(bay.create(CreateSessionParams()))).session
    local = folder / "in.bin"
    local.write_bytes(b"\0\1" * 100_000)
    up = await settled(session.file_system.upload_file(str(local), "/tmp/in.bin"))
    seen["up"] = [up.success, up.bytes_sent, bool(up.etag)]
    await settled(session.command.execute_command("cat /tmp/in.bin /tmp/in.bin > ~/out.bin"))
    down = await settled(session.file_system.download_file("/home/wuying/out.bin", str(folder / "out.bin")))
    seen["down"] = [down.success, (folder / "out.bin").read_bytes() == b"\0\1" * 200_000]
    seen["path"] = await settled(session.file_system.get_file_transfer_context_path())
    await settled(bay.delete(session))


async def tell(bay, mounts):
    """Live through it all; return what was seen."""
    seen = {}
    context_id = await tell_of_contexts(bay, seen, f"story-{time.time_ns()}")
    await tell_of_sessions(bay, seen, context_id, mounts)
    with tempfile.TemporaryDirectory() as folder:
        await tell_of_files(bay, seen, pathlib.Path(folder))
    cleared = await settled(bay.context.clear(context_id, timeout=10, poll_interval=0.2))
    seen["cleared"] = [cleared.success, cleared.status]
    seen["empty"] = (await settled(bay.context.list_files(context_id, "/"))).entries == []
    context = (await settled(bay.context.get(context_id=context_id))).context
    seen["deleted"] = (await settled(bay.context.delete(context))).success
    return seen


def main():
    """Run one flavour."""
    flavour, url, key, mounts = sys.argv[1:5]
    client = agentbay.AsyncAgentBay if flavour == "async" else agentbay.AgentBay
    seen = asyncio.run(tell(client(api_key=key, cfg=Config(endpoint=url)), mounts == "1"))
    print("SEEN", json.dumps(seen))


if __name__ == "__main__":
    main()
