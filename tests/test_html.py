"""HTML for notebooks, and progress bars on terminals, without a session."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from agentbay import CodeExecutionResult, CommandResult, DirectoryListResult, SessionMetrics, progress
from agentbay._html import binary, document, format_size, table, text
from agentbay._html.ansi import ansi_to_html, strip_ansi
from agentbay._html.sanitize import bundle_to_html, sanitize_bundle, sanitize_html


@pytest.mark.parametrize(
    ("number", "written"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_960, "1.0 MB"), (5e15, "5000.0 TB")],
)
def test_sizes(number: float, written: str) -> None:
    """Sizes have three to four digits and a unit."""
    assert format_size(number) == written


@pytest.mark.parametrize(
    ("written", "without", "page"),
    [
        ("a<b", "a<b", "a&lt;b"),
        ("\x1b[31mr\x1b[0m.", "r.", '<span style="color:#d9534f">r</span>.'),
        ("\x1b[1;92mg\x1b[22mn\x1b[39m.", "gn.",
         '<span style="font-weight:bold;color:#3f9b52">g</span><span style="color:#3f9b52">n</span>.'),
        ("\x1b[38;5;31mx\x1b[m", "x", "x"),
        ("\x1b]0;title\x07\x1b[2Jx\x1b(B", "x\x1b(B", "x\x1b(B"),
        ("10%\r20%\rdone\r\nnext", "done\nnext", "done\nnext"),
    ],
)  # fmt: skip
def test_terminal_text(written: str, without: str, page: str) -> None:
    """Known colours become CSS, and overwritten text and other sequences disappear."""
    assert strip_ansi(written) == without
    assert ansi_to_html(written) == page


@given(st.text("\x1b[]0;134m8\r\n<&>\"'abc", max_size=60))
def test_any_terminal_text(written: str) -> None:
    """No output of a command creates a tag other than span."""
    assert _tags(ansi_to_html(written)) <= {"span"}


def test_long_content_is_cut() -> None:
    """Long content is cut, and the HTML says how much is missing."""
    assert "50 characters before this" in text("x" * 50 + "y" * 100_000)
    assert "50 characters after this" in document("x" * 100_050)
    assert "3 more are not shown" in table(("a",), [(number,) for number in range(203)])
    assert "1.0 kB, of which the first 256" in binary(b"\x01" * 1000)
    assert "(nothing)" in (DirectoryListResult(success=True)._repr_html_() or "")


def test_results_made_by_hand() -> None:
    """Results with default fields have HTML too."""
    assert "only output" in (CommandResult(success=True, output="only output")._repr_html_() or "")
    assert "broken" in (CommandResult(exit_code=-1, error_message="broken")._repr_html_() or "")
    assert "0 B of 0 B" in SessionMetrics()._repr_html_()
    assert CodeExecutionResult()._repr_mimebundle_() == {"text/plain": repr(CodeExecutionResult())}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))


def _tags(page: str) -> set[str]:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return {tag for tag, _ in reader.tags}


@pytest.mark.parametrize(
    ("html", "page"),
    [
        ("<b>x</b>", "<b>x</b>"),
        ("a &amp; b<br/>", "a &amp; b<br>"),
        ("<table border=1><tr style='text-align: right;'><td>1",
         '<table border="1"><tr style="text-align: right;"><td>1</td></tr></table>'),
        ("<style scoped>td {color: red}</style><i>x</i></div>", "<i>x</i>"),
        ("<a href='https://a.b/?c=1&d=2'>x</a>", '<a href="https://a.b/?c=1&amp;d=2">x</a>'),
        ("<!-- c --><p>x", "<p>x</p>"),
        ("<div class='jp-Dialog lm-Widget'>x</div>", "<div>x</div>"),
        ("<b style='margin: 0 5px; font-family: Arial, sans-serif'>$x^2$</b>",
         '<b style="margin: 0 5px; font-family: Arial, sans-serif">$x^2$</b>'),
    ],
)  # fmt: skip
def test_plain_html_is_rebuilt(html: str, page: str) -> None:
    """Plain HTML is rebuilt, and open elements are closed."""
    assert sanitize_html(html) == page


@pytest.mark.parametrize(
    "html",
    [
        "<script>x</script>",
        "<b onclick=x>",
        "<a href='javascript:x'>",
        "<img src='https://a.b/c.png'>",
        "<img src='data:image/svg+xml;base64,x'>",
        "<b style='background: url(x)'>",
        "<b style='position: fixed'>",
        "<b style='margin: -900px'>",
        "<b style='margin: 0 -900px'>",
        "<b style='width: 9999px'>",
        "<b style='font-size: 99em'>",
        "<b style='text-shadow: 0 0 999px'>",
        "<img width=99999>",
        r"<p>$\href{javascript:x}{y}$</p>",
        r"<p>$\st<b>yle{position:fixed}{x}</b>$ \style{top:0}{y}</p>",
        "<b style='color: red; " + "color: red " * 2000 + "!'>",
        "<button data-commandlinker-command=x>",
        "<svg><circle/></svg>",
        "<style>b {color: red}</style>",
        "<iframe src=x>",
        "<SCRIPT/x>",
    ],
)
def test_active_html_goes_to_an_iframe(html: str) -> None:
    """HTML that could run, load or cover anything goes to a sandboxed iframe."""
    reader = _Reader()
    reader.feed(sanitize_html(html))
    ((tag, attrs),) = reader.tags
    assert tag == "iframe"
    assert dict(attrs)["sandbox"] == "allow-scripts"
    assert dict(attrs)["srcdoc"] == html


@pytest.mark.parametrize(
    "markdown",
    [
        "[x](javascript:a)",
        "[x](javascript&colon;a)",
        "[x](java&#115;cript:a)",
        "[x](javascript\\:a)",
        "[x](\n  vbscript:a)",
        "[x](data:text/html,a)",
        "[x](/logout)",
        "[x][y]\n\n[y]:\n  javascript:a",
        "![x](http://127.0.0.1:8888/logout)",
        "<b>x</b>",
        r"$\href{javascript:a}{x}$",
        r"$\style{position:fixed}{x}$",
        r"$\csname href\endcsname{javascript:a}{x}$",
    ],
)
def test_active_markdown_is_text(markdown: str) -> None:
    """Markdown and TeX that could act in the notebook are shown as text."""
    assert sanitize_bundle({"text/markdown": markdown}) == {"text/plain": markdown}
    assert "<a" not in bundle_to_html({"text/markdown": markdown})
    latex = {"text/latex": markdown, "text/plain": "plain"}
    assert sanitize_bundle(latex) == (latex if "$" not in markdown else {"text/plain": "plain"})


def test_inert_markdown() -> None:
    """Markdown with links to web pages and with formulas is passed on."""
    for markdown in ("# T\n* [x](https://a.b/c?d=1) $x^2$", "[x](#part) [y][z]\n\n[z]: http://a.b", "a [b] (c)"):
        assert sanitize_bundle({"text/markdown": markdown}) == {"text/markdown": markdown}


@pytest.mark.parametrize(
    ("mime", "libraries"),
    [
        ("application/vnd.vega.v5+json", ["vega@5", "vega-embed@6"]),
        ("application/vnd.vegalite.v5+json", ["vega@5", "vega-lite@5", "vega-embed@6"]),
        ("application/vnd.vegalite.v6.json", ["vega@6", "vega-lite@6", "vega-embed@7"]),
        ("application/vnd.plotly.v1+json", ["plotly.js-dist-min@3"]),
    ],
)
def test_charts_are_drawn_in_an_iframe(mime: str, libraries: list[str]) -> None:
    """Charts never reach the renderers of the notebook, which would load URLs."""
    spec = {"data": [{"url": "http://127.0.0.1:8888/files/notes.json"}], "text": "</script><script>alert(1)</script>"}
    shown = sanitize_bundle({mime: spec, "text/plain": "chart"})
    assert set(shown) == {"text/plain", "text/html"}
    reader = _Reader()
    reader.feed(shown["text/html"])
    ((tag, attrs),) = reader.tags
    assert (tag, dict(attrs)["sandbox"]) == ("iframe", "allow-scripts")
    document = dict(attrs)["srcdoc"] or ""
    assert "default-src 'none'" in document
    assert "alert(1)</script>" not in document
    assert re.findall(r'src="https://[a-z.]+/npm/([^"]+)"', document) == libraries
    assert set(sanitize_bundle({mime: spec, "image/png": "x"})) == {"image/png"}
    assert sanitize_bundle({"application/vnd.other+json": spec, "application/geo+json": spec}) == {}


def test_tex_in_results_is_not_set() -> None:
    """Names and messages of a session are not typeset as TeX."""
    shown = DirectoryListResult(success=True, entries=[{"name": r"$\href{javascript:x}{y}$"}])._repr_html_() or ""
    assert shown.startswith('<div class="tex2jax_ignore mathjax_ignore">')


PIECES = [
    "<",
    ">",
    "</",
    "b",
    "script",
    "style scoped",
    "!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "'",
    '"',
    "=",
    " ",
    "on",
    "&lt;",
]


@given(st.lists(st.sampled_from([*PIECES, "svg", "/", "x", "\x00", "&#60;", "img src"]), max_size=30).map("".join))
def test_any_html(html: str) -> None:
    """Broken HTML gives allowed tags without event handlers, or an iframe."""
    reader = _Reader()
    reader.feed(sanitize_html(html))
    reader.close()
    for tag, attrs in reader.tags:
        assert tag in ("iframe", "b", "img")
        assert not [name for name, _ in attrs if name.startswith("on")]


PROGRAM = """
from agentbay import progress
with progress("copying [1]", 4_000_000) as report:
    report(1_500_000)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="makes a terminal")
def test_a_bar_on_a_terminal() -> None:
    """On a terminal the bar shows its title and the bytes so far."""
    import pty

    master, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        seen = b""
        while True:
            try:
                seen += os.read(master, 4096)
            except OSError:  # EIO on Linux: the other end is closed
                break
        assert process.wait() == 0
    os.close(master)
    assert b"copying [1]" in seen
    assert b"1.5 MB of 4.0 MB" in seen


def test_no_bar_elsewhere(tmp_path: Path) -> None:
    """Nothing is shown in a pipe."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_no_bar_without_rich(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the package rich, a program on a terminal runs without a bar."""
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress("x") as report:
        report(1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform == "win32", reason="makes a terminal")
def test_standard_output_is_left_alone(tmp_path: Path) -> None:
    """Output of a program within a bar goes to its file, byte for byte."""
    import pty

    master, terminal = pty.openpty()
    program = "from agentbay import progress\nwith progress('x'):\n    print('a\\t' + 'b' * 300, flush=True)\n"
    with (tmp_path / "out").open("w") as out:
        line = [sys.executable, "-c", program]
        done = subprocess.run(line, stdin=terminal, stdout=out, stderr=terminal, env={**os.environ, "TERM": "xterm"})
    os.close(terminal)
    os.close(master)
    assert done.returncode == 0
    assert (tmp_path / "out").read_text() == "a\t" + "b" * 300 + "\n"
