"""What only a bucket has: other runtimes, failures, credentials and orphaned blobs."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import obstore
import pytest

from agentbay.errors import ConfigurationError
from agentbay.local.contexts.bucket_backend import BucketBackend
from agentbay.local.contexts.object_store import ObjectStoreClient, parse_bucket_url
from tests.local.contexts.actions import (
    context_files,
    create_context,
    delete_and_wait,
    mount_item,
    put_file,
    sync_and_check,
    sync_item,
    wait_for_transfers,
)
from tests.local.contexts.storage import (
    BUCKET,
    CREDENTIALS,
    BucketStorage,
    ObjectStoreServer,
    Storage,
    running_object_store,
)
from tests.local.raw import Child, Refused, Wire, embedded
from tests.scripted import quiet_port

TOP = "/tmp/data"
in_bucket = pytest.mark.parametrize("storage", ["bucket"], indirect=True)


@in_bucket
def test_mounts_are_refused(wire: Wire):
    """A mount of a context in a bucket is refused with an alternative."""
    context = create_context(wire)
    with pytest.raises(Refused) as refused:
        wire.create(PersistenceDataList=[mount_item(context, "/mnt/c")])
    assert (refused.value.status, refused.value.code) == (400, "NotSupported.ContextMount")
    assert "ContextSync" in refused.value.message
    with wire.session() as session:
        with pytest.raises(Refused) as refused:
            wire.data("BindContexts", SessionId=session, PersistenceDataList=[mount_item(context, "/mnt/c")])
        assert refused.value.code == "NotSupported.ContextMount"
        assert wire.data("DescribeSessionContexts", SessionId=session) == []
        wire.data("BindContexts", SessionId=session, PersistenceDataList=[sync_item(context, "/mnt/c")])
        assert {one["status"] for one in wait_for_transfers(wire, session)} == {"Success"}


@in_bucket
def test_credentials_do_not_leak(wire: Wire, storage: Storage):
    """No session and no file of the runtime contains the credentials."""
    with wire.session() as session:
        seen = wire.stdout(session, "env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; true")
    files = [Path(directory, name) for directory, _, names in os.walk(storage.state_dir) for name in names]
    for secret in CREDENTIALS.values():
        assert secret not in seen
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # what sessions have left is being erased
                assert secret.encode() not in file.read_bytes()
    assert any(file.name == "contexts.db" for file in files)


def test_runtimes_share_a_bucket(object_store: ObjectStoreServer, tmp_path: Path):
    """Two runtimes on one bucket share names and files, and lose no update."""
    first_storage, second_storage = (BucketStorage(object_store, "shared-by-two", tmp_path / name) for name in "ab")
    with (
        embedded(None, *first_storage.options, **first_storage.environment) as (_, one),
        embedded(None, *second_storage.options, **second_storage.environment) as (_, two),
    ):

        def create(wire: Wire, name: str) -> str:
            return str(wire.data("GetContext", Name=name, AllowCreate="True")["Id"])

        with ThreadPoolExecutor(8) as pool:
            ids = [list(pool.map(create, [one, two] * 4, [f"ctx-{number}"] * 8)) for number in range(3)]
        assert [len(set(found)) for found in ids] == [1, 1, 1]
        context = ids[0][0]
        assert [found["Name"] for found in two.data("ListContexts", MaxResults=10)] == ["ctx-0", "ctx-1", "ctx-2"]
        assert two.data("GetContext", ContextId=context)["Name"] == "ctx-0"

        with one.session(PersistenceDataList=[sync_item(context, TOP)]) as session:
            one.stdout(session, f"mkdir -p {TOP}; echo 1 > {TOP}/one; echo 1 > {TOP}/both")
            with two.session(PersistenceDataList=[sync_item(context, TOP)]) as other:
                wait_for_transfers(two, other)
                two.stdout(other, f"mkdir -p {TOP}; echo 2 > {TOP}/two; echo 2 > {TOP}/both")
                sync_and_check(one, session)
                sync_and_check(two, other)
            delete_and_wait(one, session)
        assert context_files(one, context, TOP) == context_files(two, context, TOP)
        assert context_files(one, context, TOP) == {"one": b"1\n", "two": b"2\n", "both": b"2\n"}

        with ThreadPoolExecutor(8) as pool:  # commits at the same time: all of them stay
            list(pool.map(lambda n: put_file((one, two)[n % 2], context, f"/many/{n}", b"%d" % n), range(16)))
        assert context_files(one, context, "/many") == {str(n): b"%d" % n for n in range(16)}

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
    left = [found["path"] for page in obstore.list(first_storage.objects, f"contexts/{context}/") for found in page]
    assert left == []


def test_another_machine(object_store: ObjectStoreServer, tmp_path: Path):
    """A runtime with only the URL finds all contexts and files."""
    first, second = (BucketStorage(object_store, "moved", tmp_path / name) for name in "ab")
    with embedded(None, *first.options, **first.environment) as (_, wire):
        context = str(wire.data("GetContext", Name="moving", AllowCreate="True")["Id"])
        put_file(wire, context, f"{TOP}/f", b"1")
    with embedded(None, *second.options, **second.environment) as (_, wire):
        assert wire.data("GetContext", Name="moving")["Id"] == context
        assert context_files(wire, context, TOP) == {"f": b"1"}


@in_bucket
def test_lost_blobs(wire: Wire, storage: BucketStorage):
    """Files whose content the bucket has lost are named, and the others arrive."""
    context = create_context(wire)
    contents = {"small": b"1", "large": bytes(3 << 20), "kept": b"2"}
    for name, content in contents.items():
        put_file(wire, context, f"{TOP}/{name}", content)
    manifest = storage.manifest(context)
    for name in "small", "large":
        obstore.delete(storage.objects, f"contexts/{context}/files/{manifest.file(f'{TOP}/{name}').blob}")
    with wire.session(PersistenceDataList=[sync_item(context, TOP)]) as session:
        [one] = wait_for_transfers(wire, session)
        assert one["status"] == "Failed"
        assert "small" in one["errorMessage"]
        assert "large" in one["errorMessage"]
        assert "kept" not in one["errorMessage"]
        assert wire.stdout(session, f"ls {TOP}; cat {TOP}/kept") == "kept\n2"


@pytest.mark.parametrize("name", [None, "taken"])
def test_a_deletion_that_was_killed(object_store: ObjectStoreServer, tmp_path: Path, name: str | None):
    """The next start finishes a deletion that had taken the name from the row, whether or not from the bucket."""
    storage = BucketStorage(object_store, f"half-deleted-{name}", tmp_path)
    with embedded(None, *storage.options, **storage.environment) as (_, wire):
        context = str(wire.data("GetContext", Name="taken", AllowCreate="True")["Id"])
        put_file(wire, context, f"{TOP}/f", b"1")
    with closing(sqlite3.connect(next(tmp_path.rglob("contexts.db")))) as db, db:
        db.execute("UPDATE contexts SET name = NULL")
    if name is None:
        [entry] = obstore.list(storage.objects, "names/").collect()
        obstore.delete(storage.objects, entry["path"])
    with embedded(None, *storage.options, **storage.environment) as (_, wire):
        assert wire.data("ListContexts") == []
        assert obstore.list(storage.objects).collect() == []
        assert wire.data("GetContext", Name="taken", AllowCreate="True")["Id"] != context


def test_deletions_killed_at_any_moment(object_store: ObjectStoreServer, tmp_path: Path):
    """After a kill, a context that was being deleted is whole with its name, or gone with all its content."""
    storage = BucketStorage(object_store, "killed-deletions", tmp_path)
    for number in range(4):
        with embedded(None, *storage.options, **storage.environment) as (child, wire):
            context = str(wire.data("GetContext", Name=f"name-{number}", AllowCreate="True")["Id"])
            for file in range(5):
                put_file(wire, context, f"{TOP}/f{file}", b"1")
            timer = threading.Timer(random.uniform(0.0, 0.05), child.process.kill)
            timer.start()
            with contextlib.suppress(httpx.TransportError, ValueError):
                wire.data("DeleteContext", Id=context)
            timer.join()
            child.process.wait(60)
        with embedded(None, *storage.options, **storage.environment) as (_, wire):
            names = [entry["Name"] for entry in wire.data("ListContexts")]
            left = [entry["path"] for entry in obstore.list(storage.objects, f"contexts/{context}/").collect()]
            if f"name-{number}" in names:
                assert context_files(wire, context, TOP) == {f"f{file}": b"1" for file in range(5)}
                wire.data("DeleteContext", Id=context)
            else:
                assert left == []


def test_failing_bucket(tmp_path: Path):
    """With an unreachable or damaged bucket, a sync fails and changes nothing."""
    with running_object_store(quiet_port()) as server:
        storage = BucketStorage(server, "failing", tmp_path)
        with embedded(None, *storage.options, **storage.environment) as (child, wire):
            _fail(wire, storage, server)
            assert child.close_stdin() == 0
            complaints = child.standard_error()
            assert "Traceback" not in complaints
            assert not any(secret in complaints for secret in CREDENTIALS.values())


def _fail(wire: Wire, storage: BucketStorage, server: ObjectStoreServer) -> None:
    context = create_context(wire)
    session = wire.create(PersistenceDataList=[sync_item(context, TOP)])
    wait_for_transfers(wire, session)
    wire.stdout(session, f"mkdir -p {TOP}; echo 1 > {TOP}/f")
    server.stop()
    wire.data("SyncContext", SessionId=session, ContextId=context)
    [one] = wait_for_transfers(wire, session, ContextId=context, TaskType="upload")
    assert (one["status"], "The bucket of contexts failed" in one["errorMessage"]) == ("Failed", True)
    with pytest.raises(Refused) as refused:
        wire.data("DescribeContextFiles", ContextId=context, ParentFolderPath="/")
    assert (refused.value.status, refused.value.code) == (503, "ContextStoreUnavailable")
    with running_object_store(server.port):
        assert context_files(wire, context, TOP) == {}
        sync_and_check(wire, session)
        assert context_files(wire, context, TOP) == {"f": b"1\n"}
        obstore.put(storage.objects, f"contexts/{context}/manifest", b"not a manifest")
        with pytest.raises(Refused) as refused:
            wire.data("DescribeContextFiles", ContextId=context, ParentFolderPath="/")
        assert (refused.value.status, refused.value.code) == (503, "ContextStoreUnavailable")
        assert "damaged" in refused.value.message
        delete_and_wait(wire, session)


def test_unusable_urls(object_store: ObjectStoreServer):
    """The error for an unusable URL says why, and repeats no secret."""
    endpoint = object_store.endpoint
    for url, said in (
        ("gs://bucket", "must be s3://"),
        ("s3://", "must be s3://"),
        (f"s3://{BUCKET}?secret_access_key=hush&endpoint={endpoint}", "secret_access_key"),
        (f"s3://user:hush@{BUCKET}", "credentials come from the environment"),
        ("oss://bucket", "needs an endpoint"),
        (f"s3://no-such-bucket?endpoint={endpoint}&region=us-east-1", "NoSuchBucket"),
    ):
        with Child(["-m", "agentbay.local", "--context-store", url], **CREDENTIALS, NO_PROXY="127.0.0.1") as child:
            assert child.process.wait(60) == 1
            assert said in child.standard_error()
            assert "Traceback" not in child.standard_error()
            assert not any(secret in child.standard_error() for secret in ("hush", *CREDENTIALS.values()))


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
    """A URL is parsed to the settings of obstore, for S3 and OSS."""
    environment = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "LTAI", "ALIBABA_CLOUD_SECURITY_TOKEN": "T"}
    assert parse_bucket_url(url, environment) == settings


def test_malformed_urls():
    """The error for a malformed URL repeats only names of settings."""
    with pytest.raises(ConfigurationError) as refused:
        parse_bucket_url("s3://b?token=hush", {})
    assert "token" in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("conditional_put", [True, False])
def test_garbage_collection(
    object_store: ObjectStoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conditional_put: bool
):
    """Unreferenced blobs are deleted after an hour, orphans after a day."""
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
