"""Further directories that a sandbox may write: what they hold, who owns it, what stays closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentbay.local.sandbox.service.disk_quota import measure_disk_usage
from agentbay.local.sandbox.service.manager import Limits, SandboxError
from agentbay.local.sandbox.service.writable_directories import choose_writable
from tests.local.users import ROOT

needs_root = pytest.mark.skipif(not ROOT, reason="overlays over the machine's files take root")


async def shell(sandbox, script):
    done = await sandbox.run(["sh", "-c", script])
    return done.exit_code, done.stdout.decode(), done.stderr.decode()


async def test_new_directories_are_the_users_own(factory):
    sandbox = await factory.make(writable=choose_writable(["/app", "/logs/deep/er", "/srv/site", "/mnt"]))
    script = "for d in /app /logs/deep/er /srv/site /mnt; do echo x >$d/f && ls -A $d && stat -c %U:%a $d; done"
    assert await shell(sandbox, script) == (0, "f\nwuying:755\n" * 4, "")
    assert (await shell(sandbox, "mkdir /other"))[0] != 0
    assert (await shell(sandbox, "touch /logs/x"))[0] != 0
    other = await factory.make(writable=choose_writable(["/app"]))
    assert await shell(other, "ls -A /app") == (0, "", "")
    assert not Path("/app/f").exists()


async def test_programs_may_run_and_links_may_be_made_there(factory):
    sandbox = await factory.make(writable=choose_writable(["/testbed"]))
    script = "cd /testbed && printf '#!/bin/sh\\necho ran' >p && chmod +x p && ln p q && ln -s p r && ./r && mv q s"
    assert await shell(sandbox, script) == (0, "ran\n", "")


@needs_root
async def test_an_overlay_keeps_what_is_there_and_leaves_the_machine_alone(factory):
    before = sorted(path.name for path in Path("/usr/local").iterdir())

    sandbox = await factory.make(writable=choose_writable(["/usr", "/opt"]))
    script = "ls -A /usr/local; rm -r /usr/share/doc; echo new >/usr/local/bin/tool; echo y >/usr/bin/env; mkdir /opt/x"
    code, listed, errors = await shell(sandbox, script)
    assert (code, sorted(listed.split()), errors) == (0, before, "")
    assert await shell(sandbox, "cat /usr/local/bin/tool /usr/bin/env; stat -c %U /usr/bin/sh /usr/local/bin") == (
        0, "new\ny\nwuying\nwuying\n", "",
    )  # fmt: skip
    assert (await shell(sandbox, "python3 -c 'import json; print(json.dumps(1))'"))[:2] == (0, "1\n")
    assert (await shell(sandbox, "touch /etc/x; stat -c %U /etc /etc/passwd"))[:2] == (0, "root\nroot\n")
    await sandbox.close()
    assert not Path("/usr/local/bin/tool").exists()
    assert Path("/usr/bin/env").read_bytes() != b"y\n"
    assert Path("/usr/share/doc").is_dir()


@needs_root
async def test_the_whole_root_can_be_writable(factory):
    sandbox = await factory.make(writable=choose_writable(["/", "/app"]))
    script = (
        "set -e; mkdir /app /testbed; echo a >/app/a; echo b >/etc/b; echo c >/usr/lib/c; echo d >>/etc/passwd; "
        "rm -r /srv; mkdir -p /var/lib/x; echo h >~/h; echo t >/tmp/t; cat /app/a /etc/b /usr/lib/c ~/h; "
        "tail -1 /etc/passwd"
    )
    assert await shell(sandbox, script) == (0, "a\nb\nc\nh\nd\n", "")
    owned = "stat -c %U / /etc /etc/passwd /usr/bin /home /var /etc/ssl; find / -xdev -nouser"
    assert await shell(sandbox, owned) == (0, "wuying\n" * 7, "")
    assert (await shell(sandbox, "echo x >/proc/sys/kernel/hostname"))[0] != 0
    python = "import os; os.mknod('/null', 0o20666, os.makedev(1, 3)); open('/null')"
    assert (await shell(sandbox, f'python3 -c "{python}"'))[0] != 0
    assert (await sandbox.run(["sh", "-c", "ls /home; pwd"])).stdout.decode().split() == [
        "guest",
        "user",
        "wuying",
        "/home/wuying",
    ]
    await sandbox.close()
    assert not Path("/etc/b").exists()
    assert not Path("/usr/lib/c").exists()


async def test_they_count_to_the_disk_limit(factory):
    paths = ["/app", "/usr"] if ROOT else ["/app"]
    sandbox = await factory.make(writable=choose_writable(paths), limits=Limits(disk_bytes=64 << 20))
    for path in paths:
        await sandbox.run(["sh", "-c", f"head -c 20000000 /dev/zero >{path}/zero"])
    root = str(factory.directory / "sandbox-1")
    assert measure_disk_usage(root, sandbox._proc).size >= 20_000_000 * len(paths)
    done = await sandbox.run(["sh", "-c", "head -c 400000000 /dev/zero >/app/more; sleep 30"], timeout=20)
    assert not done.timed_out
    assert done.exit_code


@pytest.mark.skipif(ROOT, reason="root can")
async def test_an_ordinary_user_learns_why_not(factory):
    with pytest.raises(SandboxError, match="runs as root"):
        await factory.make(writable=choose_writable(["/usr"]))


@pytest.mark.parametrize("path", ["app", "/app/../etc", "/proc", "/dev/shm", "/sys/x", "/run", "/bin", "/a\0b"])
def test_what_cannot_be_writable_is_refused(path):
    with pytest.raises(ValueError, match=r"writable|no absolute|is a part of"):
        choose_writable([path])


def test_what_is_writable_anyway_or_twice_is_left_out():
    chosen = choose_writable(["/home/wuying/x", "/tmp", "/workspace", "/app", "/app/", "//app/data", "/appendix"])
    assert [path for path, _ in chosen] == ["/app", "/appendix"]
    assert choose_writable(["/app", "/", "/usr"]) == [("/", True)]
