"""One program for the official client and ours: browsers, agents, extensions, skills, networks.

Run as `official_browser.py FLAVOUR URL DIRECTORY`. Before each step the server is told its name and its answers. Prints
what each step returned, as JSON.
"""

import asyncio
import functools
import json
import sys
import urllib.request
import warnings
from pathlib import Path

import agentbay
from agentbay import (
    ActOptions,
    BrowserFingerprint,
    BrowserNotifyMessage,
    BrowserOption,
    BrowserProxy,
    BrowserScreen,
    BrowserViewport,
    Config,
    CreateSessionParams,
    ExtractOptions,
    FingerprintFormat,
    ObserveOptions,
    ObserveResult,
)

sys.path.insert(0, str(Path(__file__).parent))
from official_ui import resolve, simple


class Product:
    """Stands for a pydantic model: both clients ask it for its schema, and let it check what was read."""

    @classmethod
    def model_json_schema(cls):
        return {"properties": {"name": {"type": "string"}}, "required": ["name"], "title": "Product", "type": "object"}

    @classmethod
    def model_validate_json(cls, text):
        return cls.model_validate(json.loads(text))

    @classmethod
    def model_validate(cls, facts):
        if not isinstance(facts, dict) or not isinstance(facts.get("name"), str):
            raise ValueError("name is required")
        made = cls()
        made.name = facts["name"]
        return made

    @classmethod
    def parse_raw(cls, text):
        return cls.model_validate_json(text)


SCREEN_FIELDS = """
    availHeight availWidth availTop availLeft colorDepth height pixelDepth width devicePixelRatio pageXOffset
    pageYOffset
    innerHeight outerHeight outerWidth innerWidth screenX clientWidth clientHeight hasHDR
"""
SCREEN = dict.fromkeys(SCREEN_FIELDS.split(), 1)
FINGERPRINT = {
    "fingerprint": {
        "screen": SCREEN,
        "navigator": {
            "userAgent": "Ü",
            "languages": ["de"],
            "userAgentData": {"brands": [{"brand": "b", "version": "1"}]},
        },
        "videoCard": {"renderer": "r", "vendor": "v"},
        "fonts": ["Arial"],
    },
    "headers": {"user-agent": "Ü"},
}
OPTIONS = {
    "defaults": lambda: BrowserOption(),
    "everything": lambda: BrowserOption(
        use_stealth=True,
        user_agent="Agent é",
        viewport=BrowserViewport(800, 600),
        screen=BrowserScreen(1024, 768),
        fingerprint=BrowserFingerprint(["desktop"], ["linux", "macos"], ["zh-CN"]),
        fingerprint_persistent=True,
        solve_captchas=True,
        auto_login=True,
        call_for_user=True,
        proxies=[BrowserProxy("custom", "http://127.0.0.1:1", "user", "pass")],
        extension_path="/tmp/other",
        cmd_args=["--lang=de"],
        default_navigate_url="chrome://version",
        browser_type="chrome",
    ),
    "nothing optional": lambda: BrowserOption(extension_path=None, proxies=[], cmd_args=[]),
    "own fingerprint": lambda: BrowserOption(fingerprint_format=FingerprintFormat.load(FINGERPRINT)),
    "wuying proxy": lambda: BrowserOption(proxies=[BrowserProxy("wuying", strategy="polling", pollsize=3)]),
    "wuying proxy, restricted": lambda: BrowserOption(proxies=[BrowserProxy("wuying", strategy="restricted")]),
    "managed proxy": lambda: BrowserOption(
        proxies=[BrowserProxy("managed", strategy="matched", user_id="u", isp="i", country="c", province="p", city="x")]
    ),
    "managed proxy, sticky": lambda: BrowserOption(proxies=[BrowserProxy("managed", strategy="sticky", user_id="u")]),
}
BAD = {
    "two proxies": lambda: BrowserOption(proxies=[BrowserProxy("custom", "a"), BrowserProxy("custom", "b")]),
    "no list of proxies": lambda: BrowserOption(proxies="http://x"),
    "path of no text": lambda: BrowserOption(extension_path=1),
    "blank path": lambda: BrowserOption(extension_path=" "),
    "no list of arguments": lambda: BrowserOption(cmd_args="--x"),
    "firefox": lambda: BrowserOption(browser_type="firefox"),
    "proxy of no type": lambda: BrowserProxy("socks"),
    "custom proxy without server": lambda: BrowserProxy("custom"),
    "wuying proxy without strategy": lambda: BrowserProxy("wuying"),
    "wuying proxy, sticky": lambda: BrowserProxy("wuying", strategy="sticky"),
    "wuying proxy, none in the pool": lambda: BrowserProxy("wuying", strategy="polling", pollsize=0),
    "managed proxy without strategy": lambda: BrowserProxy("managed"),
    "managed proxy, restricted": lambda: BrowserProxy("managed", strategy="restricted", user_id="u"),
    "managed proxy of nobody": lambda: BrowserProxy("managed", strategy="polling"),
    "managed proxy, matched with nothing": lambda: BrowserProxy("managed", strategy="matched", user_id="u"),
    "fingerprint of a watch": lambda: BrowserFingerprint(devices=["watch"]),
    "fingerprint of no list": lambda: BrowserFingerprint(devices="desktop"),
    "fingerprint of BeOS": lambda: BrowserFingerprint(operating_systems=["beos"]),
}


class Program:
    def __init__(self, flavour, url, directory):
        self.url, self.found, self.directory = url, {}, Path(directory)
        self.kind = "Async" if flavour == "async" else ""
        self.client = getattr(agentbay, f"{self.kind}AgentBay")(api_key="akm-EXAMPLE", cfg=Config(endpoint=url))

    def tell(self, name, *answers):
        body = json.dumps({"step": name, "answers": answers}).encode()
        urllib.request.urlopen(f"{self.url}/step", data=body).close()

    async def step(self, name, call, *answers):
        self.tell(name, *answers)
        try:
            self.found[name] = simple(await resolve(call()))
        except Exception as error:  # noqa: BLE001 - which one it is, is what is compared
            kinds = [kind.__name__ for kind in type(error).__mro__]
            known = ("ValueError", "TypeError", "FileNotFoundError", "AgentBayError")
            self.found[name] = {"raised": [kind for kind in kinds if kind in known], "text": str(error)}

    async def session(self, **params):
        self.tell("create")
        return (await resolve(self.client.create(CreateSessionParams(**params)))).session

    async def run(self):
        await self.browser()
        await self.operator()
        await self.agents()
        await self.extensions()
        await self.beta()
        await self.simulated_phones()
        await self.links()
        print(json.dumps(self.found, sort_keys=True))

    async def browser(self):
        for name, make in OPTIONS.items():
            browser = (await self.session()).browser
            start = functools.partial(browser.initialize, make())
            await self.step(f"initialize: {name}", start, {"Port": 9333})
            self.found[f"state: {name}"] = [browser.is_initialized(), browser.endpoint_router_port]
        for name, make in BAD.items():
            await self.step(f"refused: {name}", make)
        for replay in (True, False):
            browser = (await self.session(enable_browser_replay=replay)).browser
            start = functools.partial(browser.init, BrowserOption())
            await self.step(f"initialize: replay {replay}", start, {"Port": 1})
        session = await self.session()
        browser = session.browser
        await self.step("endpoint: before", browser.get_endpoint_url)
        await self.step("destroy: before", browser.destroy)
        await self.step("initialize: no port", lambda: browser.initialize(BrowserOption()), {})
        await self.step("initialize: refused", lambda: browser.initialize(BrowserOption()), {"refuse": "No browser"})
        await self.step("initialize", lambda: browser.initialize(BrowserOption()), {"Port": 9333})
        await self.step("initialize: again", lambda: browser.initialize(BrowserOption(use_stealth=True)), {"Port": 1})
        await self.step("endpoint", browser.get_endpoint_url, {"Url": "wss://gateway.invalid/cdp"})
        await self.step("endpoint: refused", browser.get_endpoint_url, {"refuse": "No link"})
        await self.step("destroy", browser.destroy, {"text": "stopped"})
        await self.step("state after destroy", browser.is_initialized)
        await self.step("option after destroy", lambda: browser.get_option() is None)
        started = (await self.session()).browser
        await self.step("option: before", started.get_option)
        self.tell("start", {"Port": 9333})
        await resolve(started.initialize(BrowserOption(use_stealth=True)))
        await self.step("option", lambda: [started.get_option().use_stealth, started.get_option().viewport])
        message = BrowserNotifyMessage("call-for-user", 7, 101, "captcha", "takeover", {"max_wait_time": 180})
        await self.step("message", lambda: message)

    async def operator(self):
        session = await self.session()
        operator = session.browser.operator
        await self.step("navigate: before", lambda: operator.navigate("https://example.invalid"))
        self.tell("start", {"Port": 9333})
        await resolve(session.browser.initialize(BrowserOption()))
        started, name = {"text": '{"task_id": "t-1"}'}, "https://example.invalid/é"
        await self.step("navigate", lambda: operator.navigate(name), {"text": "opened"})
        await self.step("navigate: refused", lambda: operator.navigate(name), {"text": "no such host", "isError": True})
        await self.step("operator.screenshot", operator.screenshot, {"text": "data:image/png;base64,AA"})
        clip = {"x": 1, "y": 2, "width": 3, "height": 4}
        shot = lambda: operator.screenshot(full_page=False, quality=50, clip=clip, timeout=9)  # noqa: E731
        await self.step("operator.screenshot: options", shot, {"text": "data:image/png;base64,AA"})
        await self.step("operator.screenshot: refused", operator.screenshot, {"text": "no page", "isError": True})
        await self.step("login", lambda: operator.login('{"api_key": "k"}'), {"text": "in"})
        await self.step(
            "login: refused", lambda: operator.login("{}", use_vision=True), {"text": "no", "isError": True}
        )
        await self.step("close", operator.close, {"text": "closed"})
        await self.step("close: refused", operator.close, {"text": "no", "isError": True})
        done = {"text": '{"is_done": true, "success": true, "steps": [{"a": 1}]}'}
        act = ActOptions("click %name%", {"name": "OK"}, True, 60)
        await self.step("act", lambda: operator.act(act), started, done)
        plain = {"text": '{"is_done": true, "success": false, "steps": "nothing there"}'}
        await self.step("act: in words", lambda: operator.act(ActOptions("scroll")), started, plain)
        seen = ObserveResult("#a", "a button", "click", {"x": 1})
        none = {"text": '{"is_done": true, "success": true, "steps": []}'}
        await self.step("act: observed", lambda: operator.act(seen), started, none)
        await self.step("act: refused", lambda: operator.act(ActOptions("x")), {"text": "no model", "isError": True})
        items = [
            {"selector": "#a", "description": "d", "method": "click", "arguments": '{"x": 1}'},
            {"arguments": "no"},
        ]
        look = ObserveOptions("buttons", True, "main", 60)
        await self.step("observe", lambda: operator.observe(look), started, {"text": json.dumps(items)})
        await self.step("observe: nothing", lambda: operator.observe(ObserveOptions("x")), started, {"text": "[]"})
        await self.step(
            "observe: refused", lambda: operator.observe(ObserveOptions("x")), {"text": "no", "isError": True}
        )
        read = ExtractOptions("the product", Product, True, False, "main", 60, 2)
        await self.step("extract", lambda: operator.extract(read), started, {"text": '{"name": "Ü"}'})
        await self.step("extract: refused", lambda: operator.extract(read), {"text": "no", "isError": True})

    async def agents(self):
        session = await self.session()
        agent = session.agent
        for name, one in (("computer", agent.computer), ("browser", agent.browser)):
            begin = ({"Port": 9333},) if name == "browser" else ()
            started = {"text": '{"task_id": "t-1"}'}
            await self.step(f"{name}.execute_task", lambda one=one: one.execute_task("do it"), *begin, started)
            await self.step(
                f"{name}.execute_task: refused", lambda one=one: one.execute_task("x"), {"text": "no", "isError": True}
            )
            status = {"text": '{"task_id": "t-1", "status": "running", "action": "clicking", "product": "p"}'}
            await self.step(f"{name}.get_task_status", lambda one=one: one.get_task_status("t-1"), status)
            await self.step(
                f"{name}.get_task_status: refused",
                lambda one=one: one.get_task_status("t-1"),
                {"text": "no", "isError": True},
            )
            ended = {"text": '{"task_id": "t-1", "status": "finished"}'}
            await self.step(f"{name}.terminate_task", lambda one=one: one.terminate_task("t-1"), ended)
            await self.step(
                f"{name}.terminate_task: refused",
                lambda one=one: one.terminate_task("t-1"),
                {"text": "no", "isError": True},
            )
            found = {"text": '{"task_id": "t-1", "status": "finished", "product": "it is done"}'}
            await self.step(
                f"{name}.execute_task_and_wait", lambda one=one: one.execute_task_and_wait("x", 9), started, found
            )
            lost = {"text": '{"task_id": "t-1", "status": "failed", "product": "the reason"}'}
            await self.step(
                f"{name}.execute_task_and_wait: failed",
                lambda one=one: one.execute_task_and_wait("x", 9),
                started,
                lost,
            )
        mobile, started = agent.mobile, {"text": '{"taskId": "t-2", "status": "running"}'}
        done = {"text": '{"taskId": "t-2", "status": "completed", "result": "done"}'}
        await self.step(
            "mobile.execute_task_and_wait", lambda: mobile.execute_task_and_wait("x", 9, max_steps=5), started, done
        )
        await self.step(
            "mobile.execute_task_and_wait: refused",
            lambda: mobile.execute_task_and_wait("x", 9),
            {"text": "no", "isError": True},
        )
        await self.step(
            "mobile.execute_task_and_wait: at once", lambda: mobile.execute_task_and_wait("x", 9), {"text": "plain"}
        )
        lost = {"text": '{"taskId": "t-2", "status": "failed", "error": "the reason"}'}
        await self.step(
            "mobile.execute_task_and_wait: failed", lambda: mobile.execute_task_and_wait("x", 9), started, lost
        )
        await self.step("mobile.get_task_status", lambda: mobile.get_task_status("t-2"), done)
        await self.step("mobile.terminate_task", lambda: mobile.terminate_task("t-2"), {"text": '{"taskId": "t-2"}'})

    async def extensions(self):
        service = getattr(agentbay, f"{self.kind}ExtensionsService")(self.client, "my-extensions")
        context = {"Id": "ctx-1", "Name": "my-extensions", "State": "available"}
        entry = {
            "FileId": "f",
            "FileName": "ext_1.zip",
            "FilePath": "/tmp/extensions/ext_1.zip",
            "GmtCreate": "2025-01-01",
        }
        await self.step("extensions.list", service.list, context, [entry])
        await self.step("extensions.list: refused", service.list, {"refuse": "No"})
        await self.step("extensions.delete", lambda: service.delete("ext_1.zip"), True)
        await self.step("extensions.option", lambda: service.create_extension_option(["ext_1.zip"]))
        await self.step("extensions.create: nothing there", lambda: service.create("/nowhere/x.zip"))
        other = self.directory / "extension.crx"
        other.write_bytes(b"x")
        await self.step("extensions.create: no zip", lambda: service.create(str(other)))
        await self.step("extensions.cleanup", service.cleanup)

    async def beta(self):
        skills, network = self.client.beta_skills, self.client.beta_network
        found = {
            "SkillPath": "/skills",
            "MetaDataList": [{"Name": "pdf", "Description": "d"}, {"Description": "nameless"}],
        }
        await self.step("skills", skills.get_metadata, found)
        await self.step("skills: chosen", lambda: skills.get_metadata("linux_latest", ["pdf"]), found)
        listed = [{"Name": "pdf", "Description": "d", "SkillId": "s-1"}]
        await self.step("skills: by id", lambda: skills.get_metadata(skill_ids=["s-1", "é"]), listed)
        items = [{"context_id": "ctx-1", "skill_ids": ["s-1"], "path": "/p"}]
        await self.step("skills.bind", lambda: skills.bind_context(items), {})
        await self.step("skills.bind: refused", lambda: skills.bind_context(items), {"refuse": "No"})
        await self.step("skills.unbind", lambda: skills.unbind_context(items), {})
        made = {"NetworkId": "net-1", "NetworkToken": "token"}
        await self.step("network", network.get_network_bind_token, made)
        await self.step("network: known", lambda: network.get_network_bind_token("net-1"), made)
        await self.step("network: refused", network.get_network_bind_token, {"refuse": "No"})
        await self.step("network.describe", lambda: network.describe("net-1"), {"Online": True})
        await self.step("network.describe: refused", lambda: network.describe("net-1"), {"refuse": "No"})
        await self.step("network.describe: nothing", lambda: network.describe(""))

    async def simulated_phones(self):
        made = getattr(agentbay, f"{self.kind}MobileSimulateService")(self.client)
        self.found["simulate: defaults"] = simple(
            [made.get_simulate_enable(), made.get_simulate_mode(), made.get_simulate_context_id()]
        )
        made.set_simulate_enable(True)
        made.set_simulate_mode(agentbay.MobileSimulateMode.SENSORS_ONLY)
        made.set_simulate_context_id("ctx-1")
        self.found["simulate: set"] = simple(
            [made.get_simulate_enable(), made.get_simulate_mode(), made.get_simulate_context_id()]
        )
        await self.step("simulate: configuration", made.get_simulate_config)
        bound = agentbay.ContextSync.new("ctx-2", "/data", agentbay.SyncPolicy())
        entry = {"FileName": "dev_info.json", "FilePath": "/data_mobile_dev_info/dev_info.json", "FileId": "f"}
        for name, answer in (("there", [entry]), ("not there", []), ("refused", {"refuse": "No"})):
            await self.step(f"simulate: has_mobile_info, {name}", lambda: made.has_mobile_info(bound), answer)
        await self.step("simulate: has_mobile_info, no path", lambda: made.has_mobile_info(bound_to("ctx-2", "")))
        await self.step("simulate: has_mobile_info, no context", lambda: made.has_mobile_info(bound_to("", "/data")))
        context = {"Id": "ctx-3", "Name": "n", "State": "available"}
        for name, answers in (
            ("no context", ({"refuse": "No"},)),
            ("no URL", (context, {"refuse": "No"})),
        ):
            await self.step(f"simulate: upload, {name}", lambda: made.upload_mobile_info('{"a": 1}'), *answers)
        await self.step(
            "simulate: upload, its own", lambda: made.upload_mobile_info('{"a": 1}', bound), {"refuse": "No"}
        )
        await self.step("simulate: upload, nothing", lambda: made.upload_mobile_info(""))
        await self.step("simulate: upload, no JSON", lambda: made.upload_mobile_info("{"))

    async def links(self):
        session = await self.session()
        for name in ("get_token", "get_link_url"):
            await self.step(f"links: {name}", getattr(session, name))


def bound_to(context, path):
    return agentbay.ContextSync(context_id=context, path=path)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the official client says that Config(endpoint=...) is deprecated
    asyncio.run(Program(sys.argv[1], sys.argv[2], sys.argv[3]).run())
