"""How notebooks display real results, and progress while calls run."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter

from agentbay import AsyncAgentBay, AsyncSession, Context, ContextSync, CreateSessionParams
from agentbay._concurrency import async_sleep, async_start_background

EVIL = "<script>alert(1)"
SAFE = "&lt;script&gt;alert(1)"


@pytest.fixture(scope="module")
async def session(bay: AsyncAgentBay) -> AsyncIterator[AsyncSession]:
    async with bay.session(CreateSessionParams(image_id="code_latest", labels={EVIL: EVIL})) as session:
        yield session


def shown(value: object) -> dict[str, Any]:
    """Return all forms in which a notebook gets an object."""
    forms, _ = DisplayFormatter().format(value)
    return dict(forms)


def html(value: object) -> str:
    """Return the HTML of an object, checked to hold no tags from its text."""
    page = shown(value).get("text/html", "")
    assert "<script" not in page
    assert shown(value)["text/plain"]
    return str(page)


async def test_sessions(bay: AsyncAgentBay, session: AsyncSession) -> None:
    """A session is shown without its tokens, a list of them as a table."""
    found = (await bay.get(session.session_id)).unwrap()
    pages = [
        html(thing)
        for thing in (
            session,
            found,
            await bay.get_session(session.session_id),
            await bay.list(),
            await session.info(),
        )
    ]
    assert all(session.session_id in page for page in pages)
    assert "RUNNING" in pages[2]
    assert "code_latest" in pages[3]
    there = found.session
    assert there is not None
    info = (await session.info()).data
    secrets = [bay.api_key, there.token, there.link_url, there.ws_url, there.resource_url, info.ticket, info.auth_code]
    kept = [secret for secret in secrets if secret]
    assert len(kept) > 3
    assert not [secret for secret in kept for page in pages if secret in page]
    labels = html(await session.get_labels())
    assert labels.count(SAFE) == 2
    link = await session.get_link("https", 30100)
    assert "text/html" not in shown(link)
    assert link.data not in shown(link)["text/plain"]
    assert repr(session) == shown(session)["text/plain"]


async def test_failures(bay: AsyncAgentBay, session: AsyncSession) -> None:
    """A failed result shows why, the hint and the request id."""
    missing = html(await session.file_system.read_file(f"/{EVIL}"))
    assert SAFE in missing
    assert "request" in missing
    assert "not found" in html(await bay.get("session-none"))


async def test_commands(session: AsyncSession) -> None:
    """A command shows both streams and how it ended."""
    result = await session.command.run(f"printf '\\033[1;31mred\\033[0m {EVIL}\\n'; echo '<oops>' >&2; exit 3")
    page = html(result)
    assert re.search(r'<span style="font-weight:bold;color:#\w+">red</span> ' + re.escape(SAFE), page)
    assert "&lt;oops&gt;" in page
    assert "exit code 3" in page
    assert "exit code" not in html(await session.command.run("echo fine"))
    assert "exit code 0" in html(await session.command.run("true"))
    late = html(await session.command.run("echo before; sleep 30", timeout_ms=1000))
    assert "timed out" in late
    assert "exit code" not in late


async def test_files(session: AsyncSession) -> None:
    """Listings are tables, texts text, images images, other bytes hexadecimal."""
    files = session.file_system
    await session.command.run(f"mkdir -p shown/sub; printf '%02000d' 0 > 'shown/{EVIL}'")
    listing = html(await files.list_directory("shown"))
    assert f"{SAFE}</td>" in listing
    assert "2.0 kB" in listing
    assert "sub/</td>" in listing
    (await files.write_file("shown/text", f"\x1b[31m{EVIL}\n")).unwrap()
    assert f">{SAFE}\n</pre>" in html(await files.read_file("shown/text"))
    assert "2.0 kB" in html(await files.get_file_info(f"shown/{EVIL}"))
    assert SAFE in html(await files.search_files("shown", "*script*"))
    several = html(await files.read_multiple_files(["shown/text", f"shown/{EVIL}/none"]))
    assert several.count(SAFE) > 1
    (await files.write_file("shown/bytes", b"\x00\xff<" * 100)).unwrap()
    assert "00 ff 3c" in html(await files.read_file("shown/bytes", format="bytes"))
    (await files.write_file("shown/image", b"\x89PNG\r\n\x1a\n")).unwrap()
    assert '<img src="data:image/png;base64,iVBOR' in html(await files.read_file("shown/image", format="bytes"))


async def test_metrics(session: AsyncSession) -> None:
    """The load is a plot in the page's own colours."""
    result = await session.get_metrics()
    page = html(result)
    assert page.count("<rect") == 6
    assert "currentColor" in page
    assert html(result.metrics) == page


async def test_contexts(bay: AsyncAgentBay, session: AsyncSession, tmp_path: Path) -> None:
    """Contexts, their files and the contexts of a session are shown."""
    context = (await bay.context.create(EVIL)).unwrap().context
    assert isinstance(context, Context)
    (tmp_path / "file").write_bytes(b"x" * 1500)
    await bay.context.upload(context.id, tmp_path / "file", f"/tmp/shown/{EVIL}")
    (await session.context.bind(ContextSync(context.id, "/tmp/shown"))).unwrap()
    for thing in (
        context,
        await bay.context.get(EVIL),
        await bay.context.list(),
        await session.context.list_bindings(),
        await bay.context.list_files(context.id, "/tmp/shown"),
    ):
        assert SAFE in html(thing), thing
    assert "1.5 kB" in html(await bay.context.list_files(context.id, "/tmp/shown"))
    assert "/tmp/shown" in html(await session.context.info())
    url = await bay.context.get_file_download_url(context.id, f"/tmp/shown/{EVIL}")
    assert not [form for form in shown(url).values() if url.url in form]


async def test_code(session: AsyncSession) -> None:
    """Values, output and errors of code are shown in order."""
    code = session.code
    assert shown(await code.run_code("6 * 7", "python")) == {"text/plain": "42"}
    table = shown(await code.run_code(f"import pandas as pd\npd.DataFrame({{'a': [{EVIL!r}]}})", "python"))
    assert '<table border="1" class="dataframe">' in table["text/html"]
    assert f"<td>{SAFE}</td>" in table["text/html"]
    plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    assert "image/png" in shown(await code.run_code(plot, "python"))
    both = html(await code.run_code(f"print({EVIL!r})\n{plot}\n'value'", "python"))
    assert re.search(rf"{re.escape(SAFE)}.*<img src=.data:image/png.*value", both, re.DOTALL)
    failed = html(await code.run_code("print('before')\n1 / 0", "python"))
    assert "before" in failed
    assert failed.count("ZeroDivisionError: division by zero") == 1
    assert "Unsupported language" in html(await code.run_code("1", "cobol"))


async def test_what_code_shows_cannot_act(session: AsyncSession) -> None:
    """HTML from a session cannot act in the notebook's page (XSS)."""
    code = """
from IPython.display import HTML, SVG, Javascript, Markdown, display
display(Javascript("alert(1)"))
display(HTML("<p>active</p><script>alert(1)</script>"))
display(SVG("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"))
display(Markdown("[here](javascript:alert(1))"))
display(Markdown("*fine*"))
"""
    result = (await session.code.run_code(code, "python")).check()
    script, page, drawing, link, fine = (shown(item) for item in result.results)
    assert list(script) == ["text/plain"]
    assert page["text/html"].startswith('<iframe sandbox="allow-scripts" srcdoc="&lt;p&gt;active')
    assert drawing["text/html"].startswith('<img src="data:image/svg+xml;base64,')
    assert "image/svg+xml" not in drawing
    assert "text/markdown" not in link
    assert fine["text/markdown"] == "*fine*"
    assert result.results[1].html == "<p>active</p><script>alert(1)</script>"
    assert html(result).count("<iframe") == 1


async def test_a_process_is_shown_while_it_runs(session: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output of a process appears while it runs."""
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    async def answer() -> None:
        while "ready" not in out.getvalue():
            await async_sleep(0.02)
        await session.command.run("touch /tmp/seen")

    process = await session.command.start(
        "echo ready; for i in $(seq 600); do [ ! -f /tmp/seen ] || break; sleep .1; done;"
        " [ -f /tmp/seen ] && printf 'grün' && echo e >&2 && exit 5"
    )
    async_start_background(answer)
    await process.show()
    assert process.exit_code == 5
    assert out.getvalue() == "ready\ngrün"
    assert err.getvalue() == "e\n"


async def test_code_is_shown_while_it_runs(session: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output and results of code appear while it runs."""
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    async def answer() -> None:
        while "ready" not in out.getvalue():
            await async_sleep(0.02)
        await session.command.run("touch /tmp/read")

    code = """
import os, sys, time
print("ready")
until = time.monotonic() + 60
while not os.path.exists("/tmp/read") and time.monotonic() < until: time.sleep(0.05)
print("e", file=sys.stderr)
os.path.exists("/tmp/read")
"""
    stream = session.code.stream(code, "python", 90)
    async_start_background(answer)
    await stream.show()
    assert out.getvalue() == "ready\nTrue\n"
    assert err.getvalue() == "e\n"
    assert stream.result.result == "True"
