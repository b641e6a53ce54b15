from __future__ import annotations

import base64
import json
import os
import re

import httpx
import pytest

from agentbay.local.contexts import url_signing
from tests.local.contexts.actions import context_files, create_context, get_file, put_file, upload_url
from tests.local.contexts.storage import Storage
from tests.local.raw import Refused, Wire
from tests.local.traces import eventually


def test_get_and_create(wire: Wire):
    """GetContext creates a context once per name, and only if it may."""
    name = f"ctx-{os.urandom(4).hex()}"
    with pytest.raises(Refused) as refused:
        wire.data("GetContext", Name=name, AllowCreate="False")
    assert (refused.value.status, refused.value.code) == (400, "ContextNotFound")
    context = wire.data("GetContext", Name=name, AllowCreate="True", LoginRegionId="cn-hangzhou")
    assert re.fullmatch(r"SdkCtx-[0-9a-z]{21}", context["Id"])
    assert (context["Name"], context["State"]) == (name, "available")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", context["CreateTime"])
    for fields in ({"Name": name, "AllowCreate": "True"}, {"Name": name}, {"ContextId": context["Id"]}):
        assert wire.data("GetContext", **fields)["Id"] == context["Id"]
    with pytest.raises(Refused):
        wire.data("GetContext", ContextId="SdkCtx-nosuch")
    with pytest.raises(Refused):
        wire.data("GetContext", ContextId=context["Id"], Name="other")


def test_list_rename_delete(wire: Wire):
    """Contexts are listed by creation, renamed to free names, and deleted with their files."""
    ids = [create_context(wire) for _ in range(3)]
    listed, token = [], ""
    while True:
        page = wire.envelope("ListContexts", MaxResults=2, **({"NextToken": token} if token else {}))
        listed += [item["Id"] for item in page["Data"]]
        if not (token := page["NextToken"]):
            break
    assert [item for item in listed if item in ids] == ids
    assert page["TotalCount"] == len(listed)
    wire.data("ModifyContext", Id=ids[0], Name=f"new-{ids[0]}")
    assert wire.data("GetContext", ContextId=ids[0])["Name"] == f"new-{ids[0]}"
    with pytest.raises(Refused) as refused:
        wire.data("ModifyContext", Id=ids[1], Name=f"new-{ids[0]}")
    assert refused.value.code == "ContextNameAlreadyExists"
    put_file(wire, ids[2], "/d/f", b"x")
    wire.data("DeleteContext", Id=ids[2])
    for action, field in (("DeleteContext", "Id"), ("ClearContext", "Id"), ("GetContext", "ContextId")):
        with pytest.raises(Refused) as refused:
            wire.data(action, **{field: ids[2]})
        assert refused.value.code == "ContextNotFound"


def test_files(wire: Wire):
    """Files are listed level by level, by page or token, and can be deleted."""
    context = create_context(wire)
    for name in ("b.txt", "a.txt", "sub/x", "sub/y", "ü 漢"):
        put_file(wire, context, f"/tmp/data/{name}", name.encode())

    def listed(path: str, **fields: object) -> dict[str, object]:
        return wire.envelope("DescribeContextFiles", ContextId=context, ParentFolderPath=path, **fields)

    entries = listed("/tmp/data", PageNumber=1, PageSize=50)["Data"]
    assert [(entry["FileName"], entry["FileType"], entry["Size"]) for entry in entries] == [
        ("a.txt", "FILE", 5), ("b.txt", "FILE", 5), ("sub", "FOLDER", 0), ("ü 漢", "FILE", 6),
    ]  # fmt: skip
    assert entries[0]["FilePath"] == "/tmp/data/a.txt"
    assert entries[0]["Status"] == "ready"
    assert listed("/tmp/data/", PageNumber=1, PageSize=50)["Count"] == 4
    second = listed("/tmp/data", PageNumber=2, PageSize=3)
    assert [entry["FileName"] for entry in second["Data"]] == ["ü 漢"]
    names, token = [], ""
    while True:
        page = listed("/tmp/data", MaxResults=1, **({"NextToken": token} if token else {}))
        names += [entry["FileName"] for entry in page["Data"]]
        if not (token := str(page["NextToken"])):
            break
    assert names == ["a.txt", "b.txt", "sub", "ü 漢"]
    assert listed("/nowhere")["Data"] == []
    wire.data("DeleteContextFile", ContextId=context, FilePath="/tmp/data/a.txt")
    wire.data("DeleteContextFile", ContextId=context, FilePath="/tmp/data/sub")
    assert [entry["FileName"] for entry in listed("/tmp/data")["Data"]] == ["b.txt", "ü 漢"]
    with pytest.raises(Refused) as refused:
        wire.data("DeleteContextFile", ContextId=context, FilePath="/tmp/data/a.txt")
    assert refused.value.code == "ContextFileNotFound"


def test_clear(wire: Wire):
    """A clear deletes the files and keeps the context."""
    context = create_context(wire)
    put_file(wire, context, "/tmp/data/f", b"x")
    wire.data("ClearContext", Id=context)
    assert eventually(lambda: wire.data("GetContext", ContextId=context)["State"] == "available")
    assert wire.data("DescribeContextFiles", ContextId=context, ParentFolderPath="/") == []


ON_ONE = pytest.mark.parametrize("storage", ["disk"], indirect=True)  # what never gets as far as the contents


@ON_ONE
@pytest.mark.parametrize("path", ["/a/../b", "..", "/a/\0", "/" + "n" * 256, "/", "/a/", "/" + "a/" * 251 + "f"])
def test_path_traversal(wire: Wire, path: str):
    """Paths with `..`, NUL or too long names are refused."""
    context = create_context(wire)
    with pytest.raises(Refused) as refused:
        upload_url(wire, context, path)
    assert refused.value.code == "InvalidParameter.Path"


@pytest.mark.parametrize(
    "path",
    [
        "/" + "n" * 255,
        "/" + "d" * 200 + "/" + "e/" * 240 + "f",
        "/a b/\n%2e%2e/ü\u200b;?#&=",
        "C:\\Users\\x\\f.txt",
        "rel",
    ],
)
def test_long_and_odd_names(wire: Wire, path: str):
    """A context keeps every name that Linux allows."""
    context = create_context(wire)
    put_file(wire, context, path, b"content")
    url = wire.data("GetContextFileDownloadUrl", ContextId=context, FilePath=path)["Url"]
    assert httpx.get(url, trust_env=False).content == b"content"


def test_presigned_urls(wire: Wire):
    """A presigned URL uploads or downloads one file."""
    context, content = create_context(wire), os.urandom(3 << 20)
    url = upload_url(wire, context, "/tmp/x/big.bin")
    assert wire.key not in url
    assert url.endswith("/big.bin")
    answer = httpx.put(url, content=content, trust_env=False)
    assert answer.status_code == 200
    assert re.fullmatch(r'"[0-9a-f]{64}"', answer.headers["etag"])
    chunked = httpx.put(url, content=iter([content[:100], content[100:]]), trust_env=False)
    assert (chunked.status_code, chunked.headers["etag"]) == (200, answer.headers["etag"])
    link = wire.data("GetContextFileDownloadUrl", ContextId=context, FilePath="/tmp/x/big.bin")
    assert link["ExpireTime"] == 3600
    got = httpx.get(link["Url"], trust_env=False)
    assert (got.status_code, got.headers["content-length"], got.content) == (200, str(len(content)), content)
    assert httpx.head(link["Url"], trust_env=False).headers["content-length"] == str(len(content))
    assert httpx.get(link["Url"], trust_env=False).content == content
    missing = wire.data("GetContextFileDownloadUrl", ContextId=context, FilePath="/tmp/x/none")["Url"]
    assert httpx.get(missing, trust_env=False).json()["Code"] == "ContextFileNotFound"
    # what stands behind the token is of no account
    assert httpx.get(link["Url"].replace("big.bin", "other"), trust_env=False).content == content


def _tampered(url: str, position: int) -> str:
    """Change one letter of the token."""
    parts = url.split("/")
    parts[4] = parts[4][:position] + ("A" if parts[4][position] != "A" else "B") + parts[4][position + 1 :]
    return "/".join(parts)


def _of_another_file(url: str) -> str:
    """Replace the signed path, and keep the signature."""
    parts = url.split("/")
    raw = base64.urlsafe_b64decode(parts[4] + "=" * (-len(parts[4]) % 4))
    assert b"/tmp/x/mine" in raw
    parts[4] = base64.urlsafe_b64encode(raw.replace(b"/tmp/x/mine", b"/tmp/x/hers")).decode().rstrip("=")
    return "/".join(parts)


def test_presigned_urls_refused(wire: Wire):
    """A wrong method, file or signature is refused and changes nothing."""
    context = create_context(wire)
    put_file(wire, context, "/tmp/x/mine", b"mine")
    put_file(wire, context, "/tmp/x/hers", b"hers")
    down = wire.data("GetContextFileDownloadUrl", ContextId=context, FilePath="/tmp/x/mine")["Url"]
    up = upload_url(wire, context, "/tmp/x/mine")
    tampered = [("GET", _tampered(down, position)) for position in (0, 20, 45, 60)]
    for method, url in (
        ("PUT", down), ("GET", up), ("HEAD", up), ("DELETE", up), ("DELETE", down), ("POST", up),
        ("GET", _of_another_file(down)), ("PUT", _of_another_file(up)), ("GET", _of_another_file(up)),
        ("GET", down.replace("/objects/", "/objects/x")), ("GET", f"{wire.url}/objects//mine"), *tampered,
    ):  # fmt: skip
        refused = httpx.request(method, url, content=b"x", trust_env=False)
        assert refused.status_code == 403, (method, url)
        if method != "HEAD":
            assert refused.json()["Code"] == "SignatureDoesNotMatch"
            assert context not in refused.text
    assert context_files(wire, context, "/tmp/x") == {"mine": b"mine", "hers": b"hers"}


def test_presigned_urls_expire(wire: Wire, storage: Storage):
    """A presigned URL is refused after its lifetime, and not before."""
    context, secret = create_context(wire), (storage.state_dir / "secret-objects").read_text().strip().encode()
    put_file(wire, context, "/f", b"x")
    short = url_signing.make_url(wire.url, secret, "GET", context, "/f", lifetime=1)
    long = url_signing.make_url(wire.url, secret, "GET", context, "/f")
    assert httpx.get(long, trust_env=False).content == b"x"
    assert eventually(lambda: httpx.get(short, trust_env=False).status_code == 403)
    assert httpx.get(short, trust_env=False).json()["Message"] == "This URL has expired."
    over = url_signing.make_url(wire.url, secret, "PUT", context, "/f", lifetime=-1)
    assert httpx.put(over, content=b"y", trust_env=False).status_code == 403
    assert get_file(wire, context, "/f") == b"x"


def test_interrupted_upload(wire: Wire):
    """An interrupted upload leaves the previous file."""
    context = create_context(wire)
    put_file(wire, context, "/f", b"whole")
    url = upload_url(wire, context, "/f")

    def breaking() -> object:
        yield b"x" * 100_000
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError):
        httpx.put(url, content=breaking(), trust_env=False)
    assert wire.data("DescribeContextFiles", ContextId=context, ParentFolderPath="/")[0]["Size"] == 5


def test_contexts_of_a_session(wire: Wire):
    """The contexts of a session are listed by three actions, and are in use."""
    context = create_context(wire)
    item = {"ContextId": context, "Path": "/tmp/data"}
    with wire.session(PersistenceDataList=[item]) as session:
        name = wire.data("GetContext", ContextId=context)["Name"]
        assert wire.data("GetContext", ContextId=context)["State"] == "in-use"
        assert wire.data("GetSession", SessionId=session)["contexts"] == [{"id": context, "name": name}]
        [bound] = wire.data("DescribeSessionContexts", SessionId=session)
        assert (bound["ContextId"], bound["ContextName"], bound["Path"]) == (context, name, "/tmp/data")
        assert json.loads(bound["Policy"])["uploadPolicy"]["uploadMode"] == "File"
        assert [one["Id"] for one in wire.data("ListContexts", SessionId=session)] == [context]
        with pytest.raises(Refused) as refused:
            wire.data("BindContexts", SessionId=session, PersistenceDataList=[{**item, "Path": "/tmp/data/"}])
        assert refused.value.code == "PathAlreadyBound"
    assert eventually(lambda: wire.data("GetContext", ContextId=context)["State"] == "available")


@ON_ONE
@pytest.mark.parametrize(
    ("item", "code"),
    [
        ({"Path": "/tmp/x"}, "InvalidParameter"),
        ({"ContextId": "c", "Path": "rel"}, "InvalidParameter"),
        ({"ContextId": "c", "Path": "/tmp/../etc"}, "InvalidParameter.Path"),
        ({"ContextId": "c", "Path": "/"}, "InvalidParameter.Path"),
        ({"ContextId": "c", "Path": "/usr/bin"}, "InvalidParameter.Path"),
        ({"ContextId": "c", "Path": "/tmp/x", "Policy": "{"}, "InvalidParameter.Policy"),
        (
            {"ContextId": "c", "Path": "/tmp/x", "Policy": '{"uploadPolicy": {"uploadMode": "X"}}'},
            "InvalidParameter.Policy",
        ),
        (
            {"ContextId": "c", "Path": "/p", "Policy": '{"bwList":{"whiteLists":[{"path":"(","isPathRegex":true}]}}'},
            "InvalidParameter.Policy",
        ),
        ({"ContextId": "c", "Path": "/mnt/x", "Type": "mount"}, "ContextNotFound"),
    ],
)
def test_invalid_items(wire: Wire, item: dict[str, str], code: str):
    """Invalid items are refused before a session is created."""
    with pytest.raises(Refused) as refused:
        wire.create(PersistenceDataList=[item])
    assert (refused.value.status, refused.value.code) == (400, code)
