"""Do file operations while a program of the sandbox attacks them, and print how each ended, as JSON.

python attacked_operations.py DIRECTORY SIGNAL
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from agentbay.local.sandbox.service import sandbox as sandbox_module
from agentbay.local.sandbox.service.manager import FileOperationFailed, SandboxManager, SandboxSpec
from agentbay.local.sandbox.shared.file_protocol import ReadFile, WriteFile

ATTACKER = """
import os
while True:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) > 1 and int(pid) != os.getpid():
            try:
                os.kill(int(pid), {number})
                open("/tmp/hit", "a").close()
            except OSError:
                open("/tmp/missed", "a").close()
"""
CONTENT = b"x" * (30 << 20)
ROUNDS = 10


async def main(directory: str, number: str) -> None:
    sandbox_module._MAX_OPERATION_SECONDS = 5.0
    manager = await SandboxManager.start()
    sandbox = await manager.create(SandboxSpec(root=Path(directory)))
    attack = asyncio.create_task(sandbox.run(["python3", "-c", ATTACKER.format(number=number)]))
    ends = list[str]()
    for _ in range(ROUNDS):
        try:
            await sandbox.run_file_operation(WriteFile("/tmp/file"), input=CONTENT)
            _, content = await sandbox.run_file_operation(ReadFile("/tmp/file"))
            ends.append("done" if content == CONTENT else "damaged")
        except FileOperationFailed as error:
            ends.append(error.strerror or "")
    attack.cancel()
    temporary = Path(directory, "tmp")
    print(json.dumps({"ends": ends, "hit": (temporary / "hit").exists(), "missed": (temporary / "missed").exists()}))
    await sandbox.close()
    await manager.close()


asyncio.run(main(*sys.argv[1:]))
