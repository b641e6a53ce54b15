from __future__ import annotations

import asyncio
import errno
import os
from typing import Any

import pytest

from agentbay.local.sandbox.service import sandbox as sandbox_module
from agentbay.local.sandbox.service.manager import BindMount, FileOperationFailed, Limits, Sandbox, SandboxError
from agentbay.local.sandbox.service.reply_check import check_reply
from agentbay.local.sandbox.shared.file_protocol import (
    EditFile,
    FileReply,
    FileRequest,
    ListDirectory,
    MakeDirectory,
    ReadFile,
    RemovePath,
    SearchTree,
    SnapshotReply,
    StatPath,
    WriteFile,
)


class Unknown(FileRequest[FileReply]):
    """A request that no sandbox knows."""


async def attempt(sandbox: Sandbox, request: FileRequest[Any]) -> object:
    """Return the reply or the error."""
    return (await asyncio.gather(sandbox.run_file_operation(request), return_exceptions=True))[0]


async def refused(sandbox: Sandbox, request: FileRequest[Any]) -> str:
    with pytest.raises(FileOperationFailed) as caught:
        await sandbox.run_file_operation(request)
    return errno.errorcode[caught.value.errno]


async def test_write_and_read(factory):
    """What is written comes back, whole or in part, and parents are made."""
    sandbox = await factory.make()
    content = os.urandom(3_000_000)
    reply, payload = await sandbox.run_file_operation(WriteFile("a/b/c"), input=content)
    assert (reply.written, reply.created, payload) == (len(content), True, b"")
    assert (await sandbox.run_file_operation(ReadFile("/home/wuying/a/b/c")))[1] == content
    part = await sandbox.run_file_operation(ReadFile("~/a/b/c", offset=7, length=5))
    assert (part[0].size, part[0].read, part[1]) == (len(content), 5, content[7:12])
    assert (await sandbox.run_file_operation(ReadFile("a/b/c", offset=9_000_000)))[1] == b""
    await sandbox.run_file_operation(WriteFile("a/b/c", append=True), input=b"end")
    assert (await sandbox.run_file_operation(ReadFile("a/b/c", offset=len(content))))[1] == b"end"
    await sandbox.run_file_operation(WriteFile("empty"))
    assert (await sandbox.run_file_operation(ReadFile("empty")))[1] == b""


async def test_parallel_changes(factory):
    """No successful edit or append is lost to another of the same file."""
    sandbox = await factory.make()
    content = "".join(f"L{number:02d}=0\n" for number in range(20))
    await sandbox.run_file_operation(WriteFile("dir/f"), input=content.encode())
    await sandbox.run(["ln", "-s", "dir/f", "/home/wuying/alias"])
    edits = [
        sandbox.run_file_operation(
            EditFile(("dir/f", "alias")[number % 2]), input=f'[["L{number:02d}=0", "L{number:02d}=1"]]'.encode()
        )
        for number in range(20)
    ]
    appends = [
        sandbox.run_file_operation(WriteFile("alias", append=True), input=f"A{number:02d}\n".encode() * 100)
        for number in range(10)
    ]
    ends = await asyncio.gather(*edits, *appends, return_exceptions=True)
    assert not [end for end in ends if isinstance(end, BaseException)]
    _, found = await sandbox.run_file_operation(ReadFile("dir/f"))
    lines = found.decode().splitlines()
    assert lines[:20] == [f"L{number:02d}=1" for number in range(20)]
    for number in range(10):
        start = lines.index(f"A{number:02d}")
        assert lines[start : start + 100] == [f"A{number:02d}"] * 100


async def test_edit_of_a_file_that_changes(factory):
    """An edit does not undo what a program writes.

    A held lock does not block for ever.
    """
    sandbox = await factory.make()
    writer = "import time\nwhile True:\n    open('f', 'a').write('x\\n'); time.sleep(0.0001)"
    await sandbox.run_file_operation(WriteFile("f"), input=b"start 0\n")
    running = asyncio.ensure_future(sandbox.run(["python3", "-c", writer], timeout=60))
    done, errors = 0, set[str]()
    for _ in range(30):
        edit = f'[["start {done}", "start {done + 1}"]]'.encode()
        try:
            await sandbox.run_file_operation(EditFile("f"), input=edit)
            done += 1
        except FileOperationFailed as error:
            errors.add(errno.errorcode[error.errno])
    running.cancel()
    assert errors <= {"EBUSY"}
    _, found = await sandbox.run_file_operation(ReadFile("f"))
    assert found.startswith(f"start {done}\n".encode())
    locker = "import fcntl, os, time\nfcntl.flock(os.open('.', 0), fcntl.LOCK_EX)\ntime.sleep(60)"
    held = asyncio.ensure_future(sandbox.run(["python3", "-c", locker]))
    await asyncio.sleep(2)
    assert await refused(sandbox, WriteFile("f", append=True)) == "EBUSY"
    held.cancel()


async def test_overwriting(factory):
    """An overwritten file keeps its mode and its links, and leaves no temporary file."""
    sandbox = await factory.make()
    await sandbox.run(
        ["bash", "-c", "echo old > tool; chmod 750 tool; mkdir d; ln -s ../tool d/link; ln -s gone dangling"]
    )
    await sandbox.run_file_operation(WriteFile("d/link", sync=True), input=b"new")
    await sandbox.run_file_operation(WriteFile("dangling"), input=b"made")
    listing = (await sandbox.run(["bash", "-c", "ls -A . d; stat -c %a tool; cat tool gone; readlink d/link"])).stdout
    assert listing == b".:\nd\ndangling\ngone\ntool\n\nd:\nlink\n750\nnewmade../tool\n"


async def test_what_is_no_file_is_refused(factory):
    """Directories, FIFOs, devices and sockets are refused at once instead of blocking or misleading."""
    sandbox = await factory.make()
    await sandbox.run(
        ["bash", "-c", "mkdir dir; mkfifo fifo; python3 -c 'import socket; socket.socket(1).bind(\"sock\")'"]
    )
    for request in ReadFile, WriteFile:
        assert await refused(sandbox, request("dir")) == "EISDIR"
        for path in "fifo", "/dev/null", "/dev/zero", "sock":
            assert await refused(sandbox, request(path)) == "EINVAL"
    assert await refused(sandbox, ReadFile("missing")) == "ENOENT"
    assert await refused(sandbox, ReadFile("")) == "ENOENT"
    assert await refused(sandbox, WriteFile("/usr/x")) == "EROFS"
    assert await refused(sandbox, ListDirectory("missing")) == "ENOENT"
    with pytest.raises(SandboxError, match="KeyError"):
        await sandbox.run_file_operation(Unknown())


async def test_links_end_in_the_view(factory, tmp_path):
    """A planted link leads to the sandbox's own files, never to the host's."""
    secret = tmp_path / "secret"
    secret.write_text("host")
    sandbox = await factory.make()
    await sandbox.run(
        ["bash", "-c", f"ln -s {secret} a; ln -s /etc/shadow b; ln -s /proc/1/root/etc/passwd c; ln -s / d"]
    )
    assert await refused(sandbox, ReadFile("a")) == "ENOENT"
    assert await refused(sandbox, ReadFile("b")) == "ENOENT"
    assert await refused(sandbox, ReadFile("c")) == "EACCES"
    assert b"wuying" in (await sandbox.run_file_operation(ReadFile("d/etc/passwd")))[1]
    assert await refused(sandbox, ReadFile("d/../.." + str(secret))) == "ENOENT"


async def test_a_home_with_planted_links_is_used_again(factory, tmp_path):
    """Links planted in a home do not lead its mount points outside."""
    (tmp_path / "context").mkdir()
    victim = tmp_path / "victim"
    victim.mkdir()
    first = await factory.make()
    await first.run(["bash", "-c", f"ln -s {victim} link; ln -s {victim} /tmp/link"])
    await first.close()
    factory.made = 0
    binds = [
        BindMount(str(tmp_path / "context"), "/home/wuying/link/deep/er"),
        BindMount(str(tmp_path), "/tmp/link/x"),
    ]
    with pytest.raises(SandboxError, match="bind"):
        await factory.make(binds=binds)
    assert list(victim.iterdir()) == []


async def test_listing(factory):
    """A listing is sorted, follows links for their status, and keeps odd names."""
    sandbox = await factory.make()
    odd = b"\xff\xe9".decode(errors="surrogateescape")
    for name in "b", " lead", "new\nline", "[DIR] x", "é", odd:
        await sandbox.run_file_operation(WriteFile(name), input=b"123")
    await sandbox.run(["bash", "-c", "mkdir a; ln -s a dirlink; ln -s nowhere broken"])
    entries = (await sandbox.run_file_operation(ListDirectory(".")))[0].entries
    names = [entry["name"] for entry in entries]
    assert names == sorted([" lead", "[DIR] x", "a", "b", "broken", "dirlink", "new\nline", "é", odd])
    kinds = {entry["name"]: (entry["is_directory"], entry["is_symlink"]) for entry in entries}
    assert kinds["a"] == (True, False)
    assert kinds["dirlink"] == (True, True)
    assert kinds["broken"] == (False, True)
    assert (await sandbox.run_file_operation(ReadFile(odd)))[1] == b"123"


async def test_stat(factory):
    """A description has size, kind, permissions and times."""
    sandbox = await factory.make()
    await sandbox.run(["bash", "-c", "echo 12345 > f; chmod 640 f; touch -d @1000000000.5 f"])
    found = (await sandbox.run_file_operation(StatPath("f")))[0]
    assert {key: getattr(found, key) for key in ("size", "is_file", "is_directory", "permissions", "mtime")} == {
        "size": 6, "is_file": True, "is_directory": False, "permissions": "640", "mtime": 1000000000.5,
    }  # fmt: skip
    assert (await sandbox.run_file_operation(StatPath("/tmp")))[0].permissions == "1777"


async def test_directories(factory):
    """Directories are made with their parents, and removed recursively only on request."""
    sandbox = await factory.make()
    await sandbox.run_file_operation(MakeDirectory("a/b/c"))
    await sandbox.run_file_operation(MakeDirectory("a/b/c"))
    await sandbox.run(
        ["bash", "-c", "touch a/f keep; ln -s ../keep a/b/link; ln -s ../../.. a/b/c/up; chmod 500 a/b/c"]
    )
    assert await refused(sandbox, MakeDirectory("keep")) == "EEXIST"
    assert await refused(sandbox, RemovePath("a")) == "EISDIR"
    await sandbox.run(["chmod", "700", "a/b/c"])
    await sandbox.run_file_operation(RemovePath("a", recursive=True))
    assert (await sandbox.run(["ls", "-A"])).stdout == b"keep\n"
    await sandbox.run_file_operation(RemovePath("keep"))
    assert await refused(sandbox, RemovePath("keep")) == "ENOENT"


async def test_searching(factory):
    """A search matches names by * and ? at any depth, without exclusions."""
    sandbox = await factory.make()
    await sandbox.run(
        [
            "bash",
            "-c",
            "mkdir -p p/q .git node/x; touch a.py p/b.py p/q/c.py .git/d.py node/x/e.py 'p/[x].py' p/A.PY",
        ]
    )

    async def search(pattern: str, *exclude: str) -> list[str]:
        found = await sandbox.run_file_operation(SearchTree("~", pattern=pattern, exclude=list(exclude)))
        return [path.removeprefix("/home/wuying/") for path in found[0].matches]

    assert await search("*.py", ".git", "node*") == ["a.py", "p/[x].py", "p/b.py", "p/q/c.py"]
    assert await search("?.py", ".git", "node/x") == ["a.py", "p/b.py", "p/q/c.py"]
    assert await search("[x].py") == ["p/[x].py"]
    assert await search("q") == ["p/q"]
    assert await search("nothing") == []
    assert await refused(sandbox, SearchTree("missing", pattern="*")) == "ENOENT"
    assert await refused(sandbox, SearchTree("a.py", pattern="*")) == "ENOTDIR"


async def test_limits_and_time_hold_for_file_operations(factory):
    """A write over the limit keeps the old content, and a timeout kills."""
    sandbox = await factory.make(limits=Limits(file_size=1000))
    await sandbox.run_file_operation(WriteFile("f"), input=b"old")
    with pytest.raises(FileOperationFailed) as caught:
        await sandbox.run_file_operation(WriteFile("f"), input=bytes(2000))
    assert caught.value.errno == errno.EFBIG
    assert caught.value.path == "/home/wuying/f"
    assert (await sandbox.run_file_operation(ReadFile("f")))[1] == b"old"
    assert (await sandbox.run(["ls", "-A"])).stdout == b"f\n"
    with pytest.raises(TimeoutError):
        await sandbox.run_file_operation(SearchTree("/", pattern="*"), timeout=0.01)
    while (await sandbox.usage()).processes:
        await asyncio.sleep(0.02)


async def test_a_cancelled_operation_ends_alone(factory):
    """No command and no other operation ends with one that is cancelled."""

    def read_all(fd: int) -> bytes:
        with open(fd, "rb") as file:
            return file.read()

    sandbox = await factory.make()
    content = os.urandom(3_000_000)  # more than a pipe holds
    await sandbox.run_file_operation(WriteFile("large"), input=content)
    waiting = "touch begun; until [ -e go ]; do sleep 0.05; done; echo survived"
    command = asyncio.create_task(sandbox.run(["sh", "-c", waiting]))
    while (await sandbox.run(["test", "-e", "begun"])).exit_code:
        await asyncio.sleep(0.02)
    outputs, running = [], []
    for _ in range(2):
        incoming, outgoing = os.pipe()
        running.append(sandbox.start_file_operation(ReadFile("large"), os.open("/dev/null", os.O_RDONLY), outgoing))
        outputs.append(incoming)
    for fd in outputs:
        assert len(await asyncio.to_thread(os.read, fd, 1)) == 1
    running[0].cancel()
    assert len(await asyncio.to_thread(read_all, outputs[0])) < len(content)
    assert (await asyncio.to_thread(read_all, outputs[1])).startswith(content[1:])
    await sandbox.run(["touch", "go"])
    assert (await command).stdout == b"survived\n"


async def test_many_operations_at_once(factory):
    """Operations run side by side."""
    sandbox = await factory.make()
    await asyncio.gather(*(sandbox.run_file_operation(WriteFile(f"f{i}"), input=b"%d" % i) for i in range(40)))
    found = await asyncio.gather(*(sandbox.run_file_operation(ReadFile(f"f{i}")) for i in range(40)))
    assert [int(payload) for _, payload in found] == list(range(40))


async def test_answer_that_is_too_large(factory, monkeypatch):
    """A list that would fill the service's memory is refused, and says so."""
    monkeypatch.setattr(sandbox_module, "_MAX_REPLY_BYTES", 2000)
    sandbox = await factory.make()
    await sandbox.run(["bash", "-c", "touch file{1..100}"])
    with pytest.raises(FileOperationFailed, match="too much for one answer"):
        await sandbox.run_file_operation(ListDirectory("."))
    await sandbox.run(["bash", "-c", "head -c 5000 /dev/zero > large"])
    _, content = await sandbox.run_file_operation(ReadFile("large", 0, 5000))
    assert len(content) == 5000


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "/x"},
        {"path": "/x", "found": {"a": [0]}, "now": "1", "watched": True},
        {"path": "/x", "found": {"a": 1}, "now": 1, "watched": True},
        {"path": "/x", "found": {}, "now": 1 << 200, "watched": True},
        {"path": "/x", "found": {}, "now": 1, "watched": True, "more": 1},
    ],
)
def test_replies_with_other_fields(fields):
    """A reply that lacks a field, or has one of another type, is refused on arrival."""
    with pytest.raises(ValueError, match="reply"):
        check_reply(SnapshotReply, fields)
    check_reply(SnapshotReply, {"path": "/x", "found": {"a": [True, 1, 2, 3]}, "now": 1, "watched": True})
