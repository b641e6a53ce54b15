"""The other languages: JavaScript, R, Java and Jupyter kernelspecs."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import AsyncIterator

import pytest

from agentbay import AsyncAgentBay, AsyncSession, CodeShown, CodeTimeoutError, EnhancedCodeExecutionResult

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
async def session() -> AsyncIterator[AsyncSession]:
    """A session shared by tests that ignore what others defined in it."""
    async with AsyncAgentBay.local() as bay, bay.session() as session:
        yield session


async def run(session: AsyncSession, code: str, language: str) -> EnhancedCodeExecutionResult:
    result = await session.code.run_code(code, language)
    assert result.success, result
    return result


async def test_javascript(session: AsyncSession) -> None:
    """JavaScript keeps its state, awaits, shows rich results and can be interrupted."""
    await run(session, "const kept = 20; function twice(x) { return 2 * x }", "javascript")
    result = await run(session, "console.log('hi'); console.error('oh'); const kept = 21; twice(kept)", "js")
    assert (result.result, result.logs.stdout, result.logs.stderr) == ("42", ["hi\n"], ["oh\n"])
    waited = await run(session, "await new Promise(done => setTimeout(done, 10, {a: [1, {b: 2}]}))", "node")
    assert waited.result == "{ a: [ 1, { b: 2 } ] }"
    shown = (
        await run(session, "display(html('<b>x</b>')); display({'text/latex': '$x$'}); json({a: 1})", "js")
    ).results
    assert (shown[0].html, shown[1].latex, shown[2].json, shown[2].is_main_result) == (
        "<b>x</b>",
        "$x$",
        {"a": 1},
        True,
    )
    failed = await session.code.run_code("throw new TypeError('boo')", "js")
    assert failed.error_message == "TypeError: boo"
    assert (await run(session, "(await import('node:os')).userInfo().username", "js")).result == "'wuying'"
    for endless in ("while (true) {}", "await new Promise(() => {})"):
        result = await session.code.run_code(endless, "js", timeout_s=1)
        assert isinstance(result.exception, CodeTimeoutError)
        assert (await run(session, "kept", "js")).result == "21"


async def test_javascript_imports(session: AsyncSession) -> None:
    """JavaScript imports modules by declarations and by the operator, and nothing else is taken for them."""
    code = (
        "import fs, { existsSync as exists } from 'node:fs'\nimport * as path from 'node:path'\n"
        "fs.writeFileSync('own.mjs', `export const six = 6; export default 7 // await import('x')`)\n"
        "typeof fs.readFileSync + exists('own.mjs') + path.join('a', 'b')"
    )
    assert (await run(session, code, "js")).result == "'functiontruea/b'"
    assert (
        "// await import('x')" in (await run(session, "console.log(fs.readFileSync('own.mjs', 'utf8'))", "js")).result
    )
    text = "console.log('import(\"fs\")', /import(x)/.source, `import(${1})`); ({ import(x) { return x } }).import(42)"
    result = await run(session, text, "js")
    assert (result.result, result.logs.stdout) == ("42", ['import("fs") import(x) import(1)\n'])
    later = "const twelve = six * 2\nimport seven, { six } from './own.mjs'\n[seven, twelve].join()"
    assert (await run(session, later, "js")).result == "'7,12'"
    assert (await run(session, "(await import('./own.mjs')).default", "js")).result == "7"
    missing = await session.code.run_code("import { eight } from './own.mjs'", "js")
    assert "does not provide an export named 'eight'" in missing.error_message
    nested = await session.code.run_code("if (true) { import os from 'node:os' }", "js")
    assert "use await import(...)" in nested.error_message


async def test_javascript_promises(session: AsyncSession) -> None:
    """A promise as the last value is awaited, and its failure is that of the code."""
    sleep = "await new Promise(done => setTimeout(done, 50))"
    result = await run(
        session, f"async function main() {{ {sleep}; console.log('late'); return [6, 7] }}\nmain()", "js"
    )
    assert (result.result, result.results[0].json, result.logs.stdout) == ("[ 6, 7 ]", [6, 7], ["late\n"])
    assert not (await run(session, f"(async () => {{ {sleep} }})()", "js")).results
    for code in (f"(async () => {{ {sleep}; throw new TypeError('boo') }})()", "Promise.reject(new TypeError('boo'))"):
        failed = await session.code.run_code(code, "js")
        assert failed.error_message == "TypeError: boo"
        assert "nhandled" not in "".join(failed.logs.stderr)


async def test_javascript_errors(session: AsyncSession) -> None:
    """An error of JavaScript tells its causes, also where it is caught by nobody."""
    thrown = "new Error('outer', { cause: new AggregateError([new Error('the very reason')], 'inner') })"
    failed = await session.code.run_code(f"throw {thrown}", "js")
    assert failed.error is not None
    assert failed.error_message == "Error: outer"
    assert "node:inspector" not in failed.error.traceback
    lost = f"setTimeout(() => {{ throw {thrown} }}, 1); await new Promise(done => setTimeout(done, 50))"
    for told in (failed.error.traceback, "".join((await run(session, lost, "js")).logs.stderr)):
        assert told.index("outer") < told.index("inner") < told.index("the very reason")


EXITS = {
    "var stays = 7; console.log('done'); process.exit(0)": "",
    "try { process.exit() } catch { console.log('caught') } finally { console.log('finally') }": "",
    "(async () => { try { await null; process.exit() } catch { process.exit(1) } })()": "",
    "setTimeout(() => process.exit(0), 1); await new Promise(() => {})": "",
    "process.exitCode = 4; setImmediate(() => process.exit()); await new Promise(() => {})": "process.exit(4)",
}


async def test_javascript_exit(session: AsyncSession) -> None:
    """`process.exit()` ends the code at once, and keeps what was defined."""
    for code, error in EXITS.items():
        result = await session.code.run_code(code, "js")
        assert result.success == (not error), code
        assert error in result.error_message
        assert "".join(result.logs.stdout) == ("done\n" if "done" in code else "")
        assert (await run(session, "process.exitCode = undefined; stays", "js")).result == "7"


async def test_javascript_json(session: AsyncSession) -> None:
    """A value that JSON can hold comes as JSON too, and no other one does."""
    for code, value in (("({a: [1, 'x', null, {}]})", {"a": [1, "x", None, {}]}), ("[]", [])):
        assert (await run(session, code, "js")).results[0].json == value
    for code in (
        "[undefined]",
        "[NaN]",
        "({a: new Date()})",
        "new Map()",
        "globalThis.ring = []; ring.push(ring); ring",
    ):
        assert (await run(session, code, "js")).results[0].json is None, code


@pytest.mark.skipif(shutil.which("jshell") is None, reason="there is no JDK here")
async def test_names_of_the_kernel(session: AsyncSession) -> None:
    """Code may use the names that the kernel itself uses."""
    for code in ("const fs = require('fs'); const read = fs; typeof read.readFileSync", "const process = 1", "process"):
        assert await session.code.run_code(code, "javascript")
    assert (await session.code.run_code("fs.existsSync('/') && process", "javascript")).result == "1"


async def test_java(session: AsyncSession) -> None:
    """Java keeps its state, shows values, and reports compile and run-time errors."""
    await run(session, 'int kept = 20;\nint twice(int x) { return 2 * x; }\nSystem.out.println("höh");', "java")
    result = await run(session, "System.err.println(1); kept += 1; twice(kept)", "Java")
    assert (result.result, result.logs.stderr) == ("42", ["1\n"])
    failed = await session.code.run_code('throw new IllegalStateException("boo");', "java")
    assert failed.error_message == "IllegalStateException: boo"
    wrong = await session.code.run_code("int x = true;", "java")
    assert wrong.error is not None
    assert wrong.error.name == "CompileError"
    late = await session.code.run_code("while (true) { }", "java", timeout_s=1)
    assert isinstance(late.exception, CodeTimeoutError)
    if "is kept" in late.error_message:
        assert (await run(session, "kept", "java")).result == "21"


@pytest.mark.skipif(shutil.which("R") is None, reason="there is no R here")
async def test_r(session: AsyncSession) -> None:
    """R keeps its state, shows every value, and reports errors with a traceback."""
    await run(session, "kept <- 20; twice <- function(x) 2 * x; fail <- function() stop('boo', call. = FALSE)", "r")
    result = await run(session, "cat('höh\\n'); message('oh'); kept <- kept + 1; kept; twice(kept)", "R")
    assert [shown.text for shown in result.results] == ["[1] 21", "[1] 42"]
    assert (result.result, result.logs.stdout, result.logs.stderr) == ("[1] 42", ["höh\n"], ["oh\n"])
    assert [shown.is_main_result for shown in result.results] == [False, True]
    assert not (await run(session, "invisible(5)", "r")).results
    (table,) = (await run(session, "data.frame(a = 1:2, b = c('<x>', 'é'))", "r")).results
    assert "<td>&lt;x></td>" in (table.html or "")
    assert "a   b" in (table.text or "")
    failed = await session.code.run_code("print('before')\nfail()", "r")
    assert failed.error is not None
    assert (failed.error.name, failed.error.value) == ("Error", "boo")
    assert "1. fail()\n2. stop(" in failed.error.traceback
    assert failed.logs.stdout == ['[1] "before"\n']
    wrong = await session.code.run_code("1 +* 2", "r")
    assert wrong.error is not None
    assert wrong.error.name == "ParseError"
    own = await session.code.run_code(
        "stop(structure(class = c('mine', 'error', 'condition'), list(message = 'm')))", "r"
    )
    assert own.error_message == "mine: m"
    assert "careful" in (await run(session, "warning('careful')", "r")).logs.stderr[0]
    assert (await run(session, '"quote \\" back\\\\slash \\u00e9 😀"', "r")).result.endswith('slash é 😀"')


@pytest.mark.skipif(shutil.which("R") is None, reason="there is no R here")
async def test_r_shows(session: AsyncSession) -> None:
    """Plots of R arrive as images, one per page, also when streamed."""
    code = (
        "plot(1:3); lines(3:1); barplot(1:2)\n"
        "display_html('<b>x</b>'); display_latex('$x$'); display_markdown('# x'); display_svg('<svg/>')\n"
        "display_json(list(a = 1.5, b = list(TRUE, NULL, 'x'))); display_vega(list(mark = 'bar'))\n"
        "display_png(as.raw(0:255))"
    )
    plain = (await run(session, code, "r")).results
    async with session.code.stream(code, "r") as stream:
        streamed = [event.result async for event in stream if isinstance(event, CodeShown)]
    for shown in (plain, streamed):
        assert [form for item in shown for form in item.formats()] == [
            "html", "latex", "markdown", "svg", "json", "chart", "png", "png", "png",
        ]  # fmt: skip
        assert shown[4].json == {"a": 1.5, "b": [True, None, "x"]}
        assert shown[5].chart == {"mark": "bar"}
        images = [base64.b64decode(item.png or "") for item in shown[6:]]
        assert images[0] == bytes(range(256))
        assert all(image.startswith(b"\x89PNG\r\n") for image in images[1:])


async def test_kernelspec(session: AsyncSession) -> None:
    """A Jupyter kernel runs inside the session like any other language."""
    spec = {"argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "env": {"MINE": "yes"}}
    spec |= {"display_name": "Mine", "language": "python"}
    files = session.file_system
    await files.create_directory(".local/share/jupyter/kernels/mine")
    await files.write_file(".local/share/jupyter/kernels/mine/kernel.json", json.dumps(spec))
    await run(session, "kept = 20", "jupyter:mine")
    code = (
        "import os, sys; sys.stderr.write('oh'); print('hi'); handle = display('old', display_id=True)\n"
        "from IPython.display import HTML; display(HTML('<b>x</b>')); handle.update('new')\n"
        "os.environ['MINE'], os.getcwd(), kept"
    )
    result = await run(session, code, "jupyter:mine")
    assert result.result == "('yes', '/home/wuying', 20)"
    assert ("".join(result.logs.stdout), "".join(result.logs.stderr)) == ("hi\n", "oh")
    assert [shown.text for shown in result.results[::2]] == ["'new'", result.result]
    assert result.results[1].html == "<b>x</b>"
    failed = await session.code.run_code("1 / 0", "jupyter:mine")
    assert failed.error is not None
    assert (failed.error_message, "\x1b" in failed.error.traceback) == ("ZeroDivisionError: division by zero", False)
    late = await session.code.run_code("while True: pass", "jupyter:mine", timeout_s=1)
    assert isinstance(late.exception, CodeTimeoutError)
    assert (await run(session, "kept", "jupyter:mine")).result == "20"
    dead = await session.code.run_code("os._exit(3)", "jupyter:mine")
    assert "exited with 3" in dead.error_message


async def test_kernelspecs_that_give_no_kernel(session: AsyncSession) -> None:
    """A missing kernelspec or program is named, with the ones that exist."""
    missing = await session.code.run_code("1", "jupyter:nosuch")
    assert "there is no kernelspec 'nosuch' inside the session, there are: " in missing.error_message
    assert "/home/wuying/.local/share/jupyter/kernels" in missing.error_message
    spec = {"argv": ["/opt/nosuch", "{connection_file}"], "display_name": "Broken", "language": "x"}
    await session.file_system.create_directory(".local/share/jupyter/kernels/broken")
    await session.file_system.write_file(".local/share/jupyter/kernels/broken/kernel.json", json.dumps(spec))
    broken = await session.code.run_code("1", "jupyter:broken")
    assert "a program that is not there inside the session: /opt/nosuch" in broken.error_message
