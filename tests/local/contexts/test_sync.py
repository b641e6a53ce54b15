from __future__ import annotations

import io
import json
import stat
import time
import zipfile
from typing import Any

import pytest

from tests.local.contexts.places import Place
from tests.local.contexts.store import ended, files, get, item, made, put, settled, statuses, sync, tree
from tests.local.raw import Wire
from tests.local.traces import eventually

TOP = "/tmp/data"


def packed(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def in_next(wire: Wire, listed: dict[str, Any], command: str = "") -> dict[str, str]:
    """What a new session with that item finds, after a command."""
    with wire.session(PersistenceDataList=[listed]) as session:
        assert {one["status"] for one in settled(wire, session)} == {"Success"}
        if command:
            wire.stdout(session, command)
        found = files(wire, session, listed["Path"])
        ended(wire, session)
        return found


@pytest.mark.parametrize("top", [TOP, "/home/wuying/data", "/home/wuying", "/data/deep/er", "/mnt/x", "/workspace"])
def test_from_session_to_session(wire: Wire, top: str):
    """What one session leaves is there in the next: content, mode, time, links, empty folders; wherever that is."""
    context = made(wire)
    program = f"""
        mkdir -p {top}/sub/empty && cd {top} && echo hello > a.txt && echo run > sub/run.sh && chmod 750 sub/run.sh
        touch -d @1000000000.5 a.txt; ln -s a.txt link; ln -s /etc/passwd out; ln -s ../.. up; mkfifo pipe
        printf x > 'odd name
        ü'; printf y > "$(printf 'no\\377utf8')"
    """
    in_next(wire, item(context, top), program)
    with wire.session(PersistenceDataList=[item(context, top)]) as session:
        settled(wire, session)
        shown = wire.stdout(
            session, f"cd {top} && cat a.txt sub/run.sh && stat -c '%a %Y %n' a.txt sub/run.sh && readlink link"
        )
        assert shown.startswith("hello\nrun\n644 1000000000 a.txt\n750 ")
        assert shown.endswith("\na.txt\n")
        assert (
            wire.stdout(session, f"cd {top} && ls -d sub/empty && ls | wc -l; ls out up pipe 2>/dev/null; true")
            == "sub/empty\n6\n"
        )  # one of the names has two lines
    assert get(wire, context, f"{top}/a.txt") == b"hello\n"
    assert get(wire, context, f"{top}/link") is None


def test_status_tells_of_transfers(wire: Wire):
    """Each context is told of from the beginning; sync tells of itself under the path that it was given."""
    context = made(wire)
    put(wire, context, f"{TOP}/f", b"1")
    unknown = item("SdkCtx-made-up", "/tmp/other")
    with wire.session(PersistenceDataList=[item(context, TOP), unknown]) as session:
        first = {one["contextId"]: one for one in settled(wire, session)}
        assert (
            first[context].items()
            >= {"path": TOP, "status": "Success", "taskType": "download", "errorMessage": ""}.items()
        )
        assert 0 < first[context]["startTime"] <= first[context]["finishTime"] <= time.time() + 1
        assert first["SdkCtx-made-up"]["status"] == "Failed"
        assert "SdkCtx-made-up" in first["SdkCtx-made-up"]["errorMessage"]
        wire.data("SyncContext", SessionId=session, ContextId=context, Path=f"{TOP}/f", Mode="upload")
        [one] = settled(wire, session, ContextId=context, Path=f"{TOP}/f")
        assert (one["path"], one["taskType"], one["status"]) == (f"{TOP}/f", "upload", "Success")
        wire.data("SyncContext", SessionId=session, ContextId=context, Path="/elsewhere")
        [one] = statuses(wire, session, ContextId=context, Path="/elsewhere")
        assert (one["status"], one["taskType"]) == ("Failed", "upload")
        wire.data("SyncContext", SessionId=session, ContextId="c", Path="/elsewhere", Mode="download")
        [one] = statuses(wire, session, ContextId="c")
        assert (one["status"], one["taskType"]) == ("Failed", "download")
        wire.data("SyncContext", SessionId=session, ContextId=context, Path=f"{TOP}/none", Mode="download")
        [one] = settled(wire, session, ContextId=context, Path=f"{TOP}/none")
        assert (one["status"], "no file" in one["errorMessage"]) == ("Failed", True)


def test_sync_up_and_down(wire: Wire):
    """Without arguments everything goes up; one path alone when it is named; down comes what others have changed."""
    one, two = made(wire), made(wire)
    listed = [item(one, "/tmp/one"), item(two, "/tmp/two")]
    with wire.session(PersistenceDataList=listed) as session:
        wire.stdout(
            session, "mkdir -p /tmp/one /tmp/two; echo 1 > /tmp/one/f; echo 2 > /tmp/two/f; echo 3 > /tmp/two/g"
        )
        sync(wire, session, ContextId=two, Path="/tmp/two/f")
        assert (tree(wire, one, "/"), tree(wire, two, "/")) == ({}, {"tmp/two/f": b"2\n"})
        sync(wire, session)
        assert (tree(wire, one, "/"), len(tree(wire, two, "/"))) == ({"tmp/one/f": b"1\n"}, 2)
        put(wire, one, "/tmp/one/f", b"new")
        put(wire, one, "/tmp/one/h", b"h")
        sync(wire, session, ContextId=one, Mode="download")
        assert files(wire, session, "/tmp/one") == {"f": "new", "h": "h"}


def test_automatic_or_not(wire: Wire):
    """autoDownload and autoUpload, off, leave it to SyncContext."""
    context = made(wire)
    put(wire, context, f"{TOP}/f", b"1")
    by_hand = item(context, TOP, uploadPolicy={"autoUpload": False}, downloadPolicy={"autoDownload": False})
    with wire.session(PersistenceDataList=[by_hand]) as session:
        assert [one["status"] for one in settled(wire, session)] == ["Success"]
        wire.stdout(session, f"mkdir -p {TOP}; ls {TOP}; echo 2 > {TOP}/g")
        assert files(wire, session, TOP) == {"g": "2\n"}
        ended(wire, session)
    assert tree(wire, context, TOP) == {"f": b"1"}
    with wire.session(PersistenceDataList=[by_hand]) as session:
        sync(wire, session, Mode="download")
        wire.stdout(session, f"echo 3 > {TOP}/g")
        sync(wire, session, Mode="upload")
    assert tree(wire, context, TOP) == {"f": b"1", "g": b"3\n"}


@pytest.mark.parametrize(("deletes", "left"), [(True, {"b": b"b"}), (False, {"a": b"a", "b": b"b", "d/c": b"c"})])
def test_deletions(wire: Wire, *, deletes: bool, left: dict[str, bytes]):
    """A file deleted in the session is deleted in the context, unless the policy says otherwise."""
    context = made(wire)
    for name in ("a", "b", "d/c"):
        put(wire, context, f"{TOP}/{name}", name[-1:].encode())
    in_next(wire, item(context, TOP, deletePolicy={"syncLocalFile": deletes}), f"cd {TOP}; rm -r a d")
    assert tree(wire, context, TOP) == left


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
    """Only what the white lists choose, and their exclusions leave, goes up; and the same comes down."""
    context, other = made(wire), made(wire)
    every = "a.txt src/x.py src/lib/y.py src/node_modules/z project-1/f project-1/record1/g project-2/h"
    lists = [{**WHITE, **white} for white in white_lists]
    make = f"mkdir -p {TOP} && cd {TOP} && for f in {every}; do mkdir -p $(dirname $f); echo $f > $f; done"
    in_next(wire, item(context, TOP, bwList={"whiteLists": lists}), make)
    assert sorted(tree(wire, context, TOP)) == sorted(chosen.split())
    in_next(wire, item(other, TOP), make)
    assert sorted(in_next(wire, item(other, TOP, bwList={"whiteLists": lists}), f"mkdir -p {TOP}")) == sorted(
        chosen.split()
    )
    assert sorted(tree(wire, other, TOP)) == sorted(every.split())


ARCHIVE = {"uploadMode": "Archive"}


def test_archive(wire: Wire):
    """Mode Archive keeps one archive, but for what it excludes; the next session finds all as it was."""
    context = made(wire)
    listed = item(context, TOP, uploadPolicy={**ARCHIVE, "archiveExcludePaths": ["output/", "config.json"]})
    make = (
        f"mkdir -p {TOP}/a {TOP}/output && cd {TOP} && echo 1 > a/f && echo 2 > run && chmod 755 run && "
        "echo 3 > output/o && echo 4 > config.json"
    )
    in_next(wire, listed, make)
    kept = tree(wire, context, TOP)
    assert set(kept) == {"data.zip", "output/o", "config.json"}
    with zipfile.ZipFile(io.BytesIO(kept["data.zip"])) as archive:
        assert sorted(archive.namelist()) == ["a/f", "run"]
        assert stat.S_IMODE(archive.getinfo("run").external_attr >> 16) == 0o755
    everything = {"a/f": "1\n", "run": "2\n", "output/o": "3\n", "config.json": "4\n"}
    assert in_next(wire, listed, f"cd {TOP}; [ -x run ] && rm a/f && echo 5 > b") == {
        "run": "2\n", "b": "5\n", "output/o": "3\n", "config.json": "4\n",
    }  # fmt: skip
    assert in_next(wire, listed, f"cd {TOP}; mkdir -p a; echo 1 > a/f; rm b") == everything
    # back to single files
    assert in_next(wire, item(context, TOP, uploadPolicy={"uploadMode": "File"})) == everything
    assert set(tree(wire, context, TOP)) == set(everything)
    # and into the archive again
    assert in_next(wire, listed) == everything
    assert set(tree(wire, context, TOP)) == {"data.zip", "output/o", "config.json"}


def test_archive_not_extracted(wire: Wire):
    """Where nothing is to be extracted, the archive itself comes; where it is to be kept, both do."""
    context = made(wire)
    in_next(wire, item(context, TOP, uploadPolicy=ARCHIVE), f"mkdir -p {TOP}; echo 1 > {TOP}/f")
    with wire.session(
        PersistenceDataList=[item(context, TOP, uploadPolicy={"autoUpload": False}, extractPolicy={"extract": False})]
    ) as session:
        settled(wire, session)
        assert wire.stdout(session, f"ls {TOP}") == "data.zip\n"
    both = item(context, TOP, uploadPolicy=ARCHIVE, extractPolicy={"deleteSrcFile": False})
    for _ in range(2):
        with wire.session(PersistenceDataList=[both]) as session:
            settled(wire, session)
            assert wire.stdout(session, f"ls {TOP}") == "data.zip\nf\n"
            ended(wire, session)
    assert set(tree(wire, context, TOP)) == {"data.zip"}
    with zipfile.ZipFile(io.BytesIO(tree(wire, context, TOP)["data.zip"])) as archive:
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
    """An archive that is a file of the context is extracted as the policy says; it stays in the context."""
    context = made(wire)
    put(wire, context, f"{TOP}/d/x.zip", packed(**{"in/f": "x", "../evil": "x", "/abs": "x", "in/../../up": "x"}))
    listed = item(context, TOP, **({"extractPolicy": policy} if policy else {}))
    with wire.session(PersistenceDataList=[listed]) as session:
        settled(wire, session)
        assert set(wire.stdout(session, f"cd {TOP}; find . -type f -printf '%P\\n'").split()) == found
        ended(wire, session)
    assert set(tree(wire, context, TOP)) == {"d/x.zip"}


def test_what_is_no_archive(wire: Wire):
    """A file that is only called an archive comes as it is."""
    context = made(wire)
    put(wire, context, f"{TOP}/x.zip", b"no")
    assert in_next(wire, item(context, TOP, extractPolicy={"extract": True})) == {"x.zip": "no"}


def test_mapping(wire: Wire):
    """A path of another system stands for the path here, both ways."""
    context = made(wire)
    put(wire, context, "C:\\Users\\Administrator\\Downloads\\a.txt", b"from windows")
    listed = item(context, "/home/wuying/下载", mappingPolicy={"path": "c:\\Users\\Administrator\\Downloads"})
    assert in_next(wire, listed, "echo linux > ~/下载/b.txt") == {"a.txt": "from windows", "b.txt": "linux\n"}
    assert get(wire, context, "c:\\Users\\Administrator\\Downloads\\b.txt") == b"linux\n"


def test_recycling(wire: Wire, place: Place):
    """What was uploaded under a lifecycle is gone when its days are over, only in the paths that the policy names."""
    context = made(wire)
    listed = item(context, TOP, recyclePolicy={"lifecycle": "Lifecycle_3Days", "paths": ["cache", f"{TOP}/logs"]})
    in_next(
        wire, listed, f"mkdir -p {TOP}/cache {TOP}/logs; cd {TOP}; for f in cache/f logs/f keep; do echo > $f; done"
    )
    due = place.due(context)
    assert {key: round((when - time.time()) / 86400, 1) for key, when in due.items()} == {
        f"{TOP}/cache/f": 3.0, f"{TOP}/logs/f": 3.0,
    }  # fmt: skip
    place.make_overdue(context, f"{TOP}/cache/f")
    assert get(wire, context, f"{TOP}/cache/f") is None
    assert set(tree(wire, context, TOP)) == {"logs/f", "keep"}


def test_two_sessions_on_one_context(wire: Wire):
    """The upload that ends last wins, file by file; a file that a session has not touched, it does not upload."""
    context = made(wire)
    for name in ("one", "two", "both", "gone"):
        put(wire, context, f"{TOP}/{name}", b"old")
    with (
        wire.session(PersistenceDataList=[item(context, TOP)]) as first,
        wire.session(PersistenceDataList=[item(context, TOP)]) as second,
    ):
        settled(wire, first)
        settled(wire, second)
        wire.stdout(first, f"cd {TOP}; printf first | tee one > both; rm gone; printf f > from-first")
        wire.stdout(second, f"cd {TOP}; printf second | tee two > both")
        sync(wire, second)
        ended(wire, first)
        ended(wire, second)
    assert tree(wire, context, TOP) == {"one": b"first", "two": b"second", "both": b"first", "from-first": b"f"}


def test_links_in_the_way(wire: Wire):
    """A link that was planted where files are to come is replaced, not followed."""
    context = made(wire)
    put(wire, context, f"{TOP}/d/f", b"x")
    put(wire, context, f"{TOP}/g", b"y")
    with wire.session(PersistenceDataList=[item(context, TOP, downloadPolicy={"autoDownload": False})]) as session:
        wire.stdout(
            session,
            f"mkdir -p {TOP} ~/victim; echo safe > ~/victim/f; ln -s ~/victim {TOP}/d; ln -s ~/victim/f {TOP}/g",
        )
        sync(wire, session, Mode="download")
        assert wire.stdout(session, f"cat ~/victim/f {TOP}/d/f {TOP}/g; ls ~/victim") == "safe\nxyf\n"


def test_what_cannot_be_written(wire: Wire):
    """A transfer that fails says why."""
    context = made(wire)
    put(wire, context, "/home/wuying/locked/f", b"x")
    with wire.session() as session:
        wire.stdout(session, "mkdir ~/locked; chmod 555 ~/locked")
        wire.data("BindContexts", SessionId=session, PersistenceDataList=[item(context, "/home/wuying/locked")])
        [one] = settled(wire, session)
        assert (one["status"], one["errorMessage"]) == ("Failed", "/home/wuying/locked/f: Permission denied")


def test_bind_while_running(wire: Wire):
    """A running session takes on a context; it is listed at once, its files come, and go up at the end."""
    context, other = made(wire), made(wire)
    put(wire, context, f"{TOP}/f", b"1")
    put(wire, other, "/srv/other/g", b"2")
    with wire.session() as session:
        wire.data(
            "BindContexts", SessionId=session, PersistenceDataList=[item(context, TOP), item(other, "/srv/other")]
        )
        assert [one["ContextId"] for one in wire.data("DescribeSessionContexts", SessionId=session)] == [context, other]
        assert {one["status"] for one in settled(wire, session)} == {"Success"}
        assert wire.stdout(session, f"cat {TOP}/f /srv/other/g; echo 3 > {TOP}/h; echo 4 > /srv/other/i") == "12"
        ended(wire, session)
    assert tree(wire, context, TOP)["h"] == b"3\n"
    assert tree(wire, other, "/srv/other")["i"] == b"4\n"


def test_files_on_their_way(wire: Wire):
    """A session's own context brings single files in and out, wherever they are, and is never listed."""
    with wire.session() as session:
        [own] = wire.data("GetAndLoadInternalContext", SessionId=session, **{"ContextTypes.1": "file_transfer"})
        assert (own["ContextPath"], own["ContextType"]) == ("/tmp/file-transfer", "file_transfer")
        context = own["ContextId"]
        for path, shown in (
            ("/tmp/file-transfer/a", "/tmp/file-transfer/a"),
            ("b/c", "/home/wuying/b/c"),
            ("~/d", "/home/wuying/d"),
        ):
            put(wire, context, path, path.encode())
            sync(wire, session, ContextId=context, Path=path, Mode="download")
            [one] = statuses(wire, session, ContextId=context, Path=path, TaskType="download")
            assert (one["path"], one["status"]) == (path, "Success")
            assert wire.stdout(session, f"cat {shown}") == path
            wire.stdout(session, f"echo new > {shown}")
            sync(wire, session, ContextId=context, Path=path, Mode="upload")
            assert get(wire, context, path) == b"new\n"
        assert context not in [one["Id"] for one in wire.data("ListContexts", MaxResults=100)]
        wire.data("SyncContext", SessionId=session, ContextId=context, Path="/tmp/none", Mode="upload")
        [one] = settled(wire, session, ContextId=context, Path="/tmp/none")
        assert one["status"] == "Failed"


def test_extensions_and_browser_items(wire: Wire):
    """The items that browser settings become: a profile with its white lists, extensions that are unpacked."""
    profile, extensions = made(wire), made(wire)
    put(wire, extensions, "/tmp/extensions/ext_1.zip", packed(**{"manifest.json": "{}"}))
    listed = [
        item(extensions, "/tmp/extensions/", uploadPolicy={"autoUpload": False}, deletePolicy={"syncLocalFile": False},
             extractPolicy={"extract": True, "deleteSrcFile": True},
             bwList={"whiteLists": [{**WHITE, "path": "ext_1.zip"}]}),
        item(profile, "/tmp/agentbay_browser", bwList={"whiteLists": [{**WHITE, "path": "/Default/Cookies"}]}),
    ]  # fmt: skip
    with wire.session(PersistenceDataList=listed) as session:
        assert [one["path"] for one in settled(wire, session)] == ["/tmp/extensions/", "/tmp/agentbay_browser"]
        wire.stdout(
            session,
            "cat /tmp/extensions/ext_1/manifest.json; cd /tmp/agentbay_browser || mkdir -p /tmp/agentbay_browser",
        )
        wire.stdout(
            session,
            "mkdir -p /tmp/agentbay_browser/Default; cd /tmp/agentbay_browser/Default; echo > Cookies; echo > History",
        )
        ended(wire, session)
    assert tree(wire, profile, "/tmp/agentbay_browser") == {"Default/Cookies": b"\n"}


def test_cleared_while_bound(wire: Wire):
    """What is cleared while a session has it goes up again, whole, with the next sync."""
    context = made(wire)
    with wire.session(PersistenceDataList=[item(context, TOP)]) as session:
        wire.stdout(session, f"mkdir -p {TOP}; echo 1 > {TOP}/f")
        sync(wire, session)
        wire.data("ClearContext", Id=context)
        assert eventually(lambda: wire.data("GetContext", ContextId=context)["State"] == "available")
        assert tree(wire, context, "/") == {}
        sync(wire, session)
        assert tree(wire, context, TOP) == {"f": b"1\n"}


def test_deleted_while_bound(wire: Wire):
    """A context that is deleted while a session has it: what would go up has failed, the session lives on."""
    context = made(wire)
    with wire.session(PersistenceDataList=[item(context, TOP)]) as session:
        wire.data("DeleteContext", Id=context)
        wire.data("SyncContext", SessionId=session, ContextId=context, Path=TOP)
        assert [one["status"] for one in settled(wire, session, ContextId=context, TaskType="upload")] == ["Failed"]
        assert wire.stdout(session, "echo alive") == "alive\n"
        assert json.loads(json.dumps(wire.data("DescribeSessionContexts", SessionId=session)))[0]["ContextName"] == ""
        ended(wire, session)
