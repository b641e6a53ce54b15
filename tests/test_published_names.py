"""Import paths and the logger that programs for the official client use."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import agentbay
from agentbay import AgentBayLogger, APIError, CommandResult, Config, ContextSync, SyncPolicy, get_logger

PATHS = {
    "_common.config": "Config",
    "_common.enums": "SessionStatus",
    "_common.exceptions": "AgentBayError WsCancelledError CommandError",
    "_common.logger": "AgentBayLogger get_logger",
    "_common.models": "CommandResult BoolResult ContextSyncResult",
    "_common.models.response": "OperationResult DeleteResult SessionResult",
    "_common.params": "ContextSync CreateSessionParams",
    "_common.params.context_sync": "ContextSync SyncPolicy UploadMode",
    "_common.params.lifecycle_policy": "LifecyclePolicy",
    "_common.params.session_params": "CreateSessionParams BrowserContext",
    "api.models": "ExtraConfigs MobileExtraConfig AppManagerRule",
    "agent.agent": "Agent QueryResult",
    "agentbay": "AgentBay Config",
    "application": "InstalledApp",
    "application.application": "AppOperationResult ProcessListResult",
    "browser": "ActOptions Browser BrowserOption",
    "browser.browser": "Browser BrowserViewport",
    "browser.browser_agent": "ActOptions ObserveResult",
    "browser.fingerprint": "FingerprintFormat",
    "code": "Code CodeExecutionResult",
    "code.code": "Code",
    "command": "Command",
    "command.command": "Command CommandResult",
    "computer": "Computer MouseButton ScrollDirection",
    "computer.computer": "Window",
    "context": "Context ContextService",
    "context_manager": "ContextManager",
    "context_sync": "ContextSync SyncPolicy",
    "exceptions": "AgentBayError APIError AuthenticationError SessionError",
    "extension": "Extension ExtensionsService",
    "filesystem": "FileSystem",
    "filesystem.filesystem": "FileSystem FileTransfer",
    "logger": "AgentBayLogger get_logger",
    "mobile": "KeyCode Mobile",
    "mobile.mobile": "UIElementListResult",
    "mobile_simulate": "MobileSimulateService",
    "model": "BoolResult SessionResult",
    "model.response": "OperationResult DeleteResult",
    "oss": "Oss",
    "oss.oss": "OSSClientResult",
    "session": "Session SessionInfo",
    "session_params": "CreateSessionParams ListSessionParams BrowserContext",
    "ui": "KeyCode",
    "ui.ui": "UIElementListResult",
    "window": "Window",
    "window.window": "WindowListResult",
}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    AgentBayLogger.setup("WARNING", enable_console=False)
    get_logger().setLevel(logging.NOTSET)


@pytest.mark.parametrize("path", PATHS)
def test_inner_paths(path: str) -> None:
    """Inner import paths give the public names, or raise ImportError."""
    module = import_module(f"agentbay.{path}")
    for name in PATHS[path].split():
        assert getattr(module, name) is getattr(agentbay, name)
    with pytest.raises(AttributeError):
        module.NoSuchName  # noqa: B018


def test_every_older_path_is_tested() -> None:
    """No path of older programs is left out above."""
    root = Path(agentbay.__path__[0]) / "_older_paths"
    files = (path.relative_to(root).with_suffix("") for path in root.rglob("*.py"))
    assert {".".join(path.parts).removesuffix(".__init__") for path in files} <= {*PATHS, "__init__", "agent"}


def test_results_as_dictionaries() -> None:
    """Results can be written as JSON by their `__dict__`."""
    failure = CommandResult(error_message="no", exception=APIError("no"))
    assert json.loads(json.dumps(failure, default=vars)) == {
        "request_id": "",
        "success": False,
        "output": "",
        "error_message": "no",
        "exit_code": 0,
        "stdout": "",
        "stderr": "",
        "trace_id": "",
        "truncated": False,
        "refused_hosts": [],
    }
    assert isinstance(failure.exception, APIError)
    assert vars(Config(region_id="x"))["region_id"] == "x"
    assert vars(ContextSync("a", "/b", SyncPolicy()))["path"] == "/b"


def test_logger_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The logger writes to a file from its level on, and rotates it."""
    file = tmp_path / "agentbay.log"
    AgentBayLogger.setup("INFO", log_file=file, rotation="1 KB", retention=2)
    AgentBayLogger.setup("DEBUG", force_reinit=False)
    get_logger("mine").debug("quiet")
    get_logger("mine").info("loud")
    AgentBayLogger.get_logger().warning("louder")
    lines = file.read_text().splitlines()
    assert [line.partition("agentbay")[2] for line in lines] == [".mine loud", " louder"]
    assert [line.partition("agentbay")[2] for line in capsys.readouterr().err.splitlines()] == [".mine loud", " louder"]
    AgentBayLogger.set_level("error")
    get_logger().warning("x" * 900)
    assert file.read_text().splitlines() == lines
    AgentBayLogger.set_level("INFO")
    for _ in range(9):
        get_logger().info("x" * 900)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agentbay.log", "agentbay.log.1", "agentbay.log.2"]


def test_settings_that_are_none(tmp_path: Path) -> None:
    """An invalid level or size is refused, and changes nothing."""
    file = tmp_path / "agentbay.log"
    AgentBayLogger.setup("INFO", log_file=file, enable_console=False)
    with pytest.raises(ValueError, match="Unknown log level: 'LOUD'"):
        AgentBayLogger.setup("LOUD", log_file=tmp_path / "other")
    with pytest.raises(ValueError, match="'1 day' is not a size such as '10 MB'"):
        AgentBayLogger.setup("INFO", log_file=tmp_path / "other", rotation="1 day")
    with pytest.raises(ValueError, match="Unknown log level: 7"):
        AgentBayLogger.set_level(7)  # type: ignore[arg-type]
    get_logger().info("still here")
    assert file.read_text().endswith(" still here\n")
    assert not (tmp_path / "other").exists()
