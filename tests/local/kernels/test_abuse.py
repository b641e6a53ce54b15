"""Code that harms its own kernel, in each language."""

from __future__ import annotations

import anyio
import pytest

from agentbay.local.kernels import kernel
from tests.local.kernels.conftest import LIMITS, KernelRunner, written
from tests.local.traces import PATIENCE

MIB = 1 << 20
KEEP = {"python": "kept = 1", "javascript": "var kept = 1", "r": "kept <- 1", "java": "int kept = 1;"}
ENDLESS = {
    "python": ["while True: pass", "!sleep 600\nprint('on')", "x = !sleep 600\nprint('on')"],
    "javascript": [
        "while (true) {}",
        "require('child_process').execSync('sleep 600')",
        "setTimeout(() => { while (true) {} }, 1); await new Promise(() => {})",
        "new Promise(() => {})",
    ],
    "r": ["repeat {}", "system('sleep 600')"],
    "java": ["while (true) {}"],
}
STUBBORN = {
    "python": "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\nwhile True: pass",
    "r": "suspendInterrupts(repeat {})",
}
HOARD = {
    "python": "hoard = []\nwhile True: hoard.append(b'x' * 50_000_000)",
    "javascript": "const hoard = []; while (true) hoard.push(Buffer.alloc(50_000_000, 1))",
    "r": "hoard <- list(); repeat hoard[[length(hoard) + 1]] <- numeric(6e6) + 1",
    "java": "var hoard = new ArrayList<byte[]>(); while (true) { hoard.add(new byte[50_000_000]); }",
}
EXIT = {
    "python": "import sys; sys.exit(3)",
    "javascript": "process.exit(3)",
    "r": "quit(status = 3)",
    "java": "System.exit(3);",
}
SUICIDE = {
    "python": "import os; os.kill(os.getpid(), 9)",
    "javascript": "process.kill(process.pid, 'SIGKILL')",
    "r": "tools::pskill(Sys.getpid(), 9)",
}
FLOOD = {
    "python": "for _ in range(1600): print('x' * 65535)",
    "javascript": "for (let i = 0; i < 1600; i++) console.log('x'.repeat(65535))",
    "r": "for (i in 1:1600) cat(strrep('x', 65535), '\\n', sep = '')",
    "java": 'for (int i = 0; i < 1600; i++) System.out.println("x".repeat(65535));',
}
BYTES = {  # all there are, twice over: no text in any encoding
    "python": "import os\nos.write(1, bytes(range(256)) * 2);",
    "javascript": "require('fs').writeSync(1, Buffer.from([...Array(512).keys()])); undefined",
    "r": "system(\"printf '\\\\377\\\\376\\\\0é\\\\n'\")",
    "java": "System.out.write(new byte[] {-1, -2, 0, -61, -87, 10}, 0, 6);",
}
ENVIRONMENT = {
    "python": "import os; print(os.environ['WORD'])",
    "javascript": "console.log(process.env.WORD)",
    "r": "cat(Sys.getenv('WORD'), '\\n', sep = '')",
    "java": 'System.out.println(System.getenv("WORD"));',
}


async def check_usable(runner: KernelRunner) -> None:
    assert "42" in await runner.value("40 + 2")


async def test_endless_code(runner: KernelRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless code is interrupted, and its variables are kept."""
    monkeypatch.setattr(kernel, "_INTERRUPT_GRACE_SECONDS", PATIENCE)  # a busy machine takes its time
    await runner.run(KEEP[runner.language])
    for code in ENDLESS[runner.language]:
        transcript = await runner.run(code, timeout=0.5)
        assert transcript.timed_out
        assert "was interrupted; what was defined is kept" in transcript.error_line, code
        assert written(transcript) == "", "an interrupt ends the code, and is no output"
    assert "1" in await runner.value("kept")


@pytest.mark.parametrize("runner", ["warm", "cold", "r"], indirect=True)  # of the others, none has found a way
async def test_code_that_cannot_be_interrupted(runner: KernelRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an interrupt does not help, the kernel is killed."""
    monkeypatch.setattr(kernel, "_INTERRUPT_GRACE_SECONDS", 0.5)
    transcript = await runner.run(STUBBORN[runner.language], timeout=0.5)
    assert transcript.timed_out
    assert "could not be interrupted; its kernel was killed" in transcript.error_line
    await check_usable(runner)


async def test_want_of_memory(runner: KernelRunner) -> None:
    """Code beyond the memory limit gets an error, or its kernel is killed."""
    transcript = await runner.run(HOARD[runner.language])
    assert transcript.failed
    assert not transcript.timed_out
    said = f"the session may use {(LIMITS.total_memory_bytes or 0) // MIB} MiB of memory"
    assert said in transcript.error_line or "memory" in transcript.error_line.lower()
    await check_usable(runner)


async def test_exit(runner: KernelRunner) -> None:
    """An exit is reported, and a Python or JavaScript kernel survives it."""
    transcript = await runner.run(EXIT[runner.language])
    died = "KernelDied: the kernel exited with 3; what was defined is lost, the next call gets a new kernel"
    kept = {
        "python": "SystemExit: 3",
        "javascript": "ProcessExit: the code called process.exit(3); what was defined is kept",
    }
    assert transcript.error_line == kept.get(runner.language, died)
    await check_usable(runner)


@pytest.mark.parametrize("runner", ["warm", "cold", "javascript", "r"], indirect=True)
async def test_killed_kernel(runner: KernelRunner) -> None:
    """A kernel that is killed says by what."""
    transcript = await runner.run(SUICIDE[runner.language])
    assert transcript.error_line.startswith("KernelDied: the kernel was killed by SIGKILL")
    await check_usable(runner)


async def test_flood(runner: KernelRunner) -> None:
    """Of 100 MiB of output 8 are kept, and the result says so."""
    transcript = await runner.run(FLOOD[runner.language])
    assert not transcript.failed, transcript.error_line
    assert transcript.truncated
    text = written(transcript)
    assert len(text) < 9 * MIB
    assert f"[cut: {1600 * 65536 - 8 * MIB} bytes more than the 8 MiB that are kept]" in text
    await check_usable(runner)


async def test_bytes_that_are_no_text(runner: KernelRunner) -> None:
    """Output that is no UTF-8 comes as text all the same, with a mark for each byte that is none."""
    transcript = await runner.run(BYTES[runner.language])
    assert not transcript.failed, transcript.error_line
    text = written(transcript)
    assert "\ufffd" in text
    assert "\0" in text or runner.language == "r"  # no text of R's, such as its commands, has one
    await check_usable(runner)


async def test_environment(runner: KernelRunner) -> None:
    """A kernel that runs already sees the session's variables as they are now."""
    await check_usable(runner)
    for word in ("one", "zwö"):
        runner.environment["WORD"] = word
        assert await runner.output(ENVIRONMENT[runner.language]) == f"{word}\n"


async def test_interrupt(runner: KernelRunner) -> None:
    """Only code that runs is interrupted, and only its context's."""
    assert not runner.kernels.interrupt(runner.language)
    ended: list[str] = []

    async def endless() -> None:
        ended.append((await runner.run(ENDLESS[runner.language][0], timeout=2 * PATIENCE)).error_line)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(endless)
        with anyio.fail_after(PATIENCE):
            while not ended:
                runner.kernels.interrupt(runner.language)
                await anyio.sleep(0.1)
    assert "nterrupt" in ended[0]
    assert "Timeout" not in ended[0]
    await check_usable(runner)


async def test_limits_hold_for_kernels(runner: KernelRunner) -> None:
    """A kernel is in its sandbox's control groups, has its limits and no way out."""
    code = {
        "python": "print(open('/proc/self/cgroup').read(), open('/proc/self/limits').read(), sep='')",
        "javascript": "for (const name of ['cgroup', 'limits']) "
        "process.stdout.write(require('fs').readFileSync(`/proc/self/${name}`))",
        "r": "for (name in c('cgroup', 'limits')) writeLines(readLines(file.path('/proc/self', name)))",
        "java": 'for (var name : List.of("cgroup", "limits")) '
        'System.out.print(Files.readString(Path.of("/proc/self", name)));',
    }[runner.language]
    command = await runner.sandbox.run(["cat", "/proc/self/cgroup", "/proc/self/limits"])
    told = await runner.output(code)
    groups = [line for line in told.splitlines() if line[:1].isdigit()]
    assert groups == [line for line in command.stdout.decode().splitlines() if line[:1].isdigit()]
    assert all(line.endswith(":/") for line in groups)  # the group that its namespace shows as the top
    processes = next(line for line in told.splitlines() if line.startswith("Max processes"))
    assert str(LIMITS.processes) in processes
