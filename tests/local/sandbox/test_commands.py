from __future__ import annotations

import asyncio
import errno
import os
import time

import pytest

from agentbay.local.sandbox.service.manager import (
    Completed,
    DirectoryNotEntered,
    Limits,
    ResourceCreationFailed,
    Sandbox,
    SandboxError,
    SandboxGone,
)
from agentbay.local.sandbox.service.shell_script import is_simple_command, shell_arguments
from agentbay.local.sandbox.shared.file_protocol import ListDirectory
from tests.local.sandbox.conftest import becomes, sandbox_factory
from tests.local.sandbox.test_lifecycle import FORKS


async def sh(sandbox: Sandbox, script: str, **options: object) -> Completed:
    return await sandbox.run(["bash", "-c", script], **options)  # type: ignore[arg-type]


async def test_output_and_exit_codes(factory):
    """Both streams come back whole, and exit codes are those a shell reports."""
    sandbox = await factory.make()
    done = await sh(sandbox, "echo out; echo err >&2; exit 3")
    assert (done.exit_code, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    assert (await sh(sandbox, "kill -9 $$")).exit_code == 137
    assert (await sandbox.run(["true"])) == Completed(0, b"", b"")


@pytest.mark.parametrize(
    ("argv", "cwd", "code", "message"),
    [
        (["no-such-command"], None, 127, b"no-such-command: command not found\n"),
        (["./nothing"], None, 127, b"./nothing: No such file or directory\n"),
        (["/etc/passwd"], None, 126, b"/etc/passwd: Permission denied\n"),
        (["/tmp"], None, 126, b"/tmp: Is a directory\n"),
        (["true", "x" * 200_000], None, 126, b"true: Argument list too long\n"),
    ],
)
async def test_commands_that_cannot_start(factory, argv, cwd, code, message):
    """A command that cannot start completes with a shell's exit code and message."""
    done = await (await factory.make()).run(argv, cwd=cwd)
    assert (done.exit_code, done.stdout, done.stderr) == (code, b"", message)


async def test_a_directory_that_cannot_be_entered(factory):
    """A command whose directory cannot be entered is told apart from one that has run."""
    sandbox = await factory.make()
    for cwd, number in (("/nowhere", errno.ENOENT), ("/etc/passwd", errno.ENOTDIR)):
        with pytest.raises(DirectoryNotEntered) as caught:
            await sandbox.run(["true"], cwd=cwd)
        assert (caught.value.errno, caught.value.path) == (number, cwd)
    assert (await sandbox.run(["true"])).exit_code == 0
    await sh(sandbox, "chmod 0 ~")  # no directory was asked for, so that is the session's own affair
    assert (await sandbox.run(["true"])).exit_code == 126


async def test_environment_is_clean(tmp_path, monkeypatch):
    """A command sees the documented variables, and none of the host's."""
    monkeypatch.setenv("AGENTBAY_API_KEY", "host-secret")
    async with sandbox_factory(tmp_path) as factory:
        sandbox = await factory.make(env={"A": "sandbox", "B": "sandbox"})
        done = await sandbox.run(["env"], env={"B": "call"})
        seen = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
        assert seen.pop("PATH").startswith("/home/wuying/.local/bin:/opt/session-python/bin:/usr/local/sbin:")
        assert seen == {
            "HOME": "/home/wuying", "USER": "wuying", "LOGNAME": "wuying", "SHELL": "/bin/bash",
            "LANG": "C.UTF-8", "TERM": "dumb", "A": "sandbox", "B": "call",
            "VIRTUAL_ENV": "/opt/session-python", "PYTHONUSERBASE": "/opt/session-python",
            "PIP_BREAK_SYSTEM_PACKAGES": "1", "NPM_CONFIG_PREFIX": "/home/wuying/.local",
        }  # fmt: skip


async def test_process_state_is_clean(factory):
    """A command starts as session leader with default signals and three descriptors."""
    sandbox = await factory.make()
    program = "import os; print(os.getsid(0) == os.getpid(), oct(os.umask(0)), sorted(os.listdir('/proc/self/fd')))"
    done = await sandbox.run(["python3", "-c", program])
    assert done.stdout == b"True 0o22 ['0', '1', '2', '3']\n"  # 3 is the directory being listed
    status = (await sandbox.run(["grep", "SigIgn", "/proc/self/status"])).stdout
    # glibc's posix_spawn ignores its own signals, 32 and 33
    assert int(status.split()[1], 16) & ~(3 << 31) == 0


async def test_standard_streams_are_opened_again(factory):
    """A command opens /dev/stdout and /dev/stderr, as many scripts do, and nothing written before is lost."""
    script = "echo one; echo two > /dev/stdout; echo three >&2; echo four > /dev/stderr"
    done = await (await factory.make()).run(["sh", "-c", script])
    assert (done.stdout, done.stderr) == (b"one\ntwo\n", b"three\nfour\n")


async def test_scripts_of_any_length(factory):
    """A script longer than an argument may be runs as one that is shorter, without a further descriptor."""
    sandbox = await factory.make()
    for size in (1000, 3_000_000):
        text = f"echo $0 $#; ls /proc/self/fd; cat <<'END' | wc -c\n{'x' * size}\nEND\nfalse\n"
        argv, script = shell_arguments(text)
        done = await sandbox.run(argv, script=script)
        assert done.stdout.decode().split() == ["sh", "0", "0", "1", "2", "3", f"{size + 1}"]
        assert (done.stderr, done.exit_code) == (b"", 1)


@pytest.mark.parametrize(
    ("script", "is_simple"),
    [
        ("sleep 60", True),
        (" ./serve.py --port=80 'a; b' \"$HOME/x y\" ~/z ", True),
        ("python3 -c 'print(1)'", True),
        ("", False),
        ("exit 3", False),
        ("A=1 env", False),
        ("sleep 1; true", False),
        ("sleep 1 # why", False),
        ("sleep 1 &", False),
        ("sleep $(cat n)", False),
        ("cat < file", False),
        ("sleep 1\nsleep 2", False),
        ('echo "`date`"', False),
        ("ls *.txt {a,b}", False),
        ("'my program' 1", False),
        ("sleep \\; true", False),
        ("! sleep 1", False),
    ],
)
def test_simple_commands(script, is_simple):
    """Only what certainly is one program is taken for that."""
    assert is_simple_command(script) is is_simple


async def test_a_background_process_is_one_process(factory, tmp_path):
    """A program in the background needs one process, and no start is left half done at the limit of processes."""
    sandbox = await factory.make(limits=Limits(processes=8))

    async def start(number, script):
        paths = [str(tmp_path / f"{number}.{name}") for name in ("out", "err")]
        return await sandbox.start_background(script, (paths[0], paths[1]))

    for number in range(6):
        await start(number, "sleep 100")
    assert (await sandbox.usage()).processes == 6
    with pytest.raises(ResourceCreationFailed, match=r"limit of processes \(8\)"):
        await start(6, "sleep 100; true")
    await start(7, "sleep 100")
    with pytest.raises(ResourceCreationFailed, match=r"limit of processes \(8\)"):
        await start(8, "sleep 100")


async def test_processes_that_write_on_live_on(factory):
    """However many commands leave a process behind, none of these dies of a broken pipe."""
    sandbox = await factory.make()
    left = [
        (await sandbox.run(["sh", "-c", "(trap '' HUP; while echo on; do sleep 0.1; done) & echo $! >&2"])).stderr
        for _ in range(70)
    ]
    pids = b" ".join(map(bytes.strip, map(bytes, left))).decode()
    assert (await sandbox.run(["sh", "-c", f"sleep 1; kill -0 {pids}"])).exit_code == 0


@pytest.mark.parametrize("cwd", [None, "/home/wuying", "~", "below", "~/below", "/tmp"])
async def test_working_directory(factory, cwd):
    """A working directory is absolute, or starts at home."""
    sandbox = await factory.make()
    await sandbox.run(["mkdir", "below"])
    expected = {
        None: "/home/wuying",
        "~": "/home/wuying",
        "below": "/home/wuying/below",
        "~/below": "/home/wuying/below",
    }
    assert (await sandbox.run(["pwd"], cwd=cwd)).stdout.decode().strip() == expected.get(cwd, cwd)


async def test_input_and_large_messages(factory):
    """Standard input of any size and long arguments arrive."""
    sandbox = await factory.make()
    big = bytes(range(256)) * 40_000
    assert (await sandbox.run(["cat"], stdin=big)).stdout == big
    assert (await sandbox.run(["cat"])).stdout == b""
    words = ["w" * 100_000] * 5
    assert len((await sandbox.run(["echo", *words])).stdout) == 500_005


async def test_timeout_kills_everything(factory):
    """A timeout kills all descendants, and keeps the output so far."""
    sandbox = await factory.make()
    script = (
        "echo before; sleep 91 & (sleep 92 &); (setsid sleep 93 &); set -m; sleep 94 & setsid sleep 95 &"
        "setsid bash -c '(setsid sleep 96 &)' & sleep 97"
    )
    done = await sh(sandbox, script, timeout=3)
    assert (done.timed_out, done.exit_code, done.stdout) == (True, 137, b"before\n")
    assert (await sandbox.run(["pgrep", "sleep"])).stdout == b""


async def test_timeout_of_a_forking_tree(factory):
    """A tree that forks all the while is killed to the last process."""
    sandbox = await factory.make()
    forking = "f() { while :; do (sleep 0.01; sleep 30) & sleep 0.002; done; }; f & f & f"
    done = await sh(sandbox, forking, timeout=0.5)
    assert done.timed_out
    assert (await sandbox.usage()).processes == 0


async def test_background_children(factory):
    """A background child delays no call, and gets no broken pipe later."""
    sandbox = await factory.make()
    child = "until [ -e go ]; do sleep 0.05; done; for i in 1 2 3; do echo $i || exit; done; touch survived"
    done = await sh(sandbox, f"({child}) & echo now")
    assert done.stdout == b"now\n"
    await sandbox.run(["touch", "go"])

    async def survived() -> bool:
        return (await sandbox.run(["ls"])).stdout == b"go\nsurvived\n"

    await becomes(survived)


async def test_cancellation_kills(factory):
    """Cancelling the call kills its command and leaves the sandbox in use."""
    sandbox = await factory.make()
    task = asyncio.create_task(sh(sandbox, "sleep 97 & sleep 98"))
    while (await sandbox.usage()).processes != 3:
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await sandbox.run(["pgrep", "sleep"])).exit_code == 1


async def test_output_limit(factory):
    """Output beyond the limit is discarded and reported, and its writer runs on."""
    sandbox = await factory.make()
    done = await sh(sandbox, "head -c 3000000 /dev/zero; echo -n end >&2", output_limit=1_000_000)
    assert (done.exit_code, len(done.stdout), done.stderr, done.truncated) == (0, 1_000_000, b"end", True)
    late = await sh(sandbox, "head -c 3000 /dev/zero; sleep 600", output_limit=1000, timeout=2)
    assert (late.timed_out, len(late.stdout), late.truncated) == (True, 1000, True)
    whole = await sh(sandbox, "head -c 3000000 /dev/zero", output_limit=3_000_000)
    assert (len(whole.stdout), whole.truncated) == (3_000_000, False)


async def test_parallel_output_is_complete(factory):
    """Commands that print much at the same time lose nothing of it."""
    sandbox = await factory.make()
    done = await asyncio.gather(*(sh(sandbox, f"yes {i} | head -c 1000000; echo end") for i in range(30)))
    assert [(len(one.stdout), one.stdout[-4:], one.truncated) for one in done] == [(1_000_004, b"end\n", False)] * 30


async def test_output_that_the_busy_loop_has_not_read(factory):
    """Output still in the pipe after the exit is collected by a busy loop."""

    async def block_loop() -> None:
        while True:
            time.sleep(0.06)
            await asyncio.sleep(0)

    sandbox = await factory.make()
    blocking = asyncio.create_task(block_loop())
    assert len((await sh(sandbox, "sleep 600 & head -c 1000000 /dev/zero")).stdout) == 1_000_000
    blocking.cancel()


async def test_endless_output_of_a_background_child(factory):
    """A child that writes for ever does not hang the call."""
    sandbox = await factory.make()
    done = await asyncio.wait_for(sh(sandbox, "yes & echo now", output_limit=1000), 30)
    assert done.exit_code == 0


async def test_many_at_once(factory):
    """Commands of one sandbox run side by side and keep their outputs apart."""
    sandbox = await factory.make()
    done = await asyncio.gather(*(sh(sandbox, f"sleep 0.05; echo {i}") for i in range(60)))
    assert [int(one.stdout) for one in done] == list(range(60))


async def test_process_limit(factory):
    """A fork bomb stops at the limit of its sandbox, which stays usable."""
    bombed, other = await factory.make(limits=Limits(processes=40)), await factory.make()
    done = await bombed.run(["python3", "-c", FORKS])
    assert b"Resource temporarily unavailable" in done.stderr
    assert (await other.run(["echo", "fine"])).stdout == b"fine\n"
    assert (await bombed.run(["echo", "again"])).stdout == b"again\n"


async def test_start_at_the_process_limit(factory):
    """At the process limit commands say so; file operations go on as root, and else fail with EAGAIN."""
    sandbox = await factory.make(limits=Limits(processes=5))
    background = asyncio.create_task(sh(sandbox, "sleep 600 & sleep 600 & sleep 600 & wait"))
    while (await sandbox.usage()).processes != 4:
        await asyncio.sleep(0.02)
    done = await sandbox.run(["true"])
    limit = b"true: cannot fork: the session has reached its limit of processes (5)\n"
    assert (done.exit_code, done.stderr) == (126, limit)
    if os.geteuid() == 0:  # they have a uid of their own, whose processes do not count
        await sandbox.run_file_operation(ListDirectory("~"))
    else:
        with pytest.raises(SandboxError, match="Resource temporarily unavailable"):
            await sandbox.run_file_operation(ListDirectory("~"))
    background.cancel()


async def test_memory_and_file_size_limits(factory):
    """Allocation and files stop at their limits."""
    sandbox = await factory.make(limits=Limits(memory_bytes=300 << 20, file_size=1 << 20, open_files=64))
    assert b"MemoryError" in (await sandbox.run(["python3", "-c", "bytearray(400 << 20)"])).stderr
    assert (await sh(sandbox, "head -c 2000000 /dev/zero > big; stat -c %s big")).stdout == b"1048576\n"
    assert (await sh(sandbox, "ulimit -n; ulimit -c")).stdout == b"64\n0\n"


async def test_wrong_arguments(factory):
    """What no process could be given is refused before anything is sent."""
    sandbox = await factory.make()
    for argv, env in ([], {}), (["a\0b"], {}), (["a"], {"": "x"}), (["a"], {"a=b": "x"}), (["a"], {"b": "\0"}):
        with pytest.raises(ValueError, match=r"NUL|name"):
            await sandbox.run(argv, env=env)


async def test_death_of_the_first_process(factory):
    """When process 1 dies, running and later calls fail at once."""
    sandbox = await factory.make()
    task = asyncio.create_task(sandbox.run(["sleep", "60"]))
    await asyncio.sleep(0.1)
    os.kill(sandbox.pid, 9)
    with pytest.raises(SandboxGone):
        await task
    await sandbox.wait_closed()
    assert not sandbox.alive
    with pytest.raises(SandboxGone):
        await sandbox.run(["true"])
    await sandbox.close()


async def test_names_that_are_not_text(factory):
    """Bytes that are no UTF-8 pass through arguments and file names."""
    sandbox = await factory.make()
    odd = b"caf\xe9 \xff".decode(errors="surrogateescape")
    await sandbox.run(["touch", odd])
    assert (await sandbox.run(["ls", "-N"])).stdout == b"caf\xe9 \xff\n"
