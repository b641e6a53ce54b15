from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.local.raw import Refused, Wire
from tests.local.traces import PATIENCE, eventually, mounts_with, names_in_home, processes_with, unique_seconds


def test_create_and_get_tell_the_same(wire: Wire):
    """GetSession returns the same connection fields as the creation."""
    made = wire.data("CreateMcpSession", Labels={"a": "b"}, ImageId="code_latest")
    found = wire.data("GetSession", SessionId=made["SessionId"])
    assert re.fullmatch(r"session-[0-9a-z]{21}", made["SessionId"])
    assert made["AppInstanceId"].startswith("ai-")
    assert made["ResourceId"].startswith("p-")
    assert f"resourceId={made['ResourceId']}" in made["ResourceUrl"]
    assert wire.key not in json.dumps(made)
    assert made["LinkUrl"].startswith(wire.url + "/link/")
    assert made["WsUrl"].startswith("ws://127.0.0.1:")
    tools = json.loads(made["ToolList"])
    assert {"name": "shell", "server": "wuying_shell"}.items() <= {item["name"]: item for item in tools}[
        "shell"
    ].items()
    for item in tools:
        assert set(item) == {"name", "server", "description", "inputSchema", "tool"}
    for name in ("SessionId", "AppInstanceId", "ResourceId", "ResourceUrl", "Token", "LinkUrl", "WsUrl", "ToolList"):
        assert made[name] == found[name] != ""
    assert found["Status"] == "RUNNING"
    assert wire.data("ListMcpTools", ImageId="linux_latest") == made["ToolList"]
    wire.data("DeleteSessionAsync", SessionId=made["SessionId"])


@pytest.mark.parametrize(
    ("image", "advice"),
    [
        ("windows_latest", "its sessions are Linux"),
        ("mobile-use-android-12", "a phone that is plugged in (mobile_latest)"),
        ("linx_latest", "did you mean 'linux_latest'?"),
        ("Code_Latest", "did you mean 'code_latest'?"),
        ("imgc-04bdw8o39c9uiwet4", "agentbay image pull"),
    ],
)
def test_images_that_cannot_be(wire: Wire, image: str, advice: str):
    """An image that this machine cannot offer is refused with the ones it can."""
    with pytest.raises(Refused, match=re.escape(advice) + r".* It has linux_latest, code_latest") as refused:
        wire.create(ImageId=image)
    assert (refused.value.status, refused.value.code) == (400, "ImageNotSupported.Local")


def test_what_is_not_offered_is_refused(wire: Wire):
    """Nothing that was asked for is silently left out."""
    for field, value, code in (
        ("NetworkId", "n", "NetworkNotSupported.Local"),
        ("LoadSkill", "True", "SkillsNotSupported.Local"),
    ):
        with pytest.raises(Refused) as refused:
            wire.create(**{field: value})
        assert refused.value.code == code


@pytest.mark.parametrize("labels", [{" ": "x"}, {"a": ""}])
def test_blank_labels(wire: Wire, session: str, labels: dict[str, str]):
    """A blank label is refused at the creation as well as later."""
    for name, fields in (("CreateMcpSession", {}), ("SetLabel", {"SessionId": session})):
        with pytest.raises(Refused, match="neither may be blank") as refused:
            wire.data(name, Labels=labels, **fields)
        assert refused.value.code == "InvalidParameter.Labels"


def test_pages(wire: Wire):
    """Pages follow the creation, and a deletion neither skips nor repeats one."""
    label = {"pages": os.urandom(4).hex()}
    made = [wire.create(Labels=label) for _ in range(5)]
    first = wire.envelope("ListSession", Labels=label, MaxResults=2)
    assert [item["SessionId"] for item in first["Data"]] == made[:2]
    assert (first["TotalCount"], first["MaxResults"]) == (5, 2)
    for session in made[0], made[1], made[2]:
        wire.data("DeleteSessionAsync", SessionId=session)
    second = wire.envelope("ListSession", Labels=label, MaxResults=1, NextToken=first["NextToken"])
    assert [item["SessionId"] for item in second["Data"]] == made[3:4]
    last = wire.envelope("ListSession", Labels=label, MaxResults=1, NextToken=second["NextToken"])
    assert [item["SessionId"] for item in last["Data"]] == made[4:]
    assert (last["NextToken"], last["TotalCount"]) == ("", 2)
    assert last["Data"][0].keys() == {"SessionId", "SessionStatus", "AppInstanceId", "ImageId"}
    for session in made[3:]:
        wire.data("DeleteSessionAsync", SessionId=session)


def test_filters(wire: Wire):
    """All labels must match exactly, and status and image too where they are given."""
    mark = os.urandom(4).hex()
    with (
        wire.session(Labels={"mark": mark, "x": "1"}, ImageId="code_latest") as one,
        wire.session(Labels={"mark": mark, "x": "2", "ü": "é"}) as two,
    ):

        def listed(**filters: object) -> list[str]:
            return [item["SessionId"] for item in wire.data("ListSession", **filters)]

        assert listed(Labels={"mark": mark}) == [one, two]
        assert listed(Labels={"mark": mark, "x": "2"}) == [two]
        assert listed(Labels={"mark": mark, "x": ""}) == []
        assert listed(Labels={"ü": "é"}) == [two]
        assert listed(Labels={"mark": mark}, ImageId="code_latest") == [one]
        wire.data("PauseSessionAsync", SessionId=two)
        assert listed(Labels={"mark": mark}, Status="PAUSED") == [two]
        assert listed(Labels={"mark": mark}, Status="RUNNING") == [one]


@pytest.mark.parametrize("fields", [{"MaxResults": 0}, {"MaxResults": 101}, {"MaxResults": "x"}, {"NextToken": "%%"}])
def test_malformed_pages(wire: Wire, fields: dict[str, object]):
    """A page that cannot be is refused."""
    with pytest.raises(Refused) as refused:
        wire.data("ListSession", **fields)
    assert (refused.value.status, refused.value.code) == (400, "InvalidParameter")


def test_labels(wire: Wire, session: str):
    """SetLabel replaces all labels, and GetLabel gives them as JSON text."""
    assert json.loads(wire.data("GetLabel", SessionId=session)["Labels"]) == {}
    wire.data("SetLabel", SessionId=session, Labels={"a": "1", "b": "ü"})
    wire.data("SetLabel", SessionId=session, Labels={"b": "2"})
    assert json.loads(wire.data("GetLabel", SessionId=session)["Labels"]) == {"b": "2"}


def test_isolation(wire: Wire):
    """Two sessions share no files, processes or ports, and see no host."""
    with wire.session() as one, wire.session() as two:
        wire.stdout(one, "echo secret | tee ~/file /tmp/file; nohup sleep 4321 >/dev/null 2>&1 &")
        assert wire.stdout(one, "pwd; id -un; cat /tmp/file") == "/home/wuying\nwuying\nsecret\n"
        assert wire.sh(two, "cat ~/file /tmp/file")["exit_code"] == 1
        assert "4321" not in wire.stdout(two, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert wire.stdout(two, "ls /root /home") == f"/home:\n{names_in_home()}\n\n/root:\n"
        port = wire.url.rpartition(":")[2]
        assert wire.sh(two, f"bash -c '</dev/tcp/127.0.0.1/{port}'")["exit_code"] == 1


def test_pause_and_resume(wire: Wire, session: str, state_dir: Path):
    """A paused session refuses work, and continues after the resumption."""
    wire.stdout(session, "(while :; do echo x >> count; sleep 0.01; done) >/dev/null 2>&1 &")
    count = state_dir / "sessions" / session / "home" / "count"
    assert eventually(lambda: count.exists() and count.stat().st_size > 5)
    wire.data("PauseSessionAsync", SessionId=session)
    assert wire.data("GetSession", SessionId=session)["Status"] == wire.status(session) == "PAUSED"
    with pytest.raises(Refused) as refused:
        wire.sh(session, "true")
    assert (refused.value.status, refused.value.code) == (400, "IncorrectStatus.Session")
    with pytest.raises(Refused) as refused:
        wire.data("PauseSessionAsync", SessionId=session)
    assert refused.value.code == "IncorrectStatus.Session"
    before = count.stat().st_size
    time.sleep(0.3)
    assert count.stat().st_size == before
    wire.data("ResumeSessionAsync", SessionId=session)
    assert wire.status(session) == "RUNNING"
    assert eventually(lambda: count.stat().st_size > before)
    with pytest.raises(Refused):
        wire.data("ResumeSessionAsync", SessionId=session)


def test_pause_during_a_command(wire: Wire, session: str, state_dir: Path):
    """A pause does not count against the time limit of a command."""
    home = state_dir / "sessions" / session / "home"
    with ThreadPoolExecutor(1) as pool:
        script = "echo a; touch begun; until [ -e over ]; do sleep 0.05; done; echo b"
        running = pool.submit(wire.sh, session, script, timeout_ms=5000)
        assert eventually((home / "begun").exists)
        other = Wire(wire.url)
        with other.http:
            other.data("PauseSessionAsync", SessionId=session)
            time.sleep(5.5)
            assert not running.done()
            (home / "over").touch()
            other.data("ResumeSessionAsync", SessionId=session)
        assert running.result()["stdout"] == "a\nb\n"


@pytest.mark.parametrize("paused", [False, True])
def test_delete_leaves_nothing(wire: Wire, state_dir: Path, paused: bool):
    """A deletion leaves no process, mount or file."""
    marker = unique_seconds()
    session = wire.create()
    wire.stdout(session, f"mkdir -p a/b && chmod 0 a; touch /tmp/x; setsid sleep {marker} >/dev/null 2>&1 &")
    assert eventually(lambda: len(processes_with(marker)) == 1)
    assert mounts_with(session)
    if paused:
        wire.data("PauseSessionAsync", SessionId=session)
    wire.data("DeleteSessionAsync", SessionId=session)
    assert eventually(lambda: wire.status(session) == "FINISH")
    assert processes_with(marker) == []
    assert mounts_with(session) == []
    # what is out of sight at once may be erased a moment later; os.walk does not mind that
    assert eventually(lambda: not any(session in str(names) for names in os.walk(state_dir)))
    for action in ("GetSession", "DeleteSessionAsync", "PauseSessionAsync", "GetLabel", "RefreshSessionIdleTime"):
        with pytest.raises(Refused) as refused:
            wire.data(action, SessionId=session)
        assert (refused.value.status, refused.value.code) == (400, "InvalidMcpSession.NotFound")
    assert session not in json.dumps(wire.data("ListSession", MaxResults=100))
    assert wire.status(session) == "FINISH"


def test_two_deletions_at_once(wire: Wire):
    """Of deletions that race one succeeds, and the others find no session."""
    session = wire.create()

    def delete(_: int) -> bool:
        other = Wire(wire.url)
        with other.http:
            try:
                other.data("DeleteSessionAsync", SessionId=session)
            except Refused as refused:
                return refused.code != "InvalidMcpSession.NotFound"
            return True

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(delete, range(8))) == [False] * 7 + [True]


def test_deletion_during_a_command(wire: Wire):
    """A command whose session is deleted does not keep its client waiting."""
    session = wire.create()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(wire.sh, session, "sleep 600", timeout_ms=600_000)
        time.sleep(0.2)
        other = Wire(wire.url)
        with other.http:
            other.data("DeleteSessionAsync", SessionId=session)
        with pytest.raises(Refused) as refused:
            running.result(PATIENCE)
    assert refused.value.code == "InvalidMcpSession.NotFound"


def test_transitions_in_a_storm(wire: Wire):
    """Among simultaneous pauses, resumptions and commands, a deletion wins."""
    session = wire.create()
    stop = threading.Event()
    codes: set[str] = set()

    def disturb(action: str) -> None:
        other = Wire(wire.url)
        with other.http:
            while not stop.is_set():
                try:
                    other.sh(session, "true") if action == "shell" else other.data(action, SessionId=session)
                except Refused as refused:
                    codes.add(refused.code)

    with ThreadPoolExecutor(4) as pool:
        actions = ["PauseSessionAsync", "ResumeSessionAsync", "shell", "ResumeSessionAsync"]
        disturbing = [pool.submit(disturb, action) for action in actions]
        time.sleep(0.7)
        wire.data("DeleteSessionAsync", SessionId=session)
        assert eventually(lambda: wire.status(session) == "FINISH")
        stop.set()
        for done in disturbing:
            done.result(PATIENCE)
    assert codes <= {"IncorrectStatus.Session", "InvalidMcpSession.NotFound"}


def test_death_of_a_session(wire: Wire):
    """A session whose first process is killed from outside is ended, and says why."""
    marker = unique_seconds()
    session = wire.create()
    wire.stdout(session, f"setsid sleep {marker} >/dev/null 2>&1 &")
    assert eventually(lambda: len(processes_with(marker)) == 1)
    status = Path(f"/proc/{processes_with(marker)[0]}/status").read_text()
    os.kill(int(re.search(r"PPid:\s+(\d+)", status)[1]), signal.SIGKILL)  # type: ignore[index]
    assert eventually(lambda: wire.status(session) == "FINISH")
    assert "died" in wire.data("GetSessionDetail", SessionId=session)["EndReason"]


def test_idle_release(wire: Wire):
    """An idle session expires, and only commands and keep-alives prevent it."""
    idle, kept = wire.create(Timeout=3), wire.create(Timeout=3)
    while wire.status(idle) != "FINISH":
        wire.data("RefreshSessionIdleTime", SessionId=kept)
        time.sleep(0.1)
    wire.sh(kept, "sleep 3.5")
    assert wire.status(kept) == "RUNNING"
    assert eventually(lambda: wire.status(kept) == "FINISH")
    for timeout in 0, -1, "x":
        with pytest.raises(Refused):
            wire.create(Timeout=timeout)
