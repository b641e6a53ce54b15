from __future__ import annotations

import io
import json
import stat
import time
import zipfile
from typing import Any

import pytest

from tests.local.contexts.actions import (
    context_files,
    create_context,
    delete_and_wait,
    get_file,
    put_file,
    session_files,
    sync_and_check,
    sync_item,
    transfer_statuses,
    wait_for_transfers,
)
from tests.local.contexts.storage import Storage
from tests.local.raw import Wire
from tests.local.traces import eventually

TOP = "/tmp/data"


def zip_of(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def run_in_next_session(wire: Wire, listed: dict[str, Any], command: str = "") -> dict[str, str]:
    """Run a command in a new session, and return the files it then has."""
    with wire.session(PersistenceDataList=[listed]) as session:
        assert {one["status"] for one in wait_for_transfers(wire, session)} == {"Success"}
        if command:
            wire.stdout(session, command)
        found = session_files(wire, session, listed["Path"])
        delete_and_wait(wire, session)
        return found


@pytest.mark.parametrize("top", [TOP, "/home/wuying/data", "/home/wuying", "/data/deep/er", "/mnt/x", "/workspace"])
def test_from_session_to_session(wire: Wire, top: str):
    """The next session gets content, modes, times, links and empty directories."""
    context = create_context(wire)
    program = f"""
        mkdir -p {top}/sub/empty && cd {top} && echo hello > a.txt && echo run > sub/run.sh && chmod 750 sub/run.sh
        touch -d @1000000000.5 a.txt; ln -s a.txt link; ln -s /etc/passwd out; ln -s ../.. up; mkfifo pipe
        printf x > 'odd name
        ü'; printf y > "$(printf 'no\\377utf8')"
    """
    run_in_next_session(wire, sync_item(context, top), program)
    with wire.session(PersistenceDataList=[sync_item(context, top)]) as session:
        wait_for_transfers(wire, session)
        shown = wire.stdout(
            session, f"cd {top} && cat a.txt sub/run.sh && stat -c '%a %Y %n' a.txt sub/run.sh && readlink link"
        )
        assert shown.startswith("hello\nrun\n644 1000000000 a.txt\n750 ")
        assert shown.endswith("\na.txt\n")
        assert (
            wire.stdout(session, f"cd {top} && ls -d sub/empty && ls | wc -l; ls out up pipe 2>/dev/null; true")
            == "sub/empty\n6\n"
        )  # one of the names has two lines
    assert get_file(wire, context, f"{top}/a.txt") == b"hello\n"
    assert get_file(wire, context, f"{top}/link") is None


def test_transfer_statuses(wire: Wire):
    """Each transfer has a status, under the path as the client gave it."""
    context = create_context(wire)
    put_file(wire, context, f"{TOP}/f", b"1")
    unknown = sync_item("SdkCtx-made-up", "/tmp/other")
    with wire.session(PersistenceDataList=[sync_item(context, TOP), unknown]) as session:
        first = {one["contextId"]: one for one in wait_for_transfers(wire, session)}
        assert (
            first[context].items()
            >= {"path": TOP, "status": "Success", "taskType": "download", "errorMessage": ""}.items()
        )
        assert 0 < first[context]["startTime"] <= first[context]["finishTime"] <= time.time() + 1
        assert first["SdkCtx-made-up"]["status"] == "Failed"
        assert "SdkCtx-made-up" in first["SdkCtx-made-up"]["errorMessage"]
        wire.data("SyncContext", SessionId=session, ContextId=context, Path=f"{TOP}/f", Mode="upload")
        [one] = wait_for_transfers(wire, session, ContextId=context, Path=f"{TOP}/f")
        assert (one["path"], one["taskType"], one["status"]) == (f"{TOP}/f", "upload", "Success")
        wire.data("SyncContext", SessionId=session, ContextId=context, Path="/elsewhere")
        [one] = transfer_statuses(wire, session, ContextId=context, Path="/elsewhere")
        assert (one["status"], one["taskType"]) == ("Failed", "upload")
        wire.data("SyncContext", SessionId=session, ContextId="c", Path="/elsewhere", Mode="download")
        [one] = transfer_statuses(wire, session, ContextId="c")
        assert (one["status"], one["taskType"]) == ("Failed", "download")
        wire.data("SyncContext", SessionId=session, ContextId=context, Path=f"{TOP}/none", Mode="download")
        [one] = wait_for_transfers(wire, session, ContextId=context, Path=f"{TOP}/none")
        assert (one["status"], "no file" in one["errorMessage"]) == ("Failed", True)


def test_sync_up_and_down(wire: Wire):
    """A sync uploads everything, or one path, and downloads what others changed."""
    one, two = create_context(wire), create_context(wire)
    listed = [sync_item(one, "/tmp/one"), sync_item(two, "/tmp/two")]
    with wire.session(PersistenceDataList=listed) as session:
        wire.stdout(
            session, "mkdir -p /tmp/one /tmp/two; echo 1 > /tmp/one/f; echo 2 > /tmp/two/f; echo 3 > /tmp/two/g"
        )
        sync_and_check(wire, session, ContextId=two, Path="/tmp/two/f")
        assert (context_files(wire, one, "/"), context_files(wire, two, "/")) == ({}, {"tmp/two/f": b"2\n"})
        sync_and_check(wire, session)
        assert (context_files(wire, one, "/"), len(context_files(wire, two, "/"))) == ({"tmp/one/f": b"1\n"}, 2)
        put_file(wire, one, "/tmp/one/f", b"new")
        put_file(wire, one, "/tmp/one/h", b"h")
        sync_and_check(wire, session, ContextId=one, Mode="download")
        assert session_files(wire, session, "/tmp/one") == {"f": "new", "h": "h"}


def test_transfers_switched_off(wire: Wire):
    """Without autoDownload and autoUpload, only SyncContext transfers files."""
    context = create_context(wire)
    put_file(wire, context, f"{TOP}/f", b"1")
    by_hand = sync_item(context, TOP, uploadPolicy={"autoUpload": False}, downloadPolicy={"autoDownload": False})
    with wire.session(PersistenceDataList=[by_hand]) as session:
        assert [one["status"] for one in wait_for_transfers(wire, session)] == ["Success"]
        wire.stdout(session, f"mkdir -p {TOP}; ls {TOP}; echo 2 > {TOP}/g")
        assert session_files(wire, session, TOP) == {"g": "2\n"}
        delete_and_wait(wire, session)
    assert context_files(wire, context, TOP) == {"f": b"1"}
    with wire.session(PersistenceDataList=[by_hand]) as session:
        sync_and_check(wire, session, Mode="download")
        wire.stdout(session, f"echo 3 > {TOP}/g")
        sync_and_check(wire, session, Mode="upload")
    assert context_files(wire, context, TOP) == {"f": b"1", "g": b"3\n"}


@pytest.mark.parametrize(("deletes", "left"), [(True, {"b": b"b"}), (False, {"a": b"a", "b": b"b", "d/c": b"c"})])
def test_deletions(wire: Wire, *, deletes: bool, left: dict[str, bytes]):
    """Deletions reach the context, unless the policy says otherwise."""
    context = create_context(wire)
    for name in ("a", "b", "d/c"):
        put_file(wire, context, f"{TOP}/{name}", name[-1:].encode())
    run_in_next_session(wire, sync_item(context, TOP, deletePolicy={"syncLocalFile": deletes}), f"cd {TOP}; rm -r a d")
    assert context_files(wire, context, TOP) == left


WHITE = {"path": "", "excludePaths": [], "isPathRegex": False, "isExcludeRegex": False}


@pytest.mark.parametrize(
    ("white_lists", "chosen"),
    [
        ([], "a.txt src/x.py src/lib/y.py src/node_modules/z project-1/f project-1/record1/g project-2/h"),
        ([{"path": ""}], "a.txt src/x.py src/lib/y.py src/node_modules/z project-1/f project-1/record1/g project-2/h"),
        ([{"path": "/src", "excludePaths": ["/node_modules"]}], "src/x.py src/lib/y.py"),
        ([{"path": "src/lib"}, {"path": "/a.txt"}], "a.txt src/lib/y.py"),
        ([{"path": "", "excludePaths": ["src"]}], "a.txt project-1/f project-1/record1/g project-2/h"),
        ([{"path": "project-.*", "isPathRegex": True}], "project-1/f project-1/record1/g project-2/h"),
        (
            [{"path": "project-.*", "isPathRegex": True, "excludePaths": ["record.*"], "isExcludeRegex": True}],
            "project-1/f project-2/h",
        ),
        ([{"path": r".*\.py", "isPathRegex": True}], "src/x.py src/lib/y.py"),
        (
            [{"path": "/tmp/data/project-.", "isPathRegex": True, "excludePaths": ["f"]}],
            "project-1/record1/g project-2/h",
        ),
        ([{"path": "", "excludePaths": [r".*\.py", "pro.*"], "isExcludeRegex": True}], "a.txt src/node_modules/z"),
        ([{"path": "sr"}], ""),
    ],
)
def test_white_lists(wire: Wire, white_lists: list[dict[str, Any]], chosen: str):
    """White lists select the same files for upload and download."""
    context, other = create_context(wire), create_context(wire)
    every = "a.txt src/x.py src/lib/y.py src/node_modules/z project-1/f project-1/record1/g project-2/h"
    lists = [{**WHITE, **white} for white in white_lists]
    make = f"mkdir -p {TOP} && cd {TOP} && for f in {every}; do mkdir -p $(dirname $f); echo $f > $f; done"
    run_in_next_session(wire, sync_item(context, TOP, bwList={"whiteLists": lists}), make)
    assert sorted(context_files(wire, context, TOP)) == sorted(chosen.split())
    run_in_next_session(wire, sync_item(other, TOP), make)
    assert sorted(
        run_in_next_session(wire, sync_item(other, TOP, bwList={"whiteLists": lists}), f"mkdir -p {TOP}")
    ) == sorted(chosen.split())
    assert sorted(context_files(wire, other, TOP)) == sorted(every.split())


ARCHIVE = {"uploadMode": "Archive"}


def test_archive(wire: Wire):
    """Mode Archive keeps one archive and single files, and restores all of them."""
    context = create_context(wire)
    listed = sync_item(context, TOP, uploadPolicy={**ARCHIVE, "archiveExcludePaths": ["output/", "config.json"]})
    make = (
        f"mkdir -p {TOP}/a {TOP}/output && cd {TOP} && echo 1 > a/f && echo 2 > run && chmod 755 run && "
        "echo 3 > output/o && echo 4 > config.json"
    )
    run_in_next_session(wire, listed, make)
    kept = context_files(wire, context, TOP)
    assert set(kept) == {"data.zip", "output/o", "config.json"}
    with zipfile.ZipFile(io.BytesIO(kept["data.zip"])) as archive:
        assert sorted(archive.namelist()) == ["a/f", "run"]
        assert stat.S_IMODE(archive.getinfo("run").external_attr >> 16) == 0o755
    everything = {"a/f": "1\n", "run": "2\n", "output/o": "3\n", "config.json": "4\n"}
    assert run_in_next_session(wire, listed, f"cd {TOP}; [ -x run ] && rm a/f && echo 5 > b") == {
        "run": "2\n", "b": "5\n", "output/o": "3\n", "config.json": "4\n",
    }  # fmt: skip
    assert run_in_next_session(wire, listed, f"cd {TOP}; mkdir -p a; echo 1 > a/f; rm b") == everything
    # back to single files
    assert run_in_next_session(wire, sync_item(context, TOP, uploadPolicy={"uploadMode": "File"})) == everything
    assert set(context_files(wire, context, TOP)) == set(everything)
    # and into the archive again
    assert run_in_next_session(wire, listed) == everything
    assert set(context_files(wire, context, TOP)) == {"data.zip", "output/o", "config.json"}


def test_archive_not_extracted(wire: Wire):
    """The extract policy decides whether an archive, its files or both arrive."""
    context = create_context(wire)
    run_in_next_session(wire, sync_item(context, TOP, uploadPolicy=ARCHIVE), f"mkdir -p {TOP}; echo 1 > {TOP}/f")
    with wire.session(
        PersistenceDataList=[
            sync_item(context, TOP, uploadPolicy={"autoUpload": False}, extractPolicy={"extract": False})
        ]
    ) as session:
        wait_for_transfers(wire, session)
        assert wire.stdout(session, f"ls {TOP}") == "data.zip\n"
    both = sync_item(context, TOP, uploadPolicy=ARCHIVE, extractPolicy={"deleteSrcFile": False})
    for _ in range(2):
        with wire.session(PersistenceDataList=[both]) as session:
            wait_for_transfers(wire, session)
            assert wire.stdout(session, f"ls {TOP}") == "data.zip\nf\n"
            delete_and_wait(wire, session)
    assert set(context_files(wire, context, TOP)) == {"data.zip"}
    with zipfile.ZipFile(io.BytesIO(context_files(wire, context, TOP)["data.zip"])) as archive:
        assert archive.namelist() == ["f"]


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        (None, {"d/x.zip"}),
        ({"extract": True}, {"d/x/in/f"}),
        ({"extract": True, "extractToCurrentFolder": True}, {"d/in/f"}),
        ({"extract": True, "deleteSrcFile": False}, {"d/x/in/f", "d/x.zip"}),
        ({"extract": False}, {"d/x.zip"}),
    ],
)
def test_archives_among_files(wire: Wire, policy: dict[str, bool] | None, found: set[str]):
    """Other archives are extracted as the policy says, and stay in the context."""
    context = create_context(wire)
    put_file(wire, context, f"{TOP}/d/x.zip", zip_of(**{"in/f": "x", "../evil": "x", "/abs": "x", "in/../../up": "x"}))
    listed = sync_item(context, TOP, **({"extractPolicy": policy} if policy else {}))
    with wire.session(PersistenceDataList=[listed]) as session:
        wait_for_transfers(wire, session)
        assert set(wire.stdout(session, f"cd {TOP}; find . -type f -printf '%P\\n'").split()) == found
        delete_and_wait(wire, session)
    assert set(context_files(wire, context, TOP)) == {"d/x.zip"}


def test_false_archive(wire: Wire):
    """A file that only has the name of an archive arrives as it is."""
    context = create_context(wire)
    put_file(wire, context, f"{TOP}/x.zip", b"no")
    assert run_in_next_session(wire, sync_item(context, TOP, extractPolicy={"extract": True})) == {"x.zip": "no"}


def test_mapping(wire: Wire):
    """A mapped path of another system is used for upload and download."""
    context = create_context(wire)
    put_file(wire, context, "C:\\Users\\Administrator\\Downloads\\a.txt", b"from windows")
    listed = sync_item(context, "/home/wuying/下载", mappingPolicy={"path": "c:\\Users\\Administrator\\Downloads"})
    assert run_in_next_session(wire, listed, "echo linux > ~/下载/b.txt") == {
        "a.txt": "from windows",
        "b.txt": "linux\n",
    }
    assert get_file(wire, context, "c:\\Users\\Administrator\\Downloads\\b.txt") == b"linux\n"


def test_recycling(wire: Wire, storage: Storage):
    """Files in the paths of a recycle policy expire."""
    context = create_context(wire)
    listed = sync_item(context, TOP, recyclePolicy={"lifecycle": "Lifecycle_3Days", "paths": ["cache", f"{TOP}/logs"]})
    run_in_next_session(
        wire, listed, f"mkdir -p {TOP}/cache {TOP}/logs; cd {TOP}; for f in cache/f logs/f keep; do echo > $f; done"
    )
    due = storage.expiry_times(context)
    assert {key: round((when - time.time()) / 86400, 1) for key, when in due.items()} == {
        f"{TOP}/cache/f": 3.0, f"{TOP}/logs/f": 3.0,
    }  # fmt: skip
    storage.expire(context, f"{TOP}/cache/f")
    assert get_file(wire, context, f"{TOP}/cache/f") is None
    assert set(context_files(wire, context, TOP)) == {"logs/f", "keep"}


def test_two_sessions_on_one_context(wire: Wire):
    """The last upload of a file wins, and unchanged files are not uploaded."""
    context = create_context(wire)
    for name in ("one", "two", "both", "gone"):
        put_file(wire, context, f"{TOP}/{name}", b"old")
    with (
        wire.session(PersistenceDataList=[sync_item(context, TOP)]) as first,
        wire.session(PersistenceDataList=[sync_item(context, TOP)]) as second,
    ):
        wait_for_transfers(wire, first)
        wait_for_transfers(wire, second)
        wire.stdout(first, f"cd {TOP}; printf first | tee one > both; rm gone; printf f > from-first")
        wire.stdout(second, f"cd {TOP}; printf second | tee two > both")
        sync_and_check(wire, second)
        delete_and_wait(wire, first)
        delete_and_wait(wire, second)
    assert context_files(wire, context, TOP) == {
        "one": b"first",
        "two": b"second",
        "both": b"first",
        "from-first": b"f",
    }


def test_links_in_the_way(wire: Wire):
    """A link in the place of a downloaded file is replaced, not followed."""
    context = create_context(wire)
    put_file(wire, context, f"{TOP}/d/f", b"x")
    put_file(wire, context, f"{TOP}/g", b"y")
    with wire.session(PersistenceDataList=[sync_item(context, TOP, downloadPolicy={"autoDownload": False})]) as session:
        wire.stdout(
            session,
            f"mkdir -p {TOP} ~/victim; echo safe > ~/victim/f; ln -s ~/victim {TOP}/d; ln -s ~/victim/f {TOP}/g",
        )
        sync_and_check(wire, session, Mode="download")
        assert wire.stdout(session, f"cat ~/victim/f {TOP}/d/f {TOP}/g; ls ~/victim") == "safe\nxyf\n"


def test_unwritable_file(wire: Wire):
    """A failed download names the file and the reason."""
    context = create_context(wire)
    put_file(wire, context, "/home/wuying/locked/f", b"x")
    with wire.session() as session:
        wire.stdout(session, "mkdir ~/locked; chmod 555 ~/locked")
        wire.data("BindContexts", SessionId=session, PersistenceDataList=[sync_item(context, "/home/wuying/locked")])
        [one] = wait_for_transfers(wire, session)
        assert (one["status"], one["errorMessage"]) == ("Failed", "/home/wuying/locked/f: Permission denied")


def test_bind_while_running(wire: Wire):
    """A context bound to a running session is listed, downloaded and uploaded."""
    context, other = create_context(wire), create_context(wire)
    put_file(wire, context, f"{TOP}/f", b"1")
    put_file(wire, other, "/srv/other/g", b"2")
    with wire.session() as session:
        wire.data(
            "BindContexts",
            SessionId=session,
            PersistenceDataList=[sync_item(context, TOP), sync_item(other, "/srv/other")],
        )
        assert [one["ContextId"] for one in wire.data("DescribeSessionContexts", SessionId=session)] == [context, other]
        assert {one["status"] for one in wait_for_transfers(wire, session)} == {"Success"}
        assert wire.stdout(session, f"cat {TOP}/f /srv/other/g; echo 3 > {TOP}/h; echo 4 > /srv/other/i") == "12"
        delete_and_wait(wire, session)
    assert context_files(wire, context, TOP)["h"] == b"3\n"
    assert context_files(wire, other, "/srv/other")["i"] == b"4\n"


def test_internal_context(wire: Wire):
    """The internal context transfers single files of any path, and is never listed."""
    with wire.session() as session:
        [own] = wire.data("GetAndLoadInternalContext", SessionId=session, **{"ContextTypes.1": "file_transfer"})
        assert (own["ContextPath"], own["ContextType"]) == ("/tmp/file-transfer", "file_transfer")
        context = own["ContextId"]
        for path, shown in (
            ("/tmp/file-transfer/a", "/tmp/file-transfer/a"),
            ("b/c", "/home/wuying/b/c"),
            ("~/d", "/home/wuying/d"),
        ):
            put_file(wire, context, path, path.encode())
            sync_and_check(wire, session, ContextId=context, Path=path, Mode="download")
            [one] = transfer_statuses(wire, session, ContextId=context, Path=path, TaskType="download")
            assert (one["path"], one["status"]) == (path, "Success")
            assert wire.stdout(session, f"cat {shown}") == path
            wire.stdout(session, f"echo new > {shown}")
            sync_and_check(wire, session, ContextId=context, Path=path, Mode="upload")
            assert get_file(wire, context, path) == b"new\n"
        assert context not in [one["Id"] for one in wire.data("ListContexts", MaxResults=100)]
        wire.data("SyncContext", SessionId=session, ContextId=context, Path="/tmp/none", Mode="upload")
        [one] = wait_for_transfers(wire, session, ContextId=context, Path="/tmp/none")
        assert one["status"] == "Failed"


def test_extensions_and_browser_items(wire: Wire):
    """The items of browser settings transfer a profile and extract extensions."""
    profile, extensions = create_context(wire), create_context(wire)
    put_file(wire, extensions, "/tmp/extensions/ext_1.zip", zip_of(**{"manifest.json": "{}"}))
    listed = [
        sync_item(
            extensions, "/tmp/extensions/",
            uploadPolicy={"autoUpload": False}, deletePolicy={"syncLocalFile": False},
            extractPolicy={"extract": True, "deleteSrcFile": True},
            bwList={"whiteLists": [{**WHITE, "path": "ext_1.zip"}]},
        ),
        sync_item(profile, "/tmp/agentbay_browser", bwList={"whiteLists": [{**WHITE, "path": "/Default/Cookies"}]}),
    ]  # fmt: skip
    with wire.session(PersistenceDataList=listed) as session:
        assert [one["path"] for one in wait_for_transfers(wire, session)] == [
            "/tmp/extensions/",
            "/tmp/agentbay_browser",
        ]
        wire.stdout(
            session,
            "cat /tmp/extensions/ext_1/manifest.json; cd /tmp/agentbay_browser || mkdir -p /tmp/agentbay_browser",
        )
        wire.stdout(
            session,
            "mkdir -p /tmp/agentbay_browser/Default; cd /tmp/agentbay_browser/Default; echo > Cookies; echo > History",
        )
        delete_and_wait(wire, session)
    assert context_files(wire, profile, "/tmp/agentbay_browser") == {"Default/Cookies": b"\n"}


def test_cleared_while_bound(wire: Wire):
    """The sync after a clear uploads all files again."""
    context = create_context(wire)
    with wire.session(PersistenceDataList=[sync_item(context, TOP)]) as session:
        wire.stdout(session, f"mkdir -p {TOP}; echo 1 > {TOP}/f")
        sync_and_check(wire, session)
        wire.data("ClearContext", Id=context)
        assert eventually(lambda: wire.data("GetContext", ContextId=context)["State"] == "available")
        assert context_files(wire, context, "/") == {}
        sync_and_check(wire, session)
        assert context_files(wire, context, TOP) == {"f": b"1\n"}


def test_deleted_while_bound(wire: Wire):
    """Uploads to a deleted context fail, and the session lives on."""
    context = create_context(wire)
    with wire.session(PersistenceDataList=[sync_item(context, TOP)]) as session:
        wire.data("DeleteContext", Id=context)
        wire.data("SyncContext", SessionId=session, ContextId=context, Path=TOP)
        assert [one["status"] for one in wait_for_transfers(wire, session, ContextId=context, TaskType="upload")] == [
            "Failed"
        ]
        assert wire.stdout(session, "echo alive") == "alive\n"
        assert json.loads(json.dumps(wire.data("DescribeSessionContexts", SessionId=session)))[0]["ContextName"] == ""
        delete_and_wait(wire, session)
