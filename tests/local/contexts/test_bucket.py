"""What a bucket has that a disk does not: other runtimes, failures, credentials, and objects that nobody has."""

from __future__ import annotations

import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore
import pytest

from agentbay.errors import ConfigurationError
from agentbay.local.contexts.bucket_backend import BucketBackend
from agentbay.local.contexts.object_store import ObjectStoreClient, parse_bucket_url
from tests.local.contexts.places import BUCKET, CREDENTIALS, InBucket, Place, Server, serving
from tests.local.contexts.store import ended, item, made, mount, put, settled, sync, tree
from tests.local.raw import Child, Refused, Wire, embedded
from tests.scripted import quiet_port

TOP = "/tmp/data"
in_bucket = pytest.mark.parametrize("place", ["bucket"], indirect=True)


@in_bucket
def test_mounts_are_refused(wire: Wire):
    """A context in a bucket cannot be mounted, and the refusal says what to do instead; nothing else goes wrong."""
    context = made(wire)
    with pytest.raises(Refused) as refused:
        wire.create(PersistenceDataList=[mount(context, "/mnt/c")])
    assert (refused.value.status, refused.value.code) == (400, "NotSupported.ContextMount")
    assert "ContextSync" in refused.value.message
    with wire.session() as session:
        with pytest.raises(Refused) as refused:
            wire.data("BindContexts", SessionId=session, PersistenceDataList=[mount(context, "/mnt/c")])
        assert refused.value.code == "NotSupported.ContextMount"
        assert wire.data("DescribeSessionContexts", SessionId=session) == []
        wire.data("BindContexts", SessionId=session, PersistenceDataList=[item(context, "/mnt/c")])
        assert {one["status"] for one in settled(wire, session)} == {"Success"}


@in_bucket
def test_credentials_stay_where_they_are(wire: Wire, place: Place):
    """No session sees the bucket's credentials, nor does a file of the runtime hold them."""
    with wire.session() as session:
        seen = wire.stdout(session, "env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; true")
    files = [Path(directory, name) for directory, _, names in os.walk(place.state_dir) for name in names]
    for secret in CREDENTIALS.values():
        assert secret not in seen
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # what sessions have left is being erased
                assert secret.encode() not in file.read_bytes()
    assert any(file.name == "contexts.db" for file in files)


def test_runtimes_share_a_bucket(object_store: Server, tmp_path: Path):
    """Two runtimes on one bucket: a name is one context, what one has committed the other has, and neither undoes
    what the other has done meanwhile."""
    one_place, two_place = (InBucket(object_store, "shared-by-two", tmp_path / name) for name in "ab")
    with (
        embedded(None, *one_place.options, **one_place.environment) as (_, one),
        embedded(None, *two_place.options, **two_place.environment) as (_, two),
    ):

        def create(wire: Wire, name: str) -> str:
            return str(wire.data("GetContext", Name=name, AllowCreate="True")["Id"])

        with ThreadPoolExecutor(8) as pool:
            ids = [list(pool.map(create, [one, two] * 4, [f"ctx-{number}"] * 8)) for number in range(3)]
        assert [len(set(found)) for found in ids] == [1, 1, 1]
        context = ids[0][0]
        assert [found["Name"] for found in two.data("ListContexts", MaxResults=10)] == ["ctx-0", "ctx-1", "ctx-2"]
        assert two.data("GetContext", ContextId=context)["Name"] == "ctx-0"

        with one.session(PersistenceDataList=[item(context, TOP)]) as session:
            one.stdout(session, f"mkdir -p {TOP}; echo 1 > {TOP}/one; echo 1 > {TOP}/both")
            with two.session(PersistenceDataList=[item(context, TOP)]) as other:
                settled(two, other)
                two.stdout(other, f"mkdir -p {TOP}; echo 2 > {TOP}/two; echo 2 > {TOP}/both")
                sync(one, session)
                sync(two, other)
            ended(one, session)
        assert tree(one, context, TOP) == tree(two, context, TOP)
        assert tree(one, context, TOP) == {"one": b"1\n", "two": b"2\n", "both": b"2\n"}

        with ThreadPoolExecutor(8) as pool:  # commits at the same time: all of them stay
            list(pool.map(lambda n: put((one, two)[n % 2], context, f"/many/{n}", b"%d" % n), range(16)))
        assert tree(one, context, "/many") == {str(n): b"%d" % n for n in range(16)}

        one.data("ModifyContext", Id=context, Name="other")
        assert two.data("GetContext", Name="other")["Id"] == context
        with pytest.raises(Refused) as refused:
            two.data("ModifyContext", Id=ids[1][0], Name="other")
        assert refused.value.code == "ContextNameAlreadyExists"
        two.data("DeleteContext", Id=context)
        for wire, fields in ((one, {"Name": "other"}), (one, {"Name": "ctx-0"}), (two, {"ContextId": context})):
            with pytest.raises(Refused) as refused:
                wire.data("GetContext", **fields)
            assert refused.value.code == "ContextNotFound"
        with pytest.raises(Refused) as refused:
            one.data("DescribeContextFiles", ContextId=context, ParentFolderPath="/")
        assert refused.value.code == "ContextNotFound"
    left = [found["path"] for page in obstore.list(one_place.objects, f"contexts/{context}/") for found in page]
    assert left == []


def test_another_machine_goes_on(object_store: Server, tmp_path: Path):
    """A runtime with nothing but the URL finds the contexts with all that is in them."""
    first, second = (InBucket(object_store, "moved", tmp_path / name) for name in "ab")
    with embedded(None, *first.options, **first.environment) as (_, wire):
        context = str(wire.data("GetContext", Name="moving", AllowCreate="True")["Id"])
        put(wire, context, f"{TOP}/f", b"1")
    with embedded(None, *second.options, **second.environment) as (_, wire):
        assert wire.data("GetContext", Name="moving")["Id"] == context
        assert tree(wire, context, TOP) == {"f": b"1"}


def test_a_bucket_that_fails(tmp_path: Path):
    """While the bucket cannot be reached, or is damaged, a sync has failed, says why, and has changed nothing."""
    with serving(quiet_port()) as server:
        place = InBucket(server, "failing", tmp_path)
        with embedded(None, *place.options, **place.environment) as (child, wire):
            _fail(wire, place, server)
            assert child.close_stdin() == 0
            complaints = child.standard_error()
            assert "Traceback" not in complaints
            assert not any(secret in complaints for secret in CREDENTIALS.values())


def _fail(wire: Wire, place: InBucket, server: Server) -> None:
    context = made(wire)
    session = wire.create(PersistenceDataList=[item(context, TOP)])
    settled(wire, session)
    wire.stdout(session, f"mkdir -p {TOP}; echo 1 > {TOP}/f")
    server.stop()
    wire.data("SyncContext", SessionId=session, ContextId=context)
    [one] = settled(wire, session, ContextId=context, TaskType="upload")
    assert (one["status"], "The bucket of contexts failed" in one["errorMessage"]) == ("Failed", True)
    with pytest.raises(Refused) as refused:
        wire.data("DescribeContextFiles", ContextId=context, ParentFolderPath="/")
    assert (refused.value.status, refused.value.code) == (503, "ContextStoreUnavailable")
    with serving(server.port):
        assert tree(wire, context, TOP) == {}
        sync(wire, session)
        assert tree(wire, context, TOP) == {"f": b"1\n"}
        obstore.put(place.objects, f"contexts/{context}/manifest", b"not a manifest")
        with pytest.raises(Refused) as refused:
            wire.data("DescribeContextFiles", ContextId=context, ParentFolderPath="/")
        assert (refused.value.status, refused.value.code) == (503, "ContextStoreUnavailable")
        assert "damaged" in refused.value.message
        ended(wire, session)


def test_urls_that_cannot_be(object_store: Server):
    """A URL that cannot be used says what is wrong with it, and never a secret that was put into it."""
    endpoint = object_store.endpoint
    for url, said in (
        ("gs://bucket", "must be s3://"),
        ("s3://", "must be s3://"),
        (f"s3://{BUCKET}?secret_access_key=hush&endpoint={endpoint}", "secret_access_key"),
        (f"s3://user:hush@{BUCKET}", "credentials come from the environment"),
        ("oss://bucket", "needs an endpoint"),
        (f"s3://no-such-bucket?endpoint={endpoint}&region=us-east-1", "NoSuchBucket"),
    ):
        child = Child(["-m", "agentbay.local", "--context-store", url], **CREDENTIALS, NO_PROXY="127.0.0.1")
        try:
            assert child.process.wait(60) == 1
            assert said in child.standard_error()
            assert "Traceback" not in child.standard_error()
            assert not any(secret in child.standard_error() for secret in ("hush", *CREDENTIALS.values()))
        finally:
            child.release()


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("s3://b", {"bucket": "b", "prefix": None}),
        ("s3://b/x/y/?region=eu-1", {"bucket": "b", "prefix": "x/y", "region": "eu-1"}),
        (
            "oss://b/x?endpoint=https://oss-cn-hangzhou.aliyuncs.com",
            {
                "bucket": "b", "prefix": "x", "region": "oss-cn-hangzhou", "virtual_hosted_style_request": "true",
                "endpoint": "https://b.oss-cn-hangzhou.aliyuncs.com", "access_key_id": "LTAI", "session_token": "T",
            },
        ),
    ],
)  # fmt: skip
def test_urls(url: str, settings: dict[str, Any]):
    """A URL names bucket, prefix and endpoint; credentials for OSS have the names of Alibaba Cloud's own tools."""
    environment = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "LTAI", "ALIBABA_CLOUD_SECURITY_TOKEN": "T"}
    assert parse_bucket_url(url, environment) == settings


def test_urls_refused_by_reading():
    """Nothing of a malformed URL is repeated but names of settings."""
    with pytest.raises(ConfigurationError) as refused:
        parse_bucket_url("s3://b?token=hush", {})
    assert "token" in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("conditional_put", [True, False])
def test_what_nobody_has(object_store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conditional_put: bool):
    """An object that no file has any more goes after an hour; one that a killed runtime has left, after a day."""
    objects = object_store.store(f"unused-{conditional_put}")
    bucket = BucketBackend(
        ObjectStoreClient(objects, conditional_put=conditional_put), tmp_path, (os.getuid(), os.getgid())
    )
    bucket.create("SdkCtx-1")

    def keep(content: bytes) -> None:
        with bucket.staging() as staging:
            name, fd = staging.create_file()
            os.write(fd, content)
            os.close(fd)
            steps = [["put", "/f", name, None, False]]
            bucket.prepare("SdkCtx-1", staging, steps)
            bucket.commit("SdkCtx-1", staging, steps, lambda: None)

    def held() -> list[bytes]:
        listed = [one["path"] for page in obstore.list(objects, "contexts/SdkCtx-1/files/") for one in page]
        return sorted(bytes(obstore.get(objects, path).bytes()) for path in listed)

    keep(b"first")
    with bucket.open_reader("SdkCtx-1").open("/f") as reading:
        keep(b"second")
        obstore.put(objects, "contexts/SdkCtx-1/files/left-by-a-killed-one", b"left")
        assert reading.read() == b"first"
    for hours, expected in ((0, [b"first", b"left", b"second"]), (1.1, [b"left", b"second"]), (25, [b"second"])):
        now = time.time()
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda moment=now + hours * 3600: moment)
            assert list(bucket.contexts_to_clean()) == (["SdkCtx-1"] if hours != 1.1 else [])
            bucket.clean_up("SdkCtx-1")
        assert held() == expected
    obstore.delete(objects, ["contexts/SdkCtx-1/manifest"])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 50 * 3600)
    bucket.clean_up("SdkCtx-1")
    assert held() == []
