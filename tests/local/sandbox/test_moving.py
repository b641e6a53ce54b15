"""Moving and removing trees in a sandbox."""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import suppress

import pytest

from agentbay.local.sandbox.service.manager import BindMount, FileOperationFailed, Sandbox
from agentbay.local.sandbox.shared.file_protocol import MoveAcross, MovePath, RemovePath

THERE = "/tmp/there"  # on another file system than the home; /tmp itself may hold binds of the machine's /tmp


async def refused(sandbox: Sandbox, request: MovePath | MoveAcross | RemovePath) -> tuple[str, str]:
    """Return the error's name, and the path that it names."""
    with pytest.raises(FileOperationFailed) as caught:
        await sandbox.run_file_operation(request)
    return errno.errorcode[caught.value.errno], caught.value.path


async def output(sandbox: Sandbox, script: str) -> str:
    return (await sandbox.run(["bash", "-c", script])).stdout.decode()


async def test_renaming(factory):
    """Within a file system a move is a rename, which a file may replace."""
    sandbox = await factory.make()
    await output(sandbox, "mkdir t full; touch full/x; echo one > one; echo two > two; ln -s gone link")
    await sandbox.run_file_operation(MovePath("t", "u"))
    await sandbox.run_file_operation(MovePath("two", "one"))
    await sandbox.run_file_operation(MovePath("link", "one"))
    assert await output(sandbox, "ls; readlink one") == "full\none\nu\ngone\n"
    assert (await refused(sandbox, MovePath("u", "full")))[0] == "ENOTEMPTY"
    assert (await refused(sandbox, MovePath("missing", "full")))[0] == "ENOENT"
    assert (await refused(sandbox, MovePath("u", "/tmp/u")))[0] == "EXDEV"


async def test_moving_across_file_systems(factory):
    """Everything in a tree moves, with modes, times, links, FIFOs, sockets, holes and names of one file."""
    sandbox = await factory.make()
    await output(sandbox, f"mkdir {THERE}")
    made = await output(
        sandbox,
        "mkdir -p t/s t/closed; echo x > t/s/f; chmod 4640 t/s/f; touch -d @5 t/s/f; ln -s f t/s/l;"
        "ln t/s/f t/same;"
        "mkfifo -m 600 t/pipe; python3 -c 'import socket; socket.socket(1).bind(\"t/sock\")';"
        "truncate -s 60M t/holes; echo middle | dd of=t/holes bs=1M seek=20 conv=notrunc 2>/dev/null;"
        "touch t/closed/x; chmod 555 t/closed; touch -d @7 t; sha256sum < t/holes",
    )
    await sandbox.run_file_operation(MoveAcross("t", f"{THERE}/t"))
    assert await output(sandbox, "ls -A") == ""
    listing = await output(
        sandbox,
        f"cd {THERE}; ls -A; stat -c '%n %F %a %Y' t t/s/f; stat -c '%n %F %a' t/closed t/pipe t/sock;"
        "readlink t/s/l; [ t/same -ef t/s/f ] && echo same; cat t/s/f; sha256sum < t/holes;"
        "[ $(stat -c %b t/holes) -lt 10000 ] || du t/holes",
    )
    assert listing.splitlines() == [
        "t",
        "t directory 755 7",
        "t/s/f regular file 4640 5",
        "t/closed directory 555",
        "t/pipe fifo 600",
        f"t/sock socket {(await output(sandbox, f'stat -c %a {THERE}/t/sock')).strip()}",
        "f",
        "same",
        "x",
        made.strip(),
    ]


async def test_what_a_move_replaces(factory):
    """A move across file systems replaces what a rename would."""
    sandbox = await factory.make()
    await output(
        sandbox,
        "ln -s gone l; echo new > f; mkdir d; touch d/x; cd /tmp; echo old > l; ln -s gone f;"
        "mkdir d full; touch full/x",
    )
    for name in "lfd":
        await sandbox.run_file_operation(MoveAcross(name, f"/tmp/{name}"))
    assert await output(sandbox, "cd /tmp; readlink l; cat f; ls d") == "gone\nnew\nx\n"
    await output(sandbox, "mkdir d; echo 1 > f")
    assert await refused(sandbox, MoveAcross("f", "/tmp/full")) == ("EISDIR", "/tmp/full")
    assert await refused(sandbox, MoveAcross("d", "/tmp/f")) == ("ENOTDIR", "/tmp/f")
    assert await refused(sandbox, MoveAcross("d", "/tmp/full")) == ("ENOTEMPTY", "/tmp/full")
    assert await refused(sandbox, MoveAcross("missing", "/tmp/x")) == ("ENOENT", "/home/wuying/missing")
    assert await refused(sandbox, MoveAcross("d/..", "/tmp/x")) == ("EINVAL", "/home/wuying/d/..")
    assert await output(sandbox, "ls -A . /tmp/full") == ".:\nd\nf\n\n/tmp/full:\nx\n"


async def test_a_failed_move_changes_nothing(factory, tmp_path):
    """Of a tree that cannot be moved as a whole nothing is moved, and no part of a copy is left."""
    (tmp_path / "shared").mkdir()
    os.chown(tmp_path / "shared", *factory.manager.owner)
    sandbox = await factory.make(binds=[BindMount(str(tmp_path / "shared"), "/home/wuying/t/mounted")])
    await output(sandbox, f"mkdir {THERE}")
    await output(sandbox, "for i in $(seq 50); do echo $i > t/f$i; done; echo precious > t/mounted/x")
    assert await refused(sandbox, MoveAcross("t", f"{THERE}/t")) == ("EBUSY", "/home/wuying/t/mounted")
    await output(sandbox, "mkdir u; cp t/f* u; dd if=/dev/zero of=u/big bs=1M count=3 2>/dev/null")
    assert await refused(sandbox, MoveAcross("u", f"{THERE}/u", 1 << 20)) == ("ENOSPC", f"{THERE}/u")
    await output(sandbox, "mkdir u/private; chmod 0 u/private")
    assert await refused(sandbox, MoveAcross("u", f"{THERE}/u")) == ("EACCES", "/home/wuying/u/private")
    left = await output(sandbox, f"ls -A {THERE}; ls t | wc -l; ls u | wc -l; cat t/mounted/x; ls -A")
    assert left.split() == ["51", "52", "precious", "t", "u"]
    # a mounted context is not on the session's disk, so that disk's limit does not count there
    await output(sandbox, "rmdir u/private")
    await sandbox.run_file_operation(MoveAcross("u", "t/mounted/u", 1 << 20))
    assert (await output(sandbox, "ls t/mounted/u | wc -l")).strip() == "51"


async def test_a_directory_does_not_move_into_itself(factory):
    """A move into the moved directory is refused at once, though the kernel takes both for different file systems."""
    sandbox = await factory.make()
    await output(sandbox, f"mkdir -p {THERE}/below; echo x > {THERE}/x; ln -s {THERE}/below link")
    for target in (f"{THERE}/t", f"{THERE}/below/t", "link/t"):
        assert (await refused(sandbox, MoveAcross(THERE, target)))[0] == "EINVAL"
    assert await output(sandbox, f"ls -A {THERE}") == "below\nx\n"


async def test_a_tree_that_changes_is_not_moved(factory):
    """What a program writes during a move is in the moved tree, or the move fails."""
    sandbox = await factory.make()
    await output(sandbox, f"mkdir {THERE}")
    writer = (
        "import os, time\nn = 0\n"
        "while True:\n  n += 1; time.sleep(0.001)\n"
        "  open('t/log', 'a').write(f'{n}\\n'); open('count', 'w').write(str(n))"
    )
    await output(sandbox, "mkdir t; for i in $(seq 300); do head -c 20000 /dev/zero > t/f$i; done; : > t/log")
    running = asyncio.ensure_future(sandbox.run(["python3", "-c", writer], timeout=60))
    while not (await output(sandbox, "cat count")).strip():
        await asyncio.sleep(0.02)
    assert await refused(sandbox, MoveAcross("t", f"{THERE}/t")) == ("EBUSY", "/home/wuying/t")
    running.cancel()
    assert await output(sandbox, f"ls -A {THERE}; ls t | wc -l") == "301\n"


async def test_a_deep_tree_is_removed(factory):
    """Depth is no obstacle to removal."""
    sandbox = await factory.make()
    await output(sandbox, f"mkdir {THERE}")
    await sandbox.run(["python3", "-c", "import os\nfor i in range(1500): os.mkdir('t'); os.chdir('t')"])
    await sandbox.run_file_operation(RemovePath("t", recursive=True))
    assert (await sandbox.run(["ls", "-A"])).stdout == b""
    await sandbox.run(["python3", "-c", "import os\nfor i in range(240): os.mkdir('t'); os.chdir('t')"])
    await sandbox.run_file_operation(MoveAcross("t", f"{THERE}/t"))
    assert (await output(sandbox, f"find {THERE} -name t | wc -l")).strip() == "240"
    await sandbox.run(["python3", "-c", "import os\nfor i in range(300): os.mkdir('t'); os.chdir('t')"])
    assert (await refused(sandbox, MoveAcross("t", f"{THERE}/u")))[0] == "ENAMETOOLONG"
    assert (await output(sandbox, f"ls {THERE}")).strip() == "t"


async def test_removing_what_others_remove(factory):
    """A removal does not mind that something else removes and adds in the same tree."""
    sandbox = await factory.make()
    other = (
        "import os, shutil\nwhile True:\n  for i in range(20):\n"
        "    shutil.rmtree(f't/{i}', ignore_errors=True)\n"
        "    try: os.mkdir(f't/{i}')\n    except OSError: pass"
    )
    running = asyncio.ensure_future(sandbox.run(["python3", "-c", other], timeout=60))
    for _ in range(5):
        await output(sandbox, "mkdir -p t/{0..19}/{1..20}; touch t/{0..19}/{1..20}/{1..3}")
        await sandbox.run_file_operation(RemovePath("t", recursive=True))
        assert await output(sandbox, "ls") == ""
    running.cancel()


async def test_a_removal_follows_no_link(factory):
    """A link that takes a directory's place leads no removal elsewhere."""
    sandbox = await factory.make()
    swapper = (
        "import os\nwhile True:\n"
        "  for names in ('t/d', 't/aside'), ('link', 't/d'), ('t/d', 'link'), ('t/aside', 't/d'):\n"
        "    try: os.rename(*names)\n"
        "    except OSError: pass"
    )
    await output(sandbox, "mkdir -p keep; touch keep/{1..200}; ln -s /home/wuying/keep link")
    running = asyncio.ensure_future(sandbox.run(["python3", "-c", swapper], timeout=60))
    for _ in range(30):
        await output(sandbox, "mkdir -p t/d/e; touch t/d/{1..50} t/d/e/{1..50}")
        with suppress(FileOperationFailed):  # the program may put something back all the time
            await sandbox.run_file_operation(RemovePath("t", recursive=True))
    running.cancel()
    assert (await output(sandbox, "ls keep | wc -l")).strip() == "200"


async def test_what_cannot_be_removed(factory):
    """A removal that fails names the directory, and paths without a name are refused before anything is removed."""
    sandbox = await factory.make()
    await output(sandbox, "mkdir -p t/a/closed; touch t/a/closed/f t/z; chmod 555 t/a/closed; ln -s t link")
    wanted = ("EACCES", "/home/wuying/t/a/closed")
    assert await refused(sandbox, RemovePath("t", recursive=True)) == wanted
    for path in "t/.", "t/..", "/":
        assert (await refused(sandbox, RemovePath(path, recursive=True)))[0] == "EINVAL"
    assert (await refused(sandbox, RemovePath("link/", recursive=True)))[0] in ("ENOTDIR", "ELOOP")
    await sandbox.run_file_operation(RemovePath("link", recursive=True))
    assert await output(sandbox, "ls; ls t/a/closed") == "t\nf\n"
    # the home cannot be removed itself: what is in it must not be gone before the failure
    assert (await refused(sandbox, RemovePath("/home/wuying", recursive=True)))[0] in ("EROFS", "EBUSY", "EACCES")
    assert await output(sandbox, "ls") == "t\n"
