"""The operator and the agents of a session, with a model that answers from a script and moves a real browser."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from agentbay import (
    ActOptions,
    AgentEvent,
    AsyncAgentBay,
    AsyncSession,
    AsyncTaskExecution,
    BrowserError,
    CreateSessionParams,
    ExecutionResult,
    ExtractOptions,
    ObserveOptions,
    QueryResult,
)
from agentbay._concurrency import async_sleep
from tests.scripted_model import Asked, ModelServer, call, click, fill, names_of_tools, say

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium; scripts/test says how to get it"),
]
KEY = "the-key-of-the-model"
PORT = 30150
PAGE = """<!doctype html><title>shop</title><meta charset=utf-8>
<form action=found.html><label>Search <input name=q></label> <label>Password <input name=p type=password></label>
<select name=kind aria-label=Kind><option>Books<option>Films</select><button>Find</button></form>
<iframe srcdoc="<button onclick=&quot;parent.document.title='framed'&quot;>Inside</button>"></iframe>
<div id=host></div><script>
const root = document.getElementById('host').attachShadow({mode: 'open'});
root.innerHTML = '<button>Shadow</button>';
root.firstChild.onclick = () => { document.title = 'from the shadow'; };
</script><button onclick="alert('careful'); document.title = 'warned'">Warn</button>
<a href=other.html target=_blank>Elsewhere</a> <p>Price: 12 Euro</p>"""


# A tab that takes a moment to load.
SERVER = f"""
import http.server, time
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/other"):
            time.sleep(0.7)
        super().do_GET()
http.server.ThreadingHTTPServer(("127.0.0.1", {PORT}), Handler).serve_forever()
"""


class Offer(BaseModel):
    price: int
    currency: str


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    """The model, on a port of this machine."""
    server = ModelServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
async def shop(model: ModelServer) -> AsyncIterator[AsyncSession]:
    """A session with a web server and a browser, on a runtime with that model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTBAY_MODEL_API_KEY", KEY)
        bay = AsyncAgentBay.local(model_url=model.url, model="scripted", task_steps=8)
        params = CreateSessionParams(image_id="browser_latest")
        async with bay, bay.session(params) as session:
            for name, text in (
                ("index", PAGE),
                ("found", "<title>found</title>"),
                ("other", "<title>other</title>"),
            ):
                assert (await session.file_system.write_file(f"site/{name}.html", text)).success
            await session.command.start(["python3", "-c", SERVER], cwd="site")
            waiting = f"until curl -s 127.0.0.1:{PORT} >/dev/null; do sleep 0.05; done"
            (await session.command.run(waiting, 30_000)).check()
            assert await session.browser.initialize()
            yield session


@pytest.fixture
async def page(shop: AsyncSession) -> AsyncSession:
    """The session with the page of the shop open."""
    said = await shop.browser.operator.navigate(f"http://127.0.0.1:{PORT}/index.html")
    assert said == f"Opened http://127.0.0.1:{PORT}/index.html, 'shop'"
    return shop


async def title(session: AsyncSession, model: ModelServer) -> str:
    """Return the title of the page that the browser shows, as the model sees it."""
    model.play(lambda asked: call("done", price=0, currency=asked.shown.partition("Title: ")[2].partition("\n")[0]))
    found = await session.browser.operator.extract(ExtractOptions("the title", Offer))
    return found[1].currency


async def test_acting_in_words(page: AsyncSession, model: ModelServer) -> None:
    """The model's answers fill in a form and send it, without the value of a variable."""
    model.play(
        fill("Search", "sämtliche 😀"),
        fill("Password", "%secret%"),
        lambda asked: call("choose", element=asked.element("Kind"), option="Films"),
        click("Find"),
        call("done", message="sent"),
    )
    options = ActOptions("Search for it", variables={"secret": "hunter2-hunter2"}, use_vision=True)
    done = await page.browser.operator.act(options)
    assert done.success, done.message
    assert [step.partition(" ")[0] for step in json.loads(done.message)] == ["type", "type", "choose", "click"]
    last = model.asked[-1]
    assert "/found.html?q=s%C3%A4mtliche+%F0%9F%98%80&p=%secret%&kind=Films" in last.shown
    assert not any("hunter2" in asked.said for asked in model.asked)
    assert last.images == 1
    assert {asked.headers["authorization"] for asked in model.asked} == {f"Bearer {KEY}"}
    assert {(asked.path, asked.body["model"]) for asked in model.asked} == {("/v1/chat/completions", "scripted")}


async def test_frames_shadows_tabs_and_dialogs(page: AsyncSession, model: ModelServer) -> None:
    """Elements in frames and shadow roots are clicked, new tabs are seen, and no dialog blocks the page."""
    seen: list[str] = []

    def note(tool: str, **arguments: object):
        def answer(asked):
            seen.append(asked.said)
            return call(tool, **arguments)

        return answer

    model.play(
        click("Inside"),
        click("Shadow"),
        click("Warn"),
        click("Elsewhere"),
        lambda asked: call("switch_tab", tab=next(n for n in (0, 1) if f"[{n}] other" in asked.shown)),
        note("go_back"),
        note("done"),
    )
    done = await page.browser.operator.act(ActOptions("Try everything"))
    assert done.success, done.message
    for text in ("Title: other", "a dialog was closed, alert: careful", "It failed: there is no page before this one"):
        assert text in seen[-1]


async def test_finding_and_acting(page: AsyncSession, model: ModelServer) -> None:
    """What `observe` finds can be acted on later, without the model."""
    model.play(
        call("done", elements=[{"element": 9999, "description": "none", "method": "click"}]),
        lambda asked: call(
            "done",
            elements=[
                {"element": asked.element("Search"), "description": "the field", "method": "type", "text": "word"},
                {"element": asked.element("Shadow"), "description": "the button", "method": "click"},
            ],
        ),
    )
    found = (await page.browser.operator.observe(ObserveOptions("the field and the button")))[1]
    assert "there is no element 9999" in model.asked[1].said
    assert set(names_of_tools(model.asked[0])) == {"done", "give_up"}
    assert [(one.description, one.method) for one in found] == [("the field", "type"), ("the button", "click")]
    asked = len(model.asked)
    for one in found:
        assert (await page.browser.operator.act(one)).success
    assert len(model.asked) == asked
    assert await title(page, model) == "from the shadow"
    assert "value='word'" in model.asked[0].shown
    found[0].arguments["selector"] = "#gone"
    refused = await page.browser.operator.act(found[0])
    assert not refused.success
    assert "there is no element #gone" in refused.message


async def test_reading_data(page: AsyncSession, model: ModelServer) -> None:
    """Data arrive as the schema says, and an answer that lacks some is mended by the model."""
    model.play(call("done", price=12), call("done", price=12, currency="Euro"))
    found = await page.browser.operator.extract(ExtractOptions("the price", Offer))
    assert found == (True, Offer(price=12, currency="Euro"))
    assert "Price: 12 Euro" in model.asked[0].shown
    assert "the result needs currency" in model.asked[1].said


async def test_logging_in(page: AsyncSession, model: ModelServer) -> None:
    """Names and passwords are typed for the model, which does not see them."""
    config = {"url": f"http://127.0.0.1:{PORT}/index.html", "username": "somebody", "password": "hunter2-hunter2"}
    model.play(fill("Search", "%username%"), fill("Password", "%password%", submit=True), call("done"))
    done = await page.browser.operator.login(json.dumps(config))
    assert (done.success, done.message) == (True, "Logged in")
    assert "%username%, %password%" in model.asked[0].said
    assert not any("hunter2" in asked.said or "somebody" in asked.said for asked in model.asked)
    refused = await page.browser.operator.login('{"api_key": "a", "skill_id": "b"}')
    assert "for the cloud only" in refused.message


async def test_screenshots_and_pages_that_cannot_be_opened(page: AsyncSession) -> None:
    """Screenshots are PNG images, and a page that is not there says so."""
    for options in ({"full_page": True}, {"clip": {"x": 0, "y": 0, "width": 10, "height": 10}}):
        assert (await page.browser.operator.screenshot(**options)).startswith("data:image/png;base64,iVBOR")
    said = await page.browser.operator.navigate("http://127.0.0.1:1/")
    assert said.startswith("Navigation failed: ")
    assert "http://127.0.0.1:1/ cannot be opened: net::ERR_" in said
    said = await page.browser.operator.navigate("http://nowhere.invalid/")
    assert said.startswith("Navigation failed: ")
    assert "http://nowhere.invalid/ cannot be opened: " in said


async def ended(session: AsyncSession, started: ExecutionResult) -> QueryResult:
    """Wait for the end of a browser task."""
    assert started.success, started.error_message
    while (status := await session.agent.browser.get_task_status(started.task_id)).task_status == "running":
        await async_sleep(0.05)
    return status


async def test_a_browser_task(page: AsyncSession, model: ModelServer) -> None:
    """A task ends with the result that its schema asks for, and tells its steps."""
    model.play(say("I look for it."), click("Find"), call("done", price=12, currency="Euro"))
    status = await ended(page, await page.agent.browser.execute_task("Find the price", output_schema=Offer))
    assert (status.task_status, json.loads(status.task_product)) == ("finished", {"price": 12, "currency": "Euro"})
    assert "".join(step["content"] for step in status.stream).startswith('I look for it.click {"element": ')
    assert status.task_action.startswith("click ")
    assert "Title: found" in model.asked[-1].shown
    model.play(call("done", result="12 Euro"))
    done = await page.agent.browser.execute_task_and_wait("Find the price", 60)
    assert (done.success, done.task_result) == (True, '{"result": "12 Euro"}')


async def test_tasks_that_fail(page: AsyncSession, model: ModelServer) -> None:
    """The reason arrives: the model gave up, a limit was met, or the task was ended."""
    agent = page.agent.browser
    model.play(call("give_up", reason="there is no price"))
    done = await agent.execute_task_and_wait("Find the price", 60)
    assert not done.success
    assert "there is no price" in done.error_message
    model.play(again=say("I think."))
    status = await ended(page, await agent.execute_task("Think"))
    assert (status.task_status, status.error) == ("failed", "it was not done after 8 steps (--task-steps)")
    model.play(again=call("wait", seconds=10))
    started = await agent.execute_task("Wait")
    assert (await agent.terminate_task(started.task_id)).task_status == "finished"
    assert (await ended(page, started)).error == "it was ended"
    gone = await agent.terminate_task(started.task_id)
    assert "Task not found or already finished" in gone.error_message


async def test_a_model_that_fails(page: AsyncSession, model: ModelServer) -> None:
    """A refusal of the model fails the task with its reason, and the key is in no message."""
    operator = page.browser.operator
    other = ModelServer()
    try:
        for status, failure, location, said in (
            (401, json.dumps({"error": {"message": f"wrong key {KEY}"}}), "", r"wrong key \[key\]"),
            (200, None, "", "an answer that is no chat completion"),
            (200, '{"choices": [', "", "an answer that is no chat completion"),
            (307, "", f"{other.url}/chat/completions", "307"),
        ):
            model.play(again={"content": None, "tool_calls": "none"})
            if failure is not None:
                model.status, model.failure, model.location = status, failure, location
            with pytest.raises(BrowserError, match=said) as refused:
                await operator.extract(ExtractOptions("the price", Offer))
            assert KEY not in repr(refused.value)
            assert refused.value.message.startswith("Failed to extract: the model at ")
        assert not other.asked
    finally:
        other.close()


async def test_a_model_that_answers_oddly(page: AsyncSession, model: ModelServer) -> None:
    """A refusal is told, and no answer is too large for the runtime or calls tools without end."""
    flood = [{**call("scroll", direction="down")["tool_calls"][0], "id": f"call-{number}"} for number in range(5000)]
    for answer, said in (
        ({"content": None, "refusal": "I will not."}, "the model at .* refuses: I will not."),
        (say("x" * (2 << 20)), "an answer of more than 1 MiB"),
        ({"content": None, "tool_calls": flood}, "wants 5000 tools called at once, of 100 at most"),
    ):
        model.play(again=answer)
        with pytest.raises(BrowserError, match=said):
            await page.browser.operator.extract(ExtractOptions("the price", Offer))
        assert len(model.asked) == 1
    model.play(call("click", element=0, reason="y" * 10_000), call("done"))
    done = await page.browser.operator.act(ActOptions("Click"))
    assert done.success
    assert len(done.message) < 3000


async def test_the_key_stays_in_the_service(page: AsyncSession) -> None:
    """No code of a session finds the key of the model."""
    found = await page.command.run("env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null")
    assert "PATH=" in found.stdout
    assert KEY not in found.stdout
    assert "scripted" not in found.stdout


async def test_following_a_task(page: AsyncSession, model: ModelServer) -> None:
    """A task over the WebSocket tells each step as it happens, and asks a person."""
    model.play(
        call("call_for_user", prompt="which?"), lambda asked: call("done", result=asked.said.count("the second"))
    )
    wanted = {"method": "exec_task", "params": {"task": "Ask", "max_steps": 3}}
    events = []
    stream = await page.ws.stream("wuying_browseruse", wanted, 60)
    async with stream:
        async for event in stream:
            events.append((event["eventType"], event["toolName"]))
            if events[-1] == ("tool_call", "call_for_user"):
                answer = {"toolCallId": event["toolCallId"], "response": "the second"}
                await stream.write({"method": "resume_task", "params": answer})
    assert events == [
        ("tool_call", "call_for_user"),
        ("tool_result", "call_for_user"),
        ("tool_call", "done"),
        ("tool_result", "done"),
    ]
    assert (stream.end["status"], stream.end["taskResult"]) == ("finished", '{"result": 1}')


async def test_callbacks_of_a_browser_task(page: AsyncSession, model: ModelServer) -> None:
    """The callbacks of the agent get each step, and the person's answer reaches the model."""
    model.play(
        {**call("call_for_user", prompt="which?"), "content": "I ask."},
        lambda asked: call("done", result=f"got {asked.said.count('the second')}"),
    )
    told: list[tuple[str, str]] = []

    def tell(event: AgentEvent) -> None:
        told.append((event.type, event.tool_name or event.content))

    async def answer(event: AgentEvent) -> str:
        told.append(("asked", event.prompt))
        return "the second"

    done = await page.agent.browser.execute_task_and_wait(
        "Ask", 60, on_content=tell, on_tool_call=tell, on_tool_result=tell, on_call_for_user=answer
    )
    assert (done.success, done.task_result) == (True, '{"result": "got 1"}'), done.error_message
    assert told == [
        ("content", "I ask."),
        ("tool_call", "call_for_user"),
        ("asked", "which?"),
        ("tool_result", "call_for_user"),
        ("tool_call", "done"),
        ("tool_result", "done"),
    ]


async def test_cancelling_a_followed_task(page: AsyncSession, model: ModelServer) -> None:
    """A task that is cancelled asks the model no more."""
    model.play(again=call("scroll", direction="down"))
    tasks: list[AsyncTaskExecution] = []

    async def stop(event: AgentEvent) -> None:
        await tasks[0].cancel()

    tasks.append(await page.agent.browser.stream_task("Scroll for ever", on_tool_result=stop))
    result = await tasks[0].wait(60)
    assert (result.task_status, result.error_message) == ("cancelled", "The task was cancelled.")
    await async_sleep(1)
    assert len(model.asked) < 4  # of the 8 steps that it may take


async def test_a_failed_task_is_told(page: AsyncSession, model: ModelServer) -> None:
    """A model that gives up ends the stream with an error event, and the result has its reason."""
    model.play(call("give_up", reason="there is no shop"))
    errors: list[AgentEvent] = []
    done = await page.agent.browser.execute_task_and_wait("Buy", 60, on_error=errors.append)
    assert (done.success, done.task_status) == (False, "failed")
    assert "there is no shop" in done.error_message
    assert [event.error["code"] for event in errors] == ["TaskFailed.Local"]


async def test_followed_tasks_are_counted(page: AsyncSession, model: ModelServer) -> None:
    """Followed tasks count among the eight that a session may have, until they are cancelled."""
    waiting = threading.Event()

    def hold(asked: Asked) -> dict[str, Any]:
        waiting.wait(60)
        return say("late")

    model.play(again=hold)
    agent = page.agent.browser
    agent.initialized = True
    tasks = [await agent.stream_task("Wait", on_content=print) for _ in range(8)]
    try:
        while len(model.asked) < 8:
            await async_sleep(0.05)
        refused = await agent.execute_task_and_wait("Wait", 60, on_content=print)
        assert "as many as it may have" in refused.error_message
        for task in tasks:
            await task.cancel()
    finally:
        waiting.set()
    model.play(again=call("done", result="free"))
    while (
        "as many as it may have"
        in (done := await agent.execute_task_and_wait("Go", 60, on_content=print)).error_message
    ):
        await async_sleep(0.05)
    assert done.success, done.error_message


async def test_following_without_a_model(bay: AsyncAgentBay) -> None:
    """A runtime without a model refuses a followed task by the name of its option."""
    async with bay.session() as session:
        session.agent.browser.initialized = True
        for agent in (session.agent.browser, session.agent.computer):
            refused = await agent.execute_task_and_wait("Do it", 60, on_content=print)
            assert "--model-url" in refused.error_message


async def test_without_a_model(bay: AsyncAgentBay) -> None:
    """Without the option, what needs a model is refused by its name; the rest works."""
    async with bay.session(CreateSessionParams(image_id="browser_latest")) as session:
        assert await session.browser.initialize()
        operator = session.browser.operator
        assert (await operator.navigate("data:text/html,<title>here</title>")).endswith("'here'")
        assert (await operator.screenshot()).startswith("data:image/png;base64,")
        for ask in (
            lambda: operator.act(ActOptions("click")),
            lambda: operator.observe(ObserveOptions("buttons")),
            lambda: operator.extract(ExtractOptions("the price", Offer)),
        ):
            with pytest.raises(BrowserError, match="--model-url URL --model NAME") as refused:
                await ask()
            assert refused.value.code == "ModelNotConfigured.Local"
        assert "--model-url" in (await operator.login('{"password": "p"}')).message
        for agent in (session.agent.browser, session.agent.computer):
            started = await agent.execute_task("Do it")
            assert "--model-url" in started.error_message
            assert started.exception.code == "ModelNotConfigured.Local"


@pytest.mark.skipif(
    not all(map(shutil.which, ("Xtigervnc", "blackbox", "xterm"))),
    reason="no X server, window manager or xterm; scripts/test says how to get them",
)
async def test_a_computer_task(shop: AsyncSession, model: ModelServer) -> None:
    """The model starts a program on the desktop, types into it, and sees screenshots."""
    model.play(
        call("start_app", start_cmd="xterm"),
        call("click_mouse", x=100, y=100),
        call("input_text", text="echo typed > typed.txt\n"),
        call("done", result="it is typed"),
    )
    done = await shop.agent.computer.execute_task_and_wait("Type in a terminal", 120)
    assert (done.success, done.task_result) == (True, "it is typed"), done.error_message
    assert all(asked.images == 1 for asked in model.asked)
    written = await shop.command.run("until [ -s typed.txt ]; do sleep 0.05; done; cat typed.txt", 60_000)
    assert written.output == "typed\n"
