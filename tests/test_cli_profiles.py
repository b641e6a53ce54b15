"""`agentbay login` and profiles: where keys are kept, who gets them, and that nobody sees them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentbay import AgentBay, Config, ConfigurationError
from agentbay._profiles import Profile, ProfileFile
from agentbay.testing import LocalRuntime

if sys.platform != "linux":
    pytest.skip("the local runtime needs Linux", allow_module_level=True)

Cli = Callable[..., subprocess.CompletedProcess[str]]
WRONG_KEY = "akm-wrong-key-that-nobody-may-see"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run the command as a user with a configuration directory of their own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTBAY_")}

    def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**kept, "XDG_CONFIG_HOME": str(tmp_path / "config"), **variables}
        command = [sys.executable, "-m", "agentbay", *arguments]
        return subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, timeout=120)

    return run


def profiles(tmp_path: Path) -> Path:
    return tmp_path / "config" / "agentbay" / "profiles.json"


def test_login(agentbay_local: LocalRuntime, cli: Cli, tmp_path: Path) -> None:
    """A key from standard input is tried, kept for its owner alone, shown nowhere, and used by commands."""
    key = agentbay_local.api_key
    done = cli("login", "mine", "--endpoint", agentbay_local.endpoint, stdin=f"{key}\n")
    assert done.returncode == 0, done.stderr
    file = profiles(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert list(file.parent.iterdir()) == [file]
    shown = [done, cli("profile", "list"), cli("profile", "list", "--json"), cli("session", "list", "--json")]
    assert all(each.returncode == 0 for each in shown)
    assert not any(key in each.stdout + each.stderr for each in shown)
    assert json.loads(shown[2].stdout) == [
        {"profile": "mine", "current": "*", "endpoint": agentbay_local.endpoint, "region": ""}
    ]


def test_a_wrong_key_is_not_kept(agentbay_local: LocalRuntime, cli: Cli, tmp_path: Path) -> None:
    """A key that the service refuses is not kept unless asked for, and in no message."""
    arguments = ("login", "--endpoint", agentbay_local.endpoint)
    refused = cli(*arguments, stdin=WRONG_KEY)
    assert refused.returncode == 1
    assert WRONG_KEY not in refused.stdout + refused.stderr
    assert not profiles(tmp_path).exists()
    assert cli(*arguments, "--no-check", stdin=WRONG_KEY).returncode == 0
    listing = cli("session", "list")
    assert listing.returncode == 1
    assert WRONG_KEY not in listing.stdout + listing.stderr
    assert cli("login", stdin="\n").returncode == 2


def test_precedence(agentbay_local: LocalRuntime, cli: Cli) -> None:
    """--profile goes before AGENTBAY_API_KEY, that before AGENTBAY_PROFILE, and that before the current profile."""
    right = ("--endpoint", agentbay_local.endpoint)
    assert cli("login", "good", *right, stdin=agentbay_local.api_key).returncode == 0
    assert cli("login", "bad", *right, "--no-check", stdin=WRONG_KEY).returncode == 0
    key, wrong = agentbay_local.environment, {**agentbay_local.environment, "AGENTBAY_API_KEY": WRONG_KEY}
    listing = ("session", "list")
    assert cli(*listing).returncode == 1  # "bad" was the last login
    assert cli(*listing, AGENTBAY_PROFILE="good").returncode == 0
    assert cli(*listing, AGENTBAY_PROFILE="bad", **key).returncode == 0
    assert cli(*listing, AGENTBAY_PROFILE="good", **wrong).returncode == 1
    assert cli("--profile", "good", *listing, **wrong).returncode == 0
    assert cli("--profile", "bad", *listing, **key).returncode == 1
    assert cli("profile", "use", "good").returncode == 0
    assert cli(*listing).returncode == 0
    assert cli("logout", "good").returncode == 0
    assert cli(*listing).returncode == 2
    unknown = cli("--profile", "good", *listing)
    assert unknown.returncode == 2
    assert "There are bad" in unknown.stderr


def test_a_key_goes_to_no_other_service(agentbay_local: LocalRuntime, cli: Cli) -> None:
    """The key of a profile is not sent to an endpoint from elsewhere."""
    assert cli("login", "--endpoint", agentbay_local.endpoint, stdin=agentbay_local.api_key).returncode == 0
    for more in ({}, {"AGENTBAY_PROFILE": "default"}):
        refused = cli("session", "list", AGENTBAY_ENDPOINT="http://127.0.0.1:1", **more)
        assert refused.returncode == 2
        assert "is not that of the profile" in refused.stderr
    assert cli("session", "list", "--endpoint", "http://127.0.0.1:1").returncode == 2
    assert cli("session", "list", "--endpoint", agentbay_local.endpoint).returncode == 0


def test_files_that_are_wrong(cli: Cli, tmp_path: Path) -> None:
    """A file that others can read, or that is no JSON, is refused without its content."""
    file = profiles(tmp_path)
    assert cli("login", "--no-check", stdin=WRONG_KEY).returncode == 0
    file.chmod(0o644)
    open_to_others = cli("session", "list")
    assert (open_to_others.returncode, "chmod 600" in open_to_others.stderr) == (2, True)
    file.chmod(0o600)
    file.write_text(f'{{"profiles": {WRONG_KEY}')
    broken = cli("profile", "list")
    assert (broken.returncode, "no JSON" in broken.stderr) == (2, True)
    assert WRONG_KEY not in broken.stderr + broken.stdout
    assert cli("login", "../x", "--no-check", stdin="k").returncode == 2


def test_programs_use_a_profile_by_name(
    agentbay_local: LocalRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`AgentBay()` uses the profile that AGENTBAY_PROFILE names, and no other one."""
    for name in ("AGENTBAY_API_KEY", "AGENTBAY_ENDPOINT", "AGENTBAY_REGION_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    ProfileFile().save("of-a-program", Profile(agentbay_local.api_key, agentbay_local.endpoint))
    with pytest.raises(ConfigurationError, match="API key is required"):
        AgentBay()
    monkeypatch.setenv("AGENTBAY_PROFILE", "of-a-program")
    with AgentBay() as bay:
        assert bay.list().success
    with AgentBay("akm-of-the-argument") as bay:
        assert bay.api_key == "akm-of-the-argument"
    monkeypatch.setenv("AGENTBAY_PROFILE", "unknown")
    with pytest.raises(ConfigurationError, match="There are of-a-program"):
        AgentBay()
    assert agentbay_local.api_key not in repr(ProfileFile().load())


def test_completion_of_profiles(cli: Cli) -> None:
    """A shell completes the names of profiles."""
    assert cli("login", "work", "--no-check", stdin="akm-x").returncode == 0
    asked = {"_AGENTBAY_COMPLETE": "complete_bash", "COMP_WORDS": "agentbay --profile wo", "COMP_CWORD": "2"}
    assert cli(**asked).stdout.split() == ["work"]
    asked = {"_AGENTBAY_COMPLETE": "complete_bash", "COMP_WORDS": "agentbay logout ", "COMP_CWORD": "2"}
    assert cli(**asked).stdout.split() == ["work"]


def test_completion_uses_the_profile(agentbay_local: LocalRuntime, cli: Cli) -> None:
    """A shell completes sessions and images of the service that the current profile names."""
    assert cli("login", "--endpoint", agentbay_local.endpoint, stdin=agentbay_local.api_key).returncode == 0
    with AgentBay(agentbay_local.api_key, Config(endpoint=agentbay_local.endpoint)) as bay, bay.session() as session:
        image = session.snapshot("of-the-profile:1")
        for words, completed in (("session get ", session.session_id), ("image inspect ", image.name)):
            asked = {"COMP_WORDS": f"agentbay {words}", "COMP_CWORD": "3"}
            assert completed in cli(_AGENTBAY_COMPLETE="complete_bash", **asked).stdout.split()
        bay.images.remove(image.name)


def test_logins_at_once(cli: Cli, tmp_path: Path) -> None:
    """No login loses the profile of another one."""
    with ThreadPoolExecutor(6) as threads:
        done = list(threads.map(lambda number: cli("login", f"p{number}", "--no-check", stdin="akm-x"), range(6)))
    assert [each.returncode for each in done] == [0] * 6
    assert sorted(ProfileFile(profiles(tmp_path)).load()) == [f"p{number}" for number in range(6)]


def test_a_linked_file_stays_linked(cli: Cli, tmp_path: Path) -> None:
    """Who keeps the file elsewhere, behind a link, finds the profile there."""
    kept, link = tmp_path / "kept.json", profiles(tmp_path)
    kept.write_text("{}")
    kept.chmod(0o600)
    link.parent.mkdir(parents=True)
    link.symlink_to(kept)
    assert cli("login", "mine", "--no-check", stdin="akm-x").returncode == 0
    assert (link.is_symlink(), "akm-x" in kept.read_text()) == (True, True)


def test_what_cannot_be_kept_or_read(cli: Cli, tmp_path: Path) -> None:
    """No login without a key that can be one, and no traceback for a file or a user that cannot be read."""
    for key in ("two words", "kö"):
        refused = cli("login", "--no-check", stdin=key)
        assert (refused.returncode, "API key" in refused.stderr, key in refused.stderr) == (2, True, False)
    assert not profiles(tmp_path).exists()
    profiles(tmp_path).parent.mkdir(parents=True)
    profiles(tmp_path).write_bytes(b"\xff\xfe{}")
    profiles(tmp_path).chmod(0o600)
    assert "no JSON" in cli("profile", "list").stderr
    homeless = (
        "import os, sys; os.environ.clear(); os.path.expanduser = str; from agentbay.cli import main; sys.exit(main())"
    )
    found = subprocess.run(
        [sys.executable, "-c", homeless, "profile", "list"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, "Set HOME" in found.stderr) == (2, True), found.stderr


def test_variables_that_go_first(cli: Cli) -> None:
    """A login says it if the shell has a variable that goes before the profile."""
    assert "AGENTBAY_API_KEY is set" in cli("login", "--no-check", stdin="akm-x", AGENTBAY_API_KEY="akm-y").stderr
    assert "AGENTBAY_PROFILE is set" in cli("profile", "use", "default", AGENTBAY_PROFILE="work").stderr
    assert "is set" not in cli("profile", "use", "default", AGENTBAY_PROFILE="default").stderr
