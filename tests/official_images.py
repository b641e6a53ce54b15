"""Use sessions on images with the official client: `official_images.py ENDPOINT KEY IMAGE SHELL`."""

import asyncio
import json
import sys
import warnings

from agentbay import AsyncAgentBay, Config, CreateSessionParams


async def main(endpoint: str, key: str, image: str, shell: str) -> None:
    client = AsyncAgentBay(api_key=key, cfg=Config(endpoint=endpoint, region_id="", timeout_ms=60000))
    session = (await client.create(CreateSessionParams(image_id=image))).session
    try:
        done = await session.command.execute_command("hello you")
        assert (done.exit_code, done.stdout) == (0, "hello you\n"), done
        done = await session.command.execute_command("echo a | cat")
        if shell == "yes":
            assert (done.exit_code, done.stdout) == (0, "a\n"), done
        else:
            assert "has no shell" in done.error_message, done
        assert (await session.file_system.write_file("/srv/new/file", "text\n")).success
        assert (await session.file_system.read_file("/srv/new/file")).content == "text\n"
        listed = await session.file_system.list_directory("/srv/new")
        assert [entry.name for entry in listed.entries] == ["file"], listed
        code = await session.code.run_code("print(open('/srv/new/file').read())", "python")
        assert code.logs.stdout == ["text\n\n"], code
    finally:
        await session.delete()
    print(json.dumps({"ok": True}))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(main(*sys.argv[1:]))
