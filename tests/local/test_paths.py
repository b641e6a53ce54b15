"""No path of a request leads out of its session or context (path traversal, TOCTOU)."""

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

from tests.local.contexts.actions import create_context, mount_item, put_file, upload_url
from tests.local.raw import Refused, Wire, embedded
from tests.local.traces import eventually

CANARY = b"what nobody in a session may read"
MOUNT = "/mnt/ctx"


@dataclass
class AttackedRuntime:
    """A runtime with an attacker, a victim, and files that must stay unchanged."""

    wire: Wire
    outside: Path
    state: Path
    session: str
    context: str
    foreign: list[str]  # places that belong to others, as the host names them
    secrets: list[bytes]

    def protected_files(self) -> dict[str, bytes]:
        """Return the contents of all files that no request may change."""
        own = {*self.outside.iterdir(), *(self.state / name for name in ("secret-objects", "lock"))}
        others = [Path(place) for place in self.foreign]
        mode = oct(self.outside.stat().st_mode).encode()
        return {"mode": mode, **{str(path): path.read_bytes() for path in (*own, *others)}}

    def state_names(self) -> set[str]:
        """Return the names in the state directory."""
        top = [path.name for path in self.state.iterdir() if not path.name.startswith(("sessions.db", "contexts.db"))]
        shared = [path.name for name in ("sessions", "contexts") for path in (self.state / name).iterdir()]
        return {name for name in (*top, *shared) if not name.startswith("contexts.db")}

    def reveals_secret(self, answer: bytes) -> bool:
        return any(secret in answer for secret in self.secrets)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttackedRuntime]:
    outside, state = tmp_path_factory.mktemp("outside"), tmp_path_factory.mktemp("state")
    outside.chmod(0o777)
    (outside / "secret").write_bytes(CANARY)
    with embedded(state) as (child, wire):
        other, others = wire.create(), create_context(wire)
        wire.text(other, "write_file", path="secret", content=CANARY.decode())
        put_file(wire, others, f"{MOUNT}/secret", CANARY)
        context = create_context(wire)
        put_file(wire, context, f"{MOUNT}/inside", b"harmless")
        session = wire.create(PersistenceDataList=[mount_item(context, MOUNT)])
        for place in "~", MOUNT:
            wire.stdout(
                session, f"cd {place} && ln -s / top && ln -s ../../../../.. up && ln -s {outside} out && mkdir d"
            )
        foreign = [str(path) for path in state.rglob("secret") if path.read_bytes() == CANARY]
        assert len(foreign) == 2
        secrets = [CANARY, (state / "secret-objects").read_bytes().strip()]
        yield AttackedRuntime(wire, outside, state, session, context, foreign, secrets)
        assert child.close_stdin() == 0
        complaints = child.standard_error()
        assert "Traceback" not in complaints, complaints


STEPS = ["..", "..", ".", "", "top", "up", "out", "d", "~", "secret", "inside", "proc/1/root", "proc/self/root",
         "proc/self/cwd", "é", "\udcff", "\0", "x" * 300, "%2e%2e", "..\\..", "\n"]  # fmt: skip
STARTS = ["", "/", "//", "~/", "../" * 12, "/proc/1/root/", "/proc/self/root/", f"{MOUNT}/", f"{MOUNT}/up/", "top/"]


@st.composite
def paths(draw: st.DrawFn) -> str:
    """Return a path, in which {0}.. stand for paths of the host."""
    steps = draw(st.lists(st.one_of(st.sampled_from(STEPS), st.text(max_size=5)), max_size=6))
    end = draw(st.sampled_from(["", "/secret", "/planted", *(f"{{{place}}}" for place in range(4))]))
    return draw(st.sampled_from(STARTS)) + "/".join(steps).replace("{", "").replace("}", "") + end


def fill_in(path: str, runtime: AttackedRuntime) -> str:
    """Return the path with the paths of the host filled in."""
    places = [str(runtime.outside / "secret"), str(runtime.outside / "planted"), *runtime.foreign]
    for number, place in enumerate(places):
        path = path.replace(f"{{{number}}}", place)
    return path


def call_action(runtime: AttackedRuntime, action: str, **fields: Any) -> bytes:
    """Return the answer to an action, which must not be an internal error."""
    form = {"Authorization": f"Bearer {runtime.wire.key}", "SessionId": runtime.session, "ContextId": runtime.context}
    form |= {name: json.dumps(value) if isinstance(value, dict) else value for name, value in fields.items()}
    encoded = {name: value.encode("utf-8", "surrogateescape") for name, value in form.items()}
    answer = runtime.wire.http.post("/", params={"Action": action}, data=encoded)
    assert answer.status_code < 500, answer.text
    return answer.content


@settings(max_examples=60)
@given(path=paths(), target=paths())
def test_file_tools(runtime: AttackedRuntime, path: str, target: str):
    """No file tool reaches files of the host, or of another session or context."""
    path, target = fill_in(path, runtime), fill_in(target, runtime)
    before, names_before = runtime.protected_files(), runtime.state_names()
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
        assert not runtime.reveals_secret(call_action(runtime, "CallMcpTool", Name=name, Args=args))
    assert runtime.protected_files() == before
    assert runtime.state_names() == names_before


@settings(max_examples=60)
@given(path=paths())
def test_files_of_contexts(runtime: AttackedRuntime, path: str):
    """No key, presigned URL or link of a context leads out of it."""
    path = fill_in(path, runtime)
    before, names_before = runtime.protected_files(), runtime.state_names()
    for action in ("GetContextFileDownloadUrl", "GetContextFileUploadUrl"):
        answer = json.loads(call_action(runtime, action, FilePath=path))
        if url := (answer.get("Data") or {}).get("Url"):
            for method, content in (("GET", None), ("HEAD", None), ("PUT", b"planted")):
                reply = runtime.wire.http.request(method, url, content=content)
                assert reply.status_code < 500, reply.text
                assert not runtime.reveals_secret(reply.content)
    listed = call_action(runtime, "DescribeContextFiles", ParentFolderPath=path, PageNumber="1", PageSize="100")
    assert not runtime.reveals_secret(listed)
    assert not runtime.reveals_secret(call_action(runtime, "DeleteContextFile", FilePath=path))
    call_action(runtime, "SyncContext", Path=path)
    assert runtime.protected_files() == before
    assert runtime.state_names() == names_before


def test_links_swapped_in_a_race(runtime: AttackedRuntime):
    """No action follows a link that a session exchanges with a directory.

    A naive reader on the host shows that the link would lead there.
    """
    wire, context = runtime.wire, runtime.context
    swap = (
        f"cd {MOUNT} && mkdir -p real && echo harmless > real/secret && ln -sfn {runtime.outside} link && "
        "python3 -c 'import ctypes, os\n"
        "libc, here = ctypes.CDLL(None), -100\n"
        'while True: libc.renameat2(here, b"real", here, b"link", 2)\' >/dev/null 2>&1 &'
    )
    wire.stdout(runtime.session, swap)
    (real,) = (runtime.state / "contexts" / context).rglob("real")
    naive = set()

    def read_naively() -> bool:
        with contextlib.suppress(OSError):
            naive.add((real / "secret").read_bytes())
        return naive >= {CANARY, b"harmless\n"}

    assert eventually(read_naively)
    before, stop, seen = runtime.protected_files(), threading.Event(), set()

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
        (act, {"action": "CallMcpTool", "SessionId": runtime.session, "Name": "read_file",
               "Args": {"path": f"{MOUNT}/real/secret"}}),
    ]  # fmt: skip
    threads = [threading.Thread(target=target, kwargs=kwargs) for target, kwargs in work]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline or len(seen) < 2:
            assert any(thread.is_alive() for thread in threads)
            assert runtime.protected_files() == before
            time.sleep(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not any(runtime.reveals_secret(answer) for answer in seen)
    assert runtime.protected_files() == before
    assert [path.name for path in runtime.outside.iterdir()] == ["secret"]
