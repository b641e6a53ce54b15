"""Run code with the official client: `official_code.py ENDPOINT KEY`."""

import asyncio
import json
import shutil
import sys
import warnings

from agentbay import AsyncAgentBay, Config, CreateSessionParams

RICH = """from IPython.display import *
display(HTML("<b>x</b>"), Latex("$x$"), Markdown("# x"), SVG("<svg/>"), JSON({"a": 1}))
display({"application/vnd.vegalite.v5+json": {"mark": "bar"}}, raw=True)
Image(data=b"\\x89PNG", format="png")"""
STAGES = """handle = display("old", display_id=True); handle.update("new")
for i in range(3): clear_output(wait=True); display(i)"""
FORMS = ["html", "latex", "markdown", "svg", "json", "chart", "png"]


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
        assert (await session.code.execute("1 + 1", "js")).result == "2"
        assert (await session.code.run("1 + 1", "JavaScript")).result == "2"
        assert not (await run("1", "cobol")).success
        late = await run("while True: pass", "python", timeout_s=1)
        assert not late.success, late
        assert "TimeoutError" in late.error_message, late
        assert (await run("x", "python")).result == "6"
        for streamed in (False, True):
            rich = (await run(RICH, "python", stream_beta=streamed)).results
            assert [form for item in rich for form in item.formats() if form != "text"] == FORMS, rich
            assert rich[4].json == {"a": 1}, rich
            assert rich[-1].is_main_result, rich
            stages = await run(STAGES, "python", stream_beta=streamed)
            assert [item.text for item in stages.results] == ["2"], stages
        if shutil.which("R"):
            assert (await run("y <- 6; y * 7", "r")).result == "[1] 42"
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
