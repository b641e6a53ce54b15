"""The calls of desktops, phones and browsers that have golden pairs."""

from __future__ import annotations

from typing import Any

from agentbay._wire import beta_actions as beta, browser_tools as web, device_actions as actions, ui_tools as ui
from agentbay._wire.schema import Action, Tool

SESSION = "session-04bdwexample00001"

UI_REQUESTS: dict[str, dict[str, Action[Any]]] = {
    "GetAdbLink": {"documented": actions.GetAdbLink(session_id=SESSION, option={"adbkey_pub": "QAAA user@host"})},
    "InitBrowser": {
        "documented": actions.InitBrowser(
            session_id=SESSION,
            persistent_path="/tmp/agentbay_browser",
            browser_option={"useStealth": False, "solveCaptchas": False, "extensionPath": "/tmp/extensions/"},
        )
    },
    "GetCdpLink": {"documented": actions.GetCdpLink(session_id=SESSION)},
    "GetSkillMetaData": {
        "documented": beta.GetSkillMetaData(),
        "chosen": beta.GetSkillMetaData(image_id="linux_latest", skill_group_ids=["pdf", "é"]),
    },
    "ListSkillMetaData": {"documented": beta.ListSkillMetaData(skill_id_list=["s-1", "é"])},
    "BindContextSkillAsync": {
        "documented": beta.BindContextSkillAsync(
            context_skill_bind_items=[{"ContextId": "ctx-1", "SkillIds": ["s-1"], "Path": "/p"}],
            login_region_id="cn-hangzhou",
        )
    },
    "UnbindContextSkillAsync": {
        "documented": beta.UnbindContextSkillAsync(
            context_skill_unbind_items=[{"ContextId": "ctx-1", "SkillIds": ["s-1"]}], login_region_id="cn-hangzhou"
        )
    },
    "CreateNetwork": {"documented": beta.CreateNetwork(login_region_id="cn-hangzhou", network_id="net-1")},
    "DescribeNetwork": {"documented": beta.DescribeNetwork(network_id="net-1")},
}
UI_DATA: dict[str, Any] = {
    "GetAdbLink": actions.LinkUrlData(url="adb connect 192.0.2.1:5555"),
    "InitBrowser": actions.BrowserPortData(port=9333),
    "GetCdpLink": actions.LinkUrlData(url="wss://gateway.example.invalid:8008/websocket_ai/TOKEN"),
    "GetSkillMetaData": beta.SkillMetaData(
        skill_path="/home/wuying/skills", meta_data_list=[beta.SkillEntry(name="pdf", description="Reads PDF files")]
    ),
    "ListSkillMetaData": [beta.SkillEntry(name="pdf", description="Reads PDF files", skill_id="s-1")],
    "CreateNetwork": beta.NetworkData(network_id="net-1", network_token="TOKEN"),
    "DescribeNetwork": beta.NetworkStatus(online=True),
}
UI_TOOL_CALLS: dict[str, dict[str, Tool]] = {
    "click_mouse": {"documented": ui.ClickMouse(x=10, y=20, button="left")},
    "move_mouse": {"documented": ui.MoveMouse(x=10, y=20)},
    "drag_mouse": {"documented": ui.DragMouse(from_x=1, from_y=2, to_x=3, to_y=4, button="middle")},
    "scroll": {"documented": ui.Scroll(x=10, y=20, direction="down", amount=3)},
    "get_cursor_position": {"documented": ui.GetCursorPosition()},
    "input_text": {"documented": ui.InputText(text="héllo")},
    "press_keys": {"documented": ui.PressKeys(keys=["Ctrl", "c"], hold=False)},
    "release_keys": {"documented": ui.ReleaseKeys(keys=["Ctrl"])},
    "get_screen_size": {"documented": ui.GetScreenSize()},
    "system_screenshot": {"documented": ui.SystemScreenshot()},
    "screenshot": {"documented": ui.Screenshot(format="png")},
    "long_screenshot": {
        "documented": ui.LongScreenshot(max_screens=4, format="png"),
        "quality": ui.LongScreenshot(max_screens=2, format="jpeg", quality=80),
    },
    "list_root_windows": {"documented": ui.ListRootWindows(timeout_ms=3000)},
    "get_active_window": {"documented": ui.GetActiveWindow()},
    "activate_window": {"documented": ui.ActivateWindow(window_id=7)},
    "close_window": {"documented": ui.CloseWindow(window_id=7)},
    "maximize_window": {"documented": ui.MaximizeWindow(window_id=7)},
    "minimize_window": {"documented": ui.MinimizeWindow(window_id=7)},
    "restore_window": {"documented": ui.RestoreWindow(window_id=7)},
    "fullscreen_window": {"documented": ui.FullscreenWindow(window_id=7)},
    "resize_window": {"documented": ui.ResizeWindow(window_id=7, width=640, height=480)},
    "focus_mode": {"documented": ui.FocusMode(on=True)},
    "get_installed_apps": {"documented": ui.GetInstalledApps(start_menu=True, desktop=False, ignore_system_app=True)},
    "start_app": {
        "documented": ui.StartApp(start_cmd="xterm"),
        "everything given": ui.StartApp(start_cmd="monkey -p com.a 1", work_directory="/tmp", activity=".Main"),
    },
    "list_visible_apps": {"documented": ui.ListVisibleApps()},
    "stop_app_by_pname": {"documented": ui.StopAppByPname(pname="xterm")},
    "stop_app_by_pid": {"documented": ui.StopAppByPid(pid=42)},
    "stop_app_by_cmd": {"documented": ui.StopAppByCmd(stop_cmd="com.a")},
    "tap": {"documented": ui.Tap(x=10, y=20)},
    "swipe": {"documented": ui.Swipe(start_x=1, start_y=2, end_x=3, end_y=4, duration_ms=300)},
    "send_key": {"documented": ui.SendKey(key=3)},
    "get_clickable_ui_elements": {"documented": ui.GetClickableUiElements(timeout_ms=2000)},
    "get_all_ui_elements": {"documented": ui.GetAllUiElements(timeout_ms=2000, format="json")},
    "stopChrome": {"documented": web.StopChrome()},
    "page_use_navigate": {"documented": web.PageNavigate(url="https://example.invalid/é")},
    "page_use_screenshot": {
        "documented": web.PageScreenshot(context_id=0),
        "everything given": web.PageScreenshot(
            context_id=1,
            page_id="P",
            full_page=False,
            quality=50,
            clip={"x": 1, "y": 2, "width": 3, "height": 4},
            timeout=9,
        ),
    },
    "page_use_close_session": {"documented": web.PageCloseSession()},
    "page_use_login": {"documented": web.PageLogin(login_config="{}", context_id=0)},
    "page_use_act_async": {
        "documented": web.PageAct(
            context_id=0,
            page_id="P",
            action="click",
            variables={"a": "b"},
            use_vision=True,
            timeout=60,
            trace_id="0" * 32,
        )
    },
    "page_use_get_act_result": {"documented": web.PageActResult(task_id="t-1")},
    "page_use_observe_async": {
        "documented": web.PageObserve(context_id=0, instruction="buttons", selector="main", trace_id="0" * 32)
    },
    "page_use_get_observe_result": {"documented": web.PageObserveResult(task_id="t-1")},
    "page_use_extract_async": {
        "documented": web.PageExtract(
            context_id=0, instruction="the product", field_schema="schema: {}", max_page=1, trace_id="0" * 32
        )
    },
    "page_use_get_extract_result": {"documented": web.PageExtractResult(task_id="t-1")},
    "flux_execute_task": {"documented": web.ComputerTask(task="do it")},
    "flux_get_task_status": {"documented": web.ComputerTaskStatus(task_id="t-1")},
    "flux_terminate_task": {"documented": web.ComputerTaskEnd(task_id="t-1")},
    "browser_use_execute_task": {"documented": web.BrowserTask(task="do it", output_schema="{}")},
    "browser_use_get_task_status": {"documented": web.BrowserTaskStatus(task_id="t-1")},
    "browser_use_terminate_task": {"documented": web.BrowserTaskEnd(task_id="t-1")},
    "execute_task": {"documented": web.MobileTask(task="do it")},
    "get_task_status": {"documented": web.MobileTaskStatus(task_id="t-1")},
    "terminate_task": {"documented": web.MobileTaskEnd(task_id="t-1")},
}
