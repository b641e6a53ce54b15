"""No path of a request reaches outside of its session or context, whatever it is and whatever changes meanwhile."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tests.local.contexts.store import made, mount, put, upload_url
from tests.local.raw import Refused, Wire, embedded
from tests.local.traces import eventually

CANARY = b"what nobody in a session may read"
MOUNT = "/mnt/ctx"


@dataclass
class Ground:
    """A runtime with two sessions and two contexts, a file beside its state, and what must stay as it is."""

    wire: Wire
    outside: Path
    state: Path
    session: str
    context: str
    foreign: list[str]  # places that belong to others, as the host names them
    secrets: list[bytes]

    def kept(self) -> dict[str, bytes]:
        """All that no request may change: the files outside, and what the runtime keeps for itself or for others."""
        own = {*self.outside.iterdir(), *(self.state / name for name in ("secret-objects", "lock"))}
        others = [Path(place) for place in self.foreign]
        mode = oct(self.outside.stat().st_mode).encode()
        return {"mode": mode, **{str(path): path.read_bytes() for path in (*own, *others)}}

    def strangers(self) -> set[str]:
        """What lies in the state directory, but for what belongs to this session and this context."""
        top = [path.name for path in self.state.iterdir() if not path.name.startswith(("sessions.db", "contexts.db"))]
        shared = [path.name for name in ("sessions", "contexts") for path in (self.state / name).iterdir()]
        return {name for name in (*top, *shared) if not name.startswith("contexts.db")}

    def betrays(self, answer: bytes) -> bool:
        return any(secret in answer for secret in self.secrets)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    outside, state = tmp_path_factory.mktemp("outside"), tmp_path_factory.mktemp("state")
    outside.chmod(0o777)
    (outside / "secret").write_bytes(CANARY)
    with embedded(state) as (child, wire):
        other, others = wire.create(), made(wire)
        wire.text(other, "write_file", path="secret", content=CANARY.decode())
        put(wire, others, f"{MOUNT}/secret", CANARY)
        context = made(wire)
        put(wire, context, f"{MOUNT}/inside", b"harmless")
        session = wire.create(PersistenceDataList=[mount(context, MOUNT)])
        for place in "~", MOUNT:
            wire.stdout(
                session, f"cd {place} && ln -s / top && ln -s ../../../../.. up && ln -s {outside} out && mkdir d"
            )
        foreign = [str(path) for path in state.rglob("secret") if path.read_bytes() == CANARY]
        assert len(foreign) == 2
        secrets = [CANARY, (state / "secret-objects").read_bytes().strip()]
        yield Ground(wire, outside, state, session, context, foreign, secrets)
        assert child.close_stdin() == 0
        complaints = child.standard_error()
        assert "Traceback" not in complaints, complaints


STEPS = ["..", "..", ".", "", "top", "up", "out", "d", "~", "secret", "inside", "proc/1/root", "proc/self/root",
         "proc/self/cwd", "é", "\udcff", "\0", "x" * 300, "%2e%2e", "..\\..", "\n"]  # fmt: skip
STARTS = ["", "/", "//", "~/", "../" * 12, "/proc/1/root/", "/proc/self/root/", f"{MOUNT}/", f"{MOUNT}/up/", "top/"]


@st.composite
def paths(draw: st.DrawFn) -> str:
    """A path: a start, some steps, and where it may be meant to arrive; {0}.. stand for places of the host."""
    steps = draw(st.lists(st.one_of(st.sampled_from(STEPS), st.text(max_size=5)), max_size=6))
    end = draw(st.sampled_from(["", "/secret", "/planted", *(f"{{{place}}}" for place in range(4))]))
    return draw(st.sampled_from(STARTS)) + "/".join(steps).replace("{", "").replace("}", "") + end


def aimed(path: str, ground: Ground) -> str:
    """The path with the places of the host filled in."""
    places = [str(ground.outside / "secret"), str(ground.outside / "planted"), *ground.foreign]
    for number, place in enumerate(places):
        path = path.replace(f"{{{number}}}", place)
    return path


def asked(ground: Ground, action: str, **fields: Any) -> bytes:
    """What is answered, a refusal too; an answer there must be."""
    form = {"Authorization": f"Bearer {ground.wire.key}", "SessionId": ground.session, "ContextId": ground.context}
    form |= {name: json.dumps(value) if isinstance(value, dict) else value for name, value in fields.items()}
    encoded = {name: value.encode("utf-8", "surrogateescape") for name, value in form.items()}
    answer = ground.wire.http.post("/", params={"Action": action}, data=encoded)
    assert answer.status_code < 500, answer.text
    return answer.content


@settings(max_examples=60)
@given(path=paths(), target=paths())
def test_file_tools(ground: Ground, path: str, target: str):
    """No file tool reads, lists, changes, moves or removes what is the host's or another session's or context's."""
    path, target = aimed(path, ground), aimed(target, ground)
    before, strangers = ground.kept(), ground.strangers()
    for name, args in (
        ("read_file", {"path": path}),
        ("read_multiple_files", {"paths": [path, target]}),
        ("get_file_info", {"path": path}),
        ("list_directory", {"path": path}),
        ("search_files", {"path": path, "pattern": "*secret*"}),
        ("write_file", {"path": path, "content": "planted"}),
        ("edit_file", {"path": path, "edits": [{"oldText": "what", "newText": "planted"}]}),
        ("create_directory", {"path": target}),
        ("move_file", {"source": path, "destination": target}),
        ("delete_file", {"path": target}),
    ):
        if name == "delete_file" and target.strip("/.~\0 ") in ("", "home/wuying"):
            continue
        assert not ground.betrays(asked(ground, "CallMcpTool", Name=name, Args=args))
    assert ground.kept() == before
    assert ground.strangers() == strangers


@settings(max_examples=60)
@given(path=paths())
def test_files_of_contexts(ground: Ground, path: str):
    """No key of a context, and no URL made for one, leads out of it; links in it that sessions have made neither."""
    path = aimed(path, ground)
    before, strangers = ground.kept(), ground.strangers()
    for action in ("GetContextFileDownloadUrl", "GetContextFileUploadUrl"):
        answer = json.loads(asked(ground, action, FilePath=path))
        if url := (answer.get("Data") or {}).get("Url"):
            for method, content in (("GET", None), ("HEAD", None), ("PUT", b"planted")):
                reply = ground.wire.http.request(method, url, content=content)
                assert reply.status_code < 500, reply.text
                assert not ground.betrays(reply.content)
    listed = asked(ground, "DescribeContextFiles", ParentFolderPath=path, PageNumber="1", PageSize="100")
    assert not ground.betrays(listed)
    assert not ground.betrays(asked(ground, "DeleteContextFile", FilePath=path))
    asked(ground, "SyncContext", Path=path)
    assert ground.kept() == before
    assert ground.strangers() == strangers


def test_links_swapped_in_a_race(ground: Ground):
    """While a session swaps a directory for a link to the host's, nothing goes through: not in, not out, not away.

    That the link would lead there is shown by reading as a program of the host would that does not look.
    """
    wire, context = ground.wire, ground.context
    swap = (
        f"cd {MOUNT} && mkdir -p real && echo harmless > real/secret && ln -sfn {ground.outside} link && "
        "python3 -c 'import ctypes, os\n"
        "libc, here = ctypes.CDLL(None), -100\n"
        'while True: libc.renameat2(here, b"real", here, b"link", 2)\' >/dev/null 2>&1 &'
    )
    wire.stdout(ground.session, swap)
    (real,) = (ground.state / "contexts" / context).rglob("real")
    naive = set()

    def read_naively() -> bool:
        with contextlib.suppress(OSError):
            naive.add((real / "secret").read_bytes())
        return naive >= {CANARY, b"harmless\n"}

    assert eventually(read_naively)
    before, stop, seen = ground.kept(), threading.Event(), set()

    def download() -> None:
        with Wire(wire.url).http as http:
            url = wire.data("GetContextFileDownloadUrl", ContextId=context, FilePath=f"{MOUNT}/real/secret")["Url"]
            while not stop.is_set():
                seen.add(http.get(url).content)

    def upload() -> None:
        with Wire(wire.url).http as http:
            url = upload_url(wire, context, f"{MOUNT}/real/planted")
            while not stop.is_set():
                http.put(url, content=b"planted")

    def act(action: str, **fields: Any) -> None:
        other = Wire(wire.url)
        with other.http:
            while not stop.is_set():
                with contextlib.suppress(Refused):
                    seen.add(json.dumps(other.data(action, **fields)).encode())

    listing = {"ContextId": context, "ParentFolderPath": f"{MOUNT}/real", "PageNumber": "1", "PageSize": "100"}
    work: list[tuple[Any, dict[str, Any]]] = [
        (download, {}),
        (upload, {}),
        (act, {"action": "DescribeContextFiles", **listing}),
        (act, {"action": "DeleteContextFile", "ContextId": context, "FilePath": f"{MOUNT}/real/secret"}),
        (act, {"action": "CallMcpTool", "SessionId": ground.session, "Name": "read_file",
               "Args": {"path": f"{MOUNT}/real/secret"}}),
    ]  # fmt: skip
    threads = [threading.Thread(target=target, kwargs=kwargs) for target, kwargs in work]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline or len(seen) < 2:
            assert any(thread.is_alive() for thread in threads)
            assert ground.kept() == before
            time.sleep(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not any(ground.betrays(answer) for answer in seen)
    assert ground.kept() == before
    assert [path.name for path in ground.outside.iterdir()] == ["secret"]
