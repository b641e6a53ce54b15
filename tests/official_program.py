"""Call every action and tool with either client: `official_program.py FLAVOUR URL`.

Both packages are imported as `agentbay`; which one it is depends on the interpreter. Before each step the server is
told the name of the step. Methods of the synchronous flavour return what those of the other one return when awaited.
"""

import asyncio
import inspect
import sys
import urllib.request
import warnings

import agentbay
from agentbay import (
    AppManagerRule,
    BetaContextMount,
    BetaContextMountAccessMode,
    BetaContextMountStrategy,
    BrowserContext,
    BrowserFingerprintContext,
    BrowserSyncMode,
    BWList,
    Config,
    ContextSync,
    CreateSessionParams,
    DeletePolicy,
    DownloadPolicy,
    ExtensionOption,
    ExtraConfigs,
    ExtractPolicy,
    Lifecycle,
    LifecyclePolicy,
    MappingPolicy,
    MobileExtraConfig,
    RecyclePolicy,
    SyncPolicy,
    UploadMode,
    UploadPolicy,
    WhiteList,
)

SYNC_POLICY = SyncPolicy(
    upload_policy=UploadPolicy(auto_upload=False, upload_mode=UploadMode.ARCHIVE, archive_exclude_paths=["/keep"]),
    download_policy=DownloadPolicy(auto_download=False),
    delete_policy=DeletePolicy(sync_local_file=False),
    extract_policy=ExtractPolicy(extract=False, delete_src_file=False, extract_current_folder=True),
    recycle_policy=RecyclePolicy(lifecycle=Lifecycle.LIFECYCLE_30DAYS, paths=["/alt", "/höher"]),
    bw_list=BWList([WhiteList("/src", ["/src/node_modules"]), WhiteList(".*\\.py", ["b*"], True, True)]),
    mapping_policy=MappingPolicy("C:\\Users\\é"),
)

PARAMS = {
    "create: no parameters": None,
    "create: all defaults": CreateSessionParams(),
    "create: image, labels, idle time": CreateSessionParams(
        labels={"project": "demo", "é": 'a "b" & c+d=ü 漢'}, image_id="linux_latest", idle_release_timeout=300
    ),
    "create: ids": CreateSessionParams(policy_id="policy-1", beta_network_id="net-1", framework="lang chain"),
    "create: replay on": CreateSessionParams(enable_browser_replay=True),
    "create: replay off": CreateSessionParams(enable_browser_replay=False),
    "create: lifecycle defaults": CreateSessionParams(lifecycle_policy=LifecyclePolicy()),
    "create: lifecycle minutes": CreateSessionParams(lifecycle_policy=LifecyclePolicy(7, 90)),
    "create: lifecycle by hand": CreateSessionParams(lifecycle_policy=LifecyclePolicy(manual_release=True)),
    "create: all skills": CreateSessionParams(load_skills=True),
    "create: some skills": CreateSessionParams(load_skills=True, skill_names=["pdf", "ärger"]),
    "create: no skills named": CreateSessionParams(load_skills=True, skill_names=[]),
    "create: skills named but not loaded": CreateSessionParams(skill_names=["pdf"]),
    "create: contexts": CreateSessionParams(
        context_syncs=[
            ContextSync("ctx-plain", "/tmp/data"),
            ContextSync("ctx-default", "/tmp/ü", SyncPolicy()),
            ContextSync("ctx-policy", "/tmp/other", SYNC_POLICY, beta_wait_for_completion=False),
            ContextSync("ctx-file", "/tmp/f", SyncPolicy(upload_policy=UploadPolicy(archive_exclude_paths=["/x"]))),
        ],
        beta_context_mounts=[
            BetaContextMount("ctx-mount", "/mnt/ctx"),
            BetaContextMount(
                "ctx-mount-2",
                "/mnt/2",
                BetaContextMountAccessMode.READ_ONLY,
                BetaContextMountStrategy.PERFORMANCE,
                "/sub",
            ),
        ],
    ),
    "create: contexts nobody waits for": CreateSessionParams(
        context_syncs=[ContextSync("ctx-plain", "/tmp/data", beta_wait_for_completion=False)]
    ),
    "create: mount only": CreateSessionParams(beta_context_mounts=[BetaContextMount("ctx-mount", "/mnt/ctx")]),
    "create: browser context": CreateSessionParams(browser_context=BrowserContext("ctx-browser")),
    "create: browser context, minimal": CreateSessionParams(
        browser_context=BrowserContext("ctx-browser", auto_upload=False, sync_mode=BrowserSyncMode.MINIMAL)
    ),
    "create: browser context with all": CreateSessionParams(
        context_syncs=[ContextSync("ctx-plain", "/tmp/data")],
        beta_context_mounts=[BetaContextMount("ctx-mount", "/mnt/ctx")],
        browser_context=BrowserContext(
            "ctx-browser",
            sync_mode=BrowserSyncMode.STANDARD,
            extension_option=ExtensionOption("ctx-extensions", ["ext_1.zip", "ext_2.zip"]),
            fingerprint_context=BrowserFingerprintContext("ctx-fingerprint"),
        ),
    ),
}
# The clients go on to apply these by shell commands inside the session.
MOBILE = {
    "create: mobile": CreateSessionParams(
        extra_configs=ExtraConfigs(
            mobile=MobileExtraConfig(
                lock_resolution=True,
                app_manager_rule=AppManagerRule(rule_type="White", app_package_name_list=["com.a", "com.b"]),
                hide_navigation_bar=False,
                uninstall_blacklist=["com.c"],
            )
        )
    ),
    "create: mobile, empty lists": CreateSessionParams(
        extra_configs=ExtraConfigs(
            mobile=MobileExtraConfig(
                app_manager_rule=AppManagerRule(rule_type="Black", app_package_name_list=[]), uninstall_blacklist=[]
            )
        )
    ),
    "create: mobile, nothing": CreateSessionParams(extra_configs=ExtraConfigs(mobile=MobileExtraConfig())),
}


async def resolve(value: object) -> object:
    return await value if inspect.isawaitable(value) else value


class Program:
    def __init__(self, flavour: str, url: str) -> None:
        self.url = url
        kind = agentbay.AsyncAgentBay if flavour == "async" else agentbay.AgentBay
        self.client = kind(api_key="akm-EXAMPLE", cfg=Config(endpoint=url))

    async def step(self, name: str, value: object = None) -> object:
        self.announce(name)
        return await resolve(value() if callable(value) else value)

    def announce(self, name: str) -> None:
        urllib.request.urlopen(f"{self.url}/step", data=name.encode()).close()

    async def run(self) -> None:
        client, step = self.client, self.step
        for name, params in {**PARAMS, **MOBILE}.items():
            result = await step(name, lambda params=params: client.create(params))
            assert result.success, (name, result)
        session = (await step("create: for the rest", client.create)).session
        session.image_id = "code_latest"
        await step("get", lambda: client.get("session-1"))
        await step("list: all", client.list)
        await step("list: page 3", lambda: client.list(page=3))
        await step(
            "list: filters",
            lambda: client.list({"a": "é", "b": "2"}, limit=7, status="RUNNING", image_id="linux_latest"),
        )
        await step("list: filters, page 2", lambda: client.list({"a": "b"}, 2, 3, "PAUSED"))
        await step("set_labels", lambda: session.set_labels({"project": "demo", "é": "ü & +"}))
        await step("get_labels", session.get_labels)
        await step("info", session.info)
        await step("get_link", session.get_link)
        await step("get_link: port", lambda: session.get_link("https", 30150))
        await step("get_link: options", lambda: session.get_link(protocol_type="wss", options='{"a": 1}'))
        await step("list_mcp_tools", session.list_mcp_tools)
        await step("list_mcp_tools: image", lambda: session.list_mcp_tools("browser_latest"))
        await step("get_status", session.get_status)
        await step("keep_alive", session.keep_alive)
        await step("get_metrics", session.get_metrics)
        await self.tools(session)
        await step("pause", session.beta_pause)
        await step("resume", session.beta_resume)
        await step("pause by the client", lambda: client.beta_pause(session))
        await step("resume by the client", lambda: client.beta_resume(session))
        await step("delete with contexts", lambda: session.delete(sync_context=True))
        await step("delete", session.delete)
        await step("delete by the client", lambda: client.delete(session))
        direct = CreateSessionParams(labels={"route": "direct"})
        session = (await step("create: direct", lambda: client.create(direct))).session
        await self.tools(session, "direct: ")
        await step("direct: a tool nobody lists", lambda: session.call_mcp_tool("unlisted", {}))
        await step("direct: delete", session.delete)

    async def tools(self, session: object, route: str = "") -> None:
        command, files = session.command, session.file_system
        mixed = "".join(f"{number} é漢😀\n" for number in range(13_000))
        calls = {
            "call_mcp_tool": lambda: session.call_mcp_tool("any", {"b": [1, None, True], "a": "é 😀", "c": {"d": 1.5}}),
            "call_mcp_tool: options": lambda: session.call_mcp_tool("any", {}, 5000, 3000, True),
            "press_keys": lambda: session.call_mcp_tool(
                "press_keys", {"keys": ["CTRL", "A", "esc", "é"], "hold": True}
            ),
            "execute_command": lambda: command.execute_command("echo 'hé' && ls -la"),
            "execute_command: all": lambda: command.execute_command("pwd", 1234, cwd="/tmp", envs={"A": "b", "Ü": ""}),
            "execute_command: empty envs": lambda: command.run("pwd", envs={}, cwd=""),
            "read_file": lambda: files.read_file("/tmp/é.txt"),
            "read_file: bytes": lambda: files.read_file("/tmp/a.bin", format="bytes"),
            "write_file": lambda: files.write_file("/tmp/a", "héllo"),
            "write_file: empty": lambda: files.write_file("/tmp/a", ""),
            "write_file: append": lambda: files.write_file("/tmp/a", "x", mode="append"),
            "write_file: 200 KB": lambda: files.write_file("/tmp/a", mixed),
            "write_file: 200 KB appended": lambda: files.write_file("/tmp/a", mixed, "append"),
            "write_file: one whole piece": lambda: files.write_file("/tmp/a", "x" * 52224),
            "write_file: one byte more": lambda: files.write_file("/tmp/a", "x" * 52225),
            "list_directory": lambda: files.list_directory("/tmp"),
        }
        for name, call in calls.items():
            await self.step(route + name, call)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the official client says that Config(endpoint=...) is deprecated
    asyncio.run(Program(sys.argv[1], sys.argv[2]).run())
