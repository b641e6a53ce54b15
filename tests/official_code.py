"""The published client runs code on a runtime: `official_code.py ENDPOINT KEY`; see `_async/test_code.py`."""

import asyncio
import json
import sys
import warnings

from agentbay import AsyncAgentBay, Config, CreateSessionParams


async def main(endpoint: str, key: str) -> None:
    client = AsyncAgentBay(api_key=key, cfg=Config(endpoint=endpoint, region_id="", timeout_ms=60000))
    session = (await client.create(CreateSessionParams(image_id="code_latest"))).session
    run = session.code.run_code
    try:
        first = await run("x = 6\nprint('hello')", "python")
        assert first.success, first
        assert first.logs.stdout == ["hello\n"], first
        assert (await run("x * 7", "python")).result == "42"
        plot = await run("import matplotlib.pyplot as plt\nplt.plot([1, 2]);", "python")
        assert [item for item in plot.results if item.png], plot
        table = await run("import pandas as pd\npd.DataFrame({'a': [1]})", "py")
        assert "<table" in table.results[0].html, table
        failed = await run("1 / 0", "python")
        assert not failed.success, failed
        assert "ZeroDivisionError" in failed.error_message, failed
        assert (await run("1 + 1", "js")).result == "2"
        out, errors = [], []
        streamed = await run(
            "print('a')\nprint('b')\nx", "python", stream_beta=True, on_stdout=out.append, on_error=errors.append
        )
        assert streamed.success, streamed
        assert streamed.result == "6", streamed
        assert "".join(out) == "a\nb\n", out
        assert errors == [], errors
        broken = await run("1 / 0", "python", stream_beta=True, on_error=errors.append)
        assert not broken.success, broken
        assert broken.error.name == "ZeroDivisionError", broken
        assert [error["code"] for error in errors] == ["ZeroDivisionError"], errors
    finally:
        await session.delete()
    print(json.dumps({"ok": True}))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(main(sys.argv[1], sys.argv[2]))
