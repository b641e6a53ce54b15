"""Contexts: the service, the contexts of a session, and transfers, over real sockets."""

from __future__ import annotations

import pickle
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import agentbay
from agentbay import (
    AgentBayError,
    APIError,
    AsyncAgentBay,
    AsyncSession,
    BetaContextMount,
    ClearanceTimeoutError,
    Config,
    ConnectionLost,
    Context,
    ContextFileEntry,
    ContextListParams,
    ContextStatusData,
    ContextSync,
    DeadlineExceeded,
    FileError,
    FileUrlResult,
    MappingPolicy,
    NotFoundError,
    PermissionDeniedError,
    ReplyError,
    SyncPolicy,
)
from agentbay._concurrency import async_sleep
from agentbay._transport.contexts import get_transfer_state, total_poll_seconds
from agentbay._transport.presigned import make_get, make_put, redirect_target
from tests.scripted_contexts import SECRET, ContextService, Refusal, serving


@pytest.fixture
def service() -> Iterator[ContextService]:
    with serving() as made:
        yield made


@pytest.fixture
async def bay(service: ContextService) -> AsyncIterator[AsyncAgentBay]:
    async with AsyncAgentBay("akm-test", Config(endpoint=service.url), timeout=60) as made:
        yield made


@pytest.fixture
def session(bay: AsyncAgentBay) -> AsyncSession:
    return AsyncSession(bay, "session-1")


async def test_life_of_a_context(bay: AsyncAgentBay, service: ContextService) -> None:
    """A context is created, found by name and id, renamed and deleted."""
    made = (await bay.context.create("mine")).unwrap()
    assert made.context is not None
    assert service.calls[-1][1]["LoginRegionId"] == bay.region_id
    again = await bay.context.get("mine", create=True)
    found = await bay.context.get(context_id=made.context_id)
    assert again.context_id == found.context_id == made.context_id
    assert "LoginRegionId" not in service.calls[-1][1]
    assert found.context == Context(made.context_id, "mine", "2025-05-29T12:00:00Z", None)
    made.context.name = "yours"
    updated = await bay.context.update(made.context)
    assert (updated.success, updated.data) == (True, True)
    assert (await bay.context.get("yours")).context_id == made.context_id
    assert (await bay.context.delete(made.context)).data is True
    assert not await bay.context.get("yours")


@pytest.mark.parametrize("empty", [False, True], ids=["refused", "success without data"])
async def test_unknown_context(bay: AsyncAgentBay, service: ContextService, empty: bool) -> None:
    """An unknown context fails, in whichever way the service says so."""
    service.empty_get = empty
    for result in (await bay.context.get("none"), await bay.context.get_clear_status("SdkCtx-none")):
        assert not result.success
        assert isinstance(result.exception, NotFoundError)
        assert result.context_id == "" or result.context_id is None
    with pytest.raises(NotFoundError):
        (await bay.context.get("none")).unwrap()


async def test_arguments_of_get(bay: AsyncAgentBay, service: ContextService) -> None:
    """Impossible arguments are refused before anything is sent."""
    with pytest.raises(AgentBayError):
        await bay.context.get()
    with pytest.raises(AgentBayError):
        await bay.context.get(create=True, context_id="x")
    assert not await bay.context.create(" ")
    assert service.calls == []


async def test_list_and_iterate(bay: AsyncAgentBay, service: ContextService) -> None:
    """A page has its cursor, and the iterator makes one call per page."""
    ids = [service.add(f"c{number}") for number in range(7)]
    page = (await bay.context.list(ContextListParams(max_results=3))).unwrap()
    assert ([context.id for context in page.contexts], page.max_results, page.total_count) == (ids[:3], 3, 7)
    rest = await bay.context.list(ContextListParams(max_results=3, next_token=page.next_token))
    assert [context.id for context in rest.contexts] == ids[3:6]
    assert (await bay.context.list()).max_results == 10
    service.calls.clear()
    assert [context.id async for context in bay.context.iter_contexts(limit=3)] == ids
    assert len(service.calls) == 3


@pytest.mark.parametrize("plain", [False, True], ids=["HTTP 400", "HTTP 200"])
async def test_which_methods_raise(
    bay: AsyncAgentBay, service: ContextService, session: AsyncSession, plain: bool
) -> None:
    """Ordinary refusals are failed results, HTTP errors raise where documented."""
    context = Context("SdkCtx-x", "x")
    raising = {
        "ModifyContext": lambda: bay.context.update(context),
        "DeleteContext": lambda: bay.context.delete(context),
        "ClearContext": lambda: bay.context.clear(context.id),
        "DescribeContextFiles": lambda: bay.context.list_files(context.id, "/"),
        "GetContextFileUploadUrl": lambda: bay.context.get_file_upload_url(context.id, "/a"),
        "GetContextFileDownloadUrl": lambda: bay.context.get_file_download_url(context.id, "/a"),
        "DeleteContextFile": lambda: bay.context.delete_file(context.id, "/a"),
        "GetContextInfo": lambda: session.context.info(),
        "SyncContext": lambda: session.context.sync(),
        "BindContexts": lambda: session.context.bind(ContextSync(context.id, "/a")),
        "DescribeSessionContexts": lambda: session.context.list_bindings(),
    }
    service.refuse = {action: Refusal("SomeCode", "some message", plain=plain) for action in (*raising, "GetContext")}
    service.refuse["ListContexts"] = service.refuse["GetContext"]
    for action, make in raising.items():
        call: Any = make
        if plain:
            result = await call()
            assert (bool(result), result.error_message) == (False, "[SomeCode] some message"), action
        else:
            with pytest.raises(APIError, match="SomeCode"):
                await call()
    for result in (await bay.context.get("x"), await bay.context.list(), await bay.context.get_clear_status("x")):
        assert result.error_message == "[SomeCode] some message"


async def test_clear_waits_until_it_is_done(bay: AsyncAgentBay, service: ContextService) -> None:
    """The first poll is immediate, so a finished clearing costs no pause."""
    context_id = service.add("mine")
    began = time.monotonic()
    result = (await bay.context.clear(context_id, poll_interval=60)).unwrap()
    assert (result.status, result.context_id, time.monotonic() - began < 50) == ("available", context_id, True)
    service.clearing = 3
    assert (await bay.context.clear(context_id, poll_interval=0.01)).status == "available"
    assert (await bay.context.start_clear(context_id)).status == "clearing"


async def test_clear_ends_in_time(bay: AsyncAgentBay, service: ContextService) -> None:
    """Clearing ends at its timeout whatever the interval, after a last poll."""
    context_id, service.clearing = service.add("mine"), 1000
    began = time.monotonic()
    with pytest.raises(ClearanceTimeoutError, match="clearing"):
        await bay.context.clear(context_id, timeout=1, poll_interval=30)
    assert 0.9 < time.monotonic() - began < 25
    assert service.names() == ["ClearContext", "GetContext", "GetContext"]


async def test_list_files(bay: AsyncAgentBay, service: ContextService, tmp_path: Path) -> None:
    """Pages by number, by token, and the iterator give the same entries."""
    context_id = service.add("mine")
    for number in range(5):
        (tmp_path / f"f{number}").write_bytes(b"x" * number)
    await bay.context.upload(context_id, tmp_path, "/data")
    by_number = [(await bay.context.list_files(context_id, "/data", page, 2)).unwrap() for page in (1, 2, 3)]
    assert {"PageNumber", "PageSize"} <= service.calls[-1][1].keys()
    by_token = [await bay.context.list_files(context_id, "/data", max_results=3)]
    assert not {"PageNumber", "PageSize"} & service.calls[-1][1].keys()
    by_token.append(await bay.context.list_files(context_id, "/data", next_token=by_token[0].next_token))
    iterated = [entry async for entry in bay.context.iter_files(context_id, "/data", limit=2)]
    assert [entry.file_name for entry in iterated] == [f"f{number}" for number in range(5)]
    for pages in (by_number, by_token):
        assert [entry for page in pages for entry in page.entries] == iterated
    assert isinstance(iterated[0], ContextFileEntry)
    assert not iterated[0].is_folder
    assert (await bay.context.delete_file(context_id, "/data/f1")).data is True
    assert not await bay.context.delete_file(context_id, "/data/f1")


async def test_url_is_a_secret(bay: AsyncAgentBay, service: ContextService) -> None:
    """A presigned URL appears in its own field only."""
    result = await bay.context.get_file_upload_url(service.add("mine"), "/a")
    assert SECRET in result.url
    assert result.expire_time == 3600
    assert SECRET not in repr(result)
    assert isinstance(result, FileUrlResult)


async def test_directory_there_and_back(bay: AsyncAgentBay, service: ContextService, tmp_path: Path) -> None:
    """A directory survives upload and download, with progress over all of it."""
    context_id, source, target = service.add("mine"), tmp_path / "a", tmp_path / "b"
    contents = {"x.bin": bytes(range(256)) * 9000, "sub/ü %3F.txt": "grün".encode(), "sub/deep/empty": b""}
    for name, data in contents.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    total, seen = sum(map(len, contents.values())), list[int]()
    sent = await bay.context.upload(context_id, source, "/data/", progress=seen.append)
    assert sent.files == tuple(sorted(f"/data/{name}" for name in contents))
    assert (sent.size, seen[-1], seen == sorted(seen), len(seen) > 2) == (total, total, True, True)
    assert all(method == "PUT" for method, _, _ in service.transfers)
    seen.clear()
    fetched = await bay.context.download(context_id, "/data", target, progress=seen.append)
    assert (fetched, seen[-1]) == (sent, total)
    assert {
        path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()
    } == contents


async def test_one_file_there_and_back(bay: AsyncAgentBay, service: ContextService, tmp_path: Path) -> None:
    """A file is stored under its given name and replaced only if allowed."""
    context_id, here, back = service.add("mine"), tmp_path / "a", tmp_path / "new" / "b"
    here.write_bytes(b"12345")
    assert (await bay.context.upload(context_id, here, "/data/c")).files == ("/data/c",)
    assert (await bay.context.download(context_id, "/data/c", back)).size == 5
    here.write_bytes(b"123")
    await bay.context.upload(context_id, here, "/data/c")
    with pytest.raises(FileError, match="overwrite=False"):
        await bay.context.download(context_id, "/data/c", back, overwrite=False)
    assert back.read_bytes() == b"12345"
    await bay.context.download(context_id, "/data/c", back)
    assert back.read_bytes() == b"123"
    with pytest.raises(NotFoundError):
        await bay.context.download(context_id, "/data/none", tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "new"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"lose_uploads": True}, "does not have the file"),
        ({"cut_uploads": True}, "2 bytes of 5"),
        ({"forbidden": True}, "AccessDenied"),
        ({"broken": 99}, "HTTP 503"),
        ({"redirects": 99}, "too often"),
    ],
    ids=["lost", "cut", "forbidden", "broken", "redirected"],
)
async def test_upload_that_fails(
    bay: AsyncAgentBay, service: ContextService, tmp_path: Path, fault: dict[str, Any], error: str
) -> None:
    """An incomplete upload raises, naming the path and never the URL."""
    context_id, here = service.add("mine"), tmp_path / "a"
    here.write_bytes(b"12345")
    vars(service).update(fault)
    with pytest.raises(AgentBayError, match=error) as caught:
        await bay.context.upload(context_id, here, "/data/a")
    assert "/data/a" in str(caught.value)
    assert SECRET not in f"{caught.value!r} {caught.value} {pickle.dumps(caught.value)!r}"
    assert isinstance(caught.value, PermissionDeniedError) or "forbidden" not in fault


@pytest.mark.parametrize("fault", [{"broken": 1}, {"redirects": 2}, {"no_checksum": True}], ids=str)
async def test_upload_that_recovers(
    bay: AsyncAgentBay, service: ContextService, tmp_path: Path, fault: dict[str, Any]
) -> None:
    """A storage that fails once, redirects, or has no checksum gets the file."""
    context_id, here = service.add("mine"), tmp_path / "a"
    for data in (b"12345", b""):
        vars(service).update(fault)
        here.write_bytes(data)
        await bay.context.upload(context_id, here, "/data/a")
        assert service.files[context_id, "/data/a"].data == data


@pytest.mark.parametrize(
    ("fault", "kind"),
    [({"short": 99}, ConnectionLost), ({"forbidden": True}, PermissionDeniedError), ({"stall": 0.3}, ConnectionLost)],
    ids=str,
)
async def test_download_that_fails(
    bay: AsyncAgentBay, service: ContextService, tmp_path: Path, fault: dict[str, Any], kind: type[AgentBayError]
) -> None:
    """A failed download keeps the old file and leaves nothing beside it."""
    context_id, here = service.add("mine"), tmp_path / "a"
    here.write_bytes(b"12345")
    await bay.context.upload(context_id, here, "/data/a")
    here.write_bytes(b"old")
    vars(service).update(fault)
    with pytest.raises(kind) as caught:
        await bay.context.download(context_id, "/data/a", here)
    assert SECRET not in f"{caught.value!r} {caught.value}"
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


async def test_download_that_recovers(bay: AsyncAgentBay, service: ContextService, tmp_path: Path) -> None:
    """A download that breaks once starts again from the beginning."""
    context_id, here = service.add("mine"), tmp_path / "a"
    here.write_bytes(b"12345")
    await bay.context.upload(context_id, here, "/data/a")
    service.short = 1
    assert (await bay.context.download(context_id, "/data", tmp_path / "b")).size == 5
    assert (tmp_path / "b" / "a").read_bytes() == b"12345"


async def test_time_limit_of_a_transfer(bay: AsyncAgentBay, service: ContextService, tmp_path: Path) -> None:
    """The given timeout holds for the whole transfer."""
    context_id, here = service.add("mine"), tmp_path / "a"
    here.write_bytes(b"12345")
    await bay.context.upload(context_id, here, "/data/a")
    service.stall = 5
    with pytest.raises(DeadlineExceeded):
        await bay.context.download(context_id, "/data/a", tmp_path / "b", timeout=0.3)


async def test_redirect_is_given_no_secret(bay: AsyncAgentBay, service: ContextService, tmp_path: Path) -> None:
    """A storage receives no key, no cookie and no referrer."""
    context_id, here = service.add("mine"), tmp_path / "a"
    here.write_bytes(b"12345")
    service.redirects = 1
    await bay.context.upload(context_id, here, "/data/a")
    assert [method for method, _, _ in service.transfers] == ["PUT", "PUT"]
    for _, _, headers in service.transfers:
        assert headers.keys() <= {"host", "accept", "user-agent", "content-length", "connection", "accept-encoding"}
        assert "akm-test" not in str(headers)


async def test_path_traversal_in_entry_names(bay: AsyncAgentBay, service: ContextService, tmp_path: Path) -> None:
    """An entry whose name leaves its folder (path traversal) is refused."""
    context_id = service.add("mine")
    (tmp_path / "a").write_bytes(b"x")
    await bay.context.upload(context_id, tmp_path / "a", "/data/..")
    with pytest.raises(FileError, match="cannot be used"):
        await bay.context.download(context_id, "/data", tmp_path / "b")


async def test_progress_may_end_a_transfer(bay: AsyncAgentBay, service: ContextService, tmp_path: Path) -> None:
    """What the progress callback raises comes out, and nothing is left behind."""
    context_id = service.add("mine")
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)

    def enough(size: int) -> None:
        raise KeyError(size)

    with pytest.raises(KeyError):
        await bay.context.upload(context_id, tmp_path / "a", "/data/a", progress=enough)
    await bay.context.upload(context_id, tmp_path / "a", "/data/a")
    with pytest.raises(KeyError):
        await bay.context.download(context_id, "/data/a", tmp_path / "b", progress=enough)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


async def test_memory_stays_flat(bay: AsyncAgentBay, service: ContextService, tmp_path: Path) -> None:
    """A file of 64 MB is transferred with a few MB of memory."""
    context_id, size = service.add("mine"), 64 << 20
    with (tmp_path / "a").open("wb") as file:
        file.truncate(size)
    tracemalloc.start()
    try:
        await bay.context.upload(context_id, tmp_path / "a", "/data/a")
        await bay.context.download(context_id, "/data/a", tmp_path / "b")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "b").stat().st_size == size
    assert peak < 12 << 20


async def test_info(session: AsyncSession, service: ContextService) -> None:
    """Transfers are read from their nested text, filtered as asked."""
    service.task("c1", "/a", "upload", "Success")
    service.task("c2", "/b", "download", "Running")
    result = (await session.context.info(task_type="download")).unwrap()
    assert [(item.context_id, item.path, item.status) for item in result.context_status_data] == [
        ("c2", "/b", "Running")
    ]
    assert service.calls[-1][1]["TaskType"] == "download"
    assert len((await session.context.info()).context_status_data) == 2


async def test_sync(session: AsyncSession, service: ContextService) -> None:
    """`sync` waits until its transfer has ended, whatever came before."""
    service.task("c1", "/a", "download", "Failed")
    result = await session.context.sync("c1", "/a", "upload")
    assert (result.success, result.error_message) == (True, "")
    asked = next(fields for action, fields in service.calls if action == "SyncContext")
    assert (asked["Mode"], asked["Path"], asked["ContextId"]) == ("upload", "/a", "c1")
    assert service.names().count("GetContextInfo") == 2
    assert (await session.context.sync()).success  # nothing is bound, so there is nothing to wait for
    assert not await session.context.sync(mode="sideways")


async def test_sync_that_fails(session: AsyncSession, service: ContextService) -> None:
    """A failed transfer is reported with path and reason, a late one as such."""
    service.after_sync, service.task_error = ["Running", "Failed"], "disk full"
    result = await session.context.sync("c1", "/a", "upload")
    assert not result.success
    assert "/a" in result.error_message
    assert "disk full" in result.error_message
    service.after_sync = ["Running"]
    late = await session.context.sync("c1", "/a", "upload", max_retries=2, retry_interval=200)
    assert "did not end" in late.error_message
    assert isinstance(late.exception, TimeoutError)


async def test_sync_with_callback(session: AsyncSession, service: ContextService) -> None:
    """With a callback `sync` returns at once and reports the end once."""
    flags = list[bool]()
    for statuses, flag in ((["Running", "Running", "Success"], True), (["Running", "Failed"], False)):
        flags.clear()
        service.after_sync = statuses
        result = await session.context.sync("c1", "/a", callback=flags.append)
        assert (result.success, flags) == (True, [])
        await _until(lambda: bool(flags))
        await async_sleep(0.1)
        assert flags == [flag]

    def raising(flag: bool) -> None:
        flags.append(flag)
        raise ZeroDivisionError

    flags.clear()
    service.after_sync = ["Success"]
    await session.context.sync("c1", "/a", callback=raising)
    await _until(lambda: bool(flags))
    assert (await session.context.sync("c1", "/a")).success
    flags.clear()
    service.refuse["SyncContext"] = Refusal("SomeCode", "no", plain=True)
    assert not await session.context.sync("c1", "/a", callback=flags.append)
    assert flags == [False]


async def _until(true: Any) -> None:
    until = time.monotonic() + 60
    while not true() and time.monotonic() < until:
        await async_sleep(0.02)


async def test_bind(session: AsyncSession, service: ContextService) -> None:
    """One request binds all: copies are awaited, mounts are not."""
    one, two = service.add("one"), service.add("two")
    policy = SyncPolicy(mapping_policy=MappingPolicy("/ü"))
    result = await session.context.bind(ContextSync(one, "/a", policy), BetaContextMount(two, "/b"))
    assert result.success
    assert service.names() == ["BindContexts", "DescribeSessionContexts", "GetContextInfo", "GetContextInfo"]
    assert "\\\\u00fc" in service.calls[0][1]["PersistenceDataList"]
    bindings = (await session.context.list_bindings()).unwrap().bindings
    assert [(item.context_id, item.context_name, item.path) for item in bindings] == [
        (one, "one", "/a"),
        (two, "two", "/b"),
    ]
    again = await session.context.bind(ContextSync(one, "/a"))
    assert again.error_message == "[PathAlreadyBound] /a is bound"


async def test_bind_tells_the_truth(session: AsyncSession, service: ContextService) -> None:
    """A context that does not arrive fails the result, unless nobody waits."""
    context_id = service.add("one")
    service.after_sync, service.task_error = ["Running", "Failed"], "quota"
    result = await session.context.bind(ContextSync(context_id, "/a"))
    assert not result.success
    assert "bound" in result.error_message
    assert "/a" in result.error_message
    assert "quota" in result.error_message
    assert (await session.context.bind(ContextSync(context_id, "/b"), wait_for_completion=False)).success
    service.after_sync = []  # nothing to copy: an empty context
    assert (await session.context.bind(ContextSync(service.add("two"), "/c"))).success


async def test_bind_nothing(session: AsyncSession, service: ContextService) -> None:
    """Binding nothing is refused before anything is sent."""
    assert (await session.context.bind()).error_message == "No contexts provided"
    with pytest.raises(TypeError):
        await session.context.bind("SdkCtx-1")  # type: ignore[arg-type]
    assert service.calls == []


async def test_delete_uploads_first(session: AsyncSession, service: ContextService) -> None:
    """delete(sync_context=True) uploads first and reports a failed upload."""
    context_id = service.add("one")
    await session.context.bind(ContextSync(context_id, "/a"))
    service.task(context_id, "/z", "download", "Failed")
    assert await session.delete(sync_context=True)
    service.after_sync, service.task_error = ["Failed"], "quota"
    result = await session.delete(sync_context=True)
    assert not result.success
    assert "was deleted" in result.error_message
    assert "quota" in result.error_message


async def test_strict_raises(service: ContextService) -> None:
    """With strict=True every refusal raises."""
    service.after_sync = ["Failed"]
    async with AsyncAgentBay("akm-test", Config(endpoint=service.url), strict=True) as bay:
        session = AsyncSession(bay, "session-1")
        with pytest.raises(NotFoundError):
            await bay.context.get("none")
        with pytest.raises(agentbay.SessionError):
            await session.context.sync("c1", "/a")


def test_which_redirects_are_followed() -> None:
    """Redirects keep the method and never leave TLS."""
    sent, got = make_put("https://a.invalid/x?s=1", 1, "upload", None), make_get("https://a.invalid/x?s=1", "download")
    assert redirect_target(sent, 200, {}) == ""
    assert redirect_target(sent, 307, {"location": "https://b.invalid/y"}) == "https://b.invalid/y"
    assert redirect_target(got, 303, {"location": "/y?s=2"}) == "https://a.invalid/y?s=2"
    for outgoing, status, headers in (
        (sent, 303, {"location": "https://b.invalid/y"}),
        (sent, 307, {"location": "http://b.invalid/y"}),
        (got, 302, {}),
    ):
        with pytest.raises(ReplyError) as caught:
            redirect_target(outgoing, status, headers)
        assert "invalid" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "ftp://x/y", "http://", "http://user:pw@x/y", "http://[x/y", f"http://{'x' * 99}/"]
)
def test_urls_that_cannot_be_used(url: str) -> None:
    """Unusable URLs are refused without being shown."""
    with pytest.raises(ReplyError) as caught:
        make_get(url, "download")
    assert str(caught.value) == "The presigned URL for the download cannot be used."


def test_when_transfers_have_ended() -> None:
    """Other transfers do not count, and the third empty poll means none."""
    running = ContextStatusData("c", "/a", "", "Running", task_type="upload")
    good, bad = (ContextStatusData("c", "/b", "", status, task_type="upload") for status in ("Success", "Failed"))
    other = ContextStatusData("c", "/b", "", "Running", task_type="download")
    assert get_transfer_state([other, good], "upload").is_finished(1)
    assert not get_transfer_state([good, bad, running], "upload").is_finished(9)
    assert [get_transfer_state([other], "upload").is_finished(looks) for looks in (1, 2, 3)] == [False, False, True]
    assert get_transfer_state([bad], "upload").errors == ("the upload of /b failed: no reason is given",)
    assert 670 < total_poll_seconds(150, 0.5) < 680
