"""Files between a session and a real S3 server."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config as StorageConfig
from moto.server import ThreadedMotoServer

from agentbay import AsyncAgentBay, AsyncSession, Config, OssError
from tests import cutting

KEYS = ("AKIA-oss-key-id", "the-oss-secret-key", "the-oss-security-token")
DATA = os.urandom(9 << 20)  # more than one block, and more than one part


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    """The host of an S3 server with a bucket."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    s3(f"127.0.0.1:{port}").create_bucket(Bucket="bucket")
    yield f"127.0.0.1:{port}"
    server.stop()


def s3(storage: str) -> Any:
    """The server's own client."""
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    options = StorageConfig(signature_version="s3v4", s3={"addressing_style": "path"})
    return boto3.client("s3", endpoint_url=f"http://{storage}", config=options, **keys)


def presigned(storage: str, method: str, name: str) -> str:
    """A presigned URL."""
    url: str = s3(storage).generate_presigned_url(method, {"Bucket": "bucket", "Key": name})
    return url


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("oss") / "log"


@pytest.fixture(scope="module")
def port(storage: str, log: Path) -> Iterator[int]:
    with log.open("w") as file, cutting.runtime("--storage-host", storage, "--log-level", "debug", log=file) as port:
        yield port


@pytest.fixture
async def session(port: int, storage: str) -> AsyncIterator[AsyncSession]:
    config = Config(endpoint=f"http://127.0.0.1:{port}")
    async with AsyncAgentBay(cutting.KEY, config) as bay, bay.session() as session:
        (await session.oss.env_init(*KEYS, f"http://{storage}", "us-east-1")).unwrap()
        yield session


async def test_there_and_back(session: AsyncSession, storage: str) -> None:
    """Files survive a bucket unchanged, empty and oddly named ones too."""
    for name, data in {"a/b c ü": DATA, "empty": b""}.items():
        await session.file_system.write_file("there", data)
        sent = (await session.oss.upload("bucket", name, "there")).unwrap()
        assert sent.content == "Upload success"
        assert s3(storage).get_object(Bucket="bucket", Key=name)["Body"].read() == data
        got = (await session.oss.download("bucket", name, "new place/back")).unwrap()
        assert got.content == "Download success"
        assert (await session.file_system.read_file("new place/back", format="bytes")).content == data


async def test_presigned_there_and_back(session: AsyncSession, storage: str) -> None:
    """Presigned URLs work without credentials in the session."""
    await session.file_system.write_file("there", DATA)
    up, down = (presigned(storage, method, "anonymous") for method in ("put_object", "get_object"))
    assert (await session.oss.upload_anonymous(up, "there")).unwrap().content == "Upload success"
    assert s3(storage).get_object(Bucket="bucket", Key="anonymous")["Body"].read() == DATA
    assert (await session.oss.download_anonymous(down, "back")).unwrap().content == "Download success"
    assert (await session.file_system.read_file("back", format="bytes")).content == DATA


async def test_failures(session: AsyncSession, storage: str) -> None:
    """A failed copy is reported and touches no file."""
    oss, files = session.oss, session.file_system
    await files.write_file("kept", "as it was")
    up, down = presigned(storage, "put_object", "x"), presigned(storage, "get_object", "none")
    elsewhere = "http://169.254.169.254/latest/meta-data"
    for result, reason in (
        (await oss.upload("no-bucket", "x", "kept"), "Upload failed: HTTP 404 NoSuchBucket"),
        (await oss.upload("../bucket", "x", "kept"), "cannot be the name of a bucket"),
        (await oss.upload("bucket", "", "kept"), "object must not be empty"),
        (await oss.upload("bucket", "x", "none"), "Upload failed: /home/wuying/none: No such file"),
        (await oss.upload("bucket", "x", "/etc"), "Upload failed: /etc is not a file"),
        (await oss.upload_anonymous(up, "none"), "Upload failed: /home/wuying/none: No such file"),
        (await oss.upload_anonymous(elsewhere, "kept"), "not a public address"),
        (await oss.download("no-bucket", "x", "kept"), "Download failed: HTTP 404 NoSuchBucket"),
        (await oss.download("bucket", "none", "kept"), "Download failed: HTTP 404 NoSuchKey"),
        (await oss.download_anonymous(down, "kept"), "Download failed: HTTP 404 NoSuchKey"),
        (await oss.download_anonymous("ftp://x/y", "kept"), "must begin with http"),
        (await oss.download_anonymous(elsewhere, "kept"), "not a public address"),
    ):
        assert not result.success
        assert isinstance(result.exception, OssError)
        with pytest.raises(OssError, match=reason):
            result.unwrap()
    assert (await files.read_file("kept")).content == "as it was"
    assert [entry.name for entry in (await files.list_directory(".")).entries if "agentbay-" in entry.name] == []


async def test_without_credentials(session: AsyncSession, storage: str) -> None:
    """Copies need the session's own credentials."""
    async with session.agent_bay.session() as other:
        assert "oss_env_init" in (await other.oss.upload("bucket", "x", "y")).error_message
        await other.file_system.write_file("x", "x")
        (await other.oss.env_init(*KEYS[:2], "", f"http://{storage}", "us-east-1")).unwrap()  # keys that last
        assert await other.oss.upload("bucket", "x", "x")
        refused = await other.oss.env_init("", "", "")
        assert "must not be empty" in refused.error_message
        assert isinstance(refused.exception, OssError)


async def test_refused_requests(
    session: AsyncSession,
    storage: str,
    log: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Refused requests are reported without showing credentials."""
    caplog.set_level(logging.DEBUG)
    await session.file_system.write_file("there", "x")
    refused = [await session.oss.upload("missing", "x", "there"), await session.oss.download("missing", "x", "back")]
    assert {result.error_message.partition(": ")[2] for result in refused} == {"HTTP 404 NoSuchBucket"}
    missing = await session.oss.download_anonymous(presigned(storage, "get_object", "none"), "back")
    shown = f"{[*refused, missing]!r} {[result.exception for result in (*refused, missing)]!r} {log.read_text()}"
    ours = ("agentbay", "httpcore", "httpx", "websockets")  # the storage and its client log here as well
    shown += "".join(record.getMessage() for record in caplog.records if record.name.startswith(ours))
    assert "DEBUG" in shown
    assert "oss_upload" in shown
    assert not [secret for secret in (*KEYS, "Signature") if secret in shown]
