"""Environment variables and presigned copies on the local runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from agentbay import AsyncAgentBay, AsyncSession, Config, OssError
from agentbay.local.outbound.address_check import is_public_address
from tests import cutting
from tests.http_server import Handler, Server, serving


class Storage(Server):
    """A server behind presigned URLs, which keeps what is put into it."""

    def __init__(self) -> None:
        super().__init__(StorageHandler)
        self.objects: dict[str, bytes] = {}

    def url(self, name: str) -> str:
        return f"http://{self.host}/{name}?Signature=c2lnbmF0dXJl"


class StorageHandler(Handler):
    server: Storage

    def do_PUT(self) -> None:
        self.server.objects[self.path] = self.body()
        self.answer(200)

    def do_GET(self) -> None:
        if self.path.startswith("/moved"):
            self.answer(302, headers={"location": "/other"})
        elif self.path in self.server.objects:
            self.answer(200, self.server.objects[self.path])
        else:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    with serving(Storage()) as server:
        yield server


@pytest.fixture(scope="module")
async def session(storage: Storage) -> AsyncIterator[AsyncSession]:
    with cutting.runtime("--storage-host", storage.host) as port:
        config = Config(endpoint=f"http://127.0.0.1:{port}")
        async with AsyncAgentBay(cutting.KEY, config) as bay, bay.session() as session:
            yield session


async def test_variables_hold_for_what_begins_afterwards(session: AsyncSession) -> None:
    """Commands, processes, terminals and code see variables set before they start."""
    values = {"PLAIN": "x", "ODD": "two\nlines = 'ü'", "EMPTY": ""}
    assert await session.env.set(values)
    assert (await session.env.get(["PLAIN", "ODD", "EMPTY", "NOT_SET"])).envs == values
    assert {"PLAIN", "HOME", "PATH"} <= set((await session.env.get()).envs)
    assert (await session.command.run('printf "$ODD"')).output == values["ODD"]
    assert (await session.command.run("echo $PLAIN", envs={"PLAIN": "y"})).output == "y\n"
    assert (await session.command.run("echo $PLAIN")).output == "x\n"
    process = await session.command.start("echo $PLAIN")
    assert await process.stdout.read() == "x\n"
    for text in ("one", "two"):
        assert await session.env.set({"PLAIN": text})
        ran = await session.code.run_code("import os; os.environ['PLAIN']", "python")
        assert ran.results[0].text == f"'{text}'"
    handle = await session.pty.create(shell="/bin/sh -c 'test $PLAIN = two && exit 7'")
    assert await handle.wait(timeout_s=60) == 7


async def test_search_path(bay: AsyncAgentBay) -> None:
    """`$PATH` in a new PATH expands to the old one, and commands still run."""
    async with bay.session() as session:
        await _search_path(session)


async def _search_path(session: AsyncSession) -> None:
    before = (await session.env.get(["PATH"])).envs["PATH"]
    assert await session.env.set({"PATH": "/mine:$PATH:${PATH}:$PATHS"})
    assert (await session.command.run("echo $PATH; ls -d /")).output == f"/mine:{before}:{before}:$PATHS\n/\n"
    assert await session.env.set({"PATH": "/none"})
    assert (await session.command.run("echo here")).output == "here\n"
    assert (await session.env.get(["PATH"])).envs == {"PATH": "/none"}
    assert (await session.command.run("ls")).exit_code == 127


@pytest.mark.parametrize("name", ["", "A=B", "A\0"])
async def test_impossible_variables(session: AsyncSession, name: str) -> None:
    """Impossible variables are refused, with the whole call."""
    assert not await session.env.set({"GOOD": "1", name: "2"})
    assert (await session.env.get(["GOOD"])).envs == {}


async def test_presigned_copies(session: AsyncSession, storage: Storage) -> None:
    """A large file is copied out and in unchanged, replacing atomically."""
    await session.command.run("head -c 9000001 /dev/urandom > big; echo old > back")
    assert (await session.oss.upload_anonymous(storage.url("big"), "big")).content == "Upload success"
    assert (await session.oss.download_anonymous(storage.url("big"), "back")).content == "Download success"
    assert (await session.command.run("cmp big back && ls")).output == "back\nbig\n"
    assert await session.oss.download_anonymous(storage.url("big"), "/tmp/new/deep")


async def test_copies_that_fail(session: AsyncSession, storage: Storage) -> None:
    """Failed copies leave nothing behind."""
    oss = session.oss
    for result, why in (
        (await oss.download_anonymous(storage.url("none"), "x"), "HTTP 404 NoSuchKey"),
        (await oss.download_anonymous(storage.url("moved"), "x"), "HTTP 302"),
        (await oss.upload_anonymous(storage.url("x"), "none"), "No such file"),
        (await oss.upload_anonymous(storage.url("x"), "/tmp"), "not a file"),
        (await oss.upload_anonymous("ftp://127.0.0.1/x", "/etc/passwd"), "http"),
    ):
        assert isinstance(result.exception, OssError)
        assert why in result.error_message
        assert "c2lnbmF0dXJl" not in result.error_message
    assert (await session.command.run("find / -name '.agentbay-*' 2>/dev/null; ls x")).stdout == ""


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:1", "[::1]:1", "169.254.169.254", "0.0.0.0:1", "10.0.0.1"])
async def test_ssrf_is_refused(session: AsyncSession, host: str) -> None:
    """Non-public addresses are refused unless allowed by name (SSRF)."""
    result = await session.oss.download_anonymous(f"http://{host}/x", "x")
    assert "not a public address" in result.error_message


@pytest.mark.parametrize("address", ["::ffff:127.0.0.1", "fe80::1%eth0", "224.0.0.1", "100.64.0.1", "::"])
def test_disguised_addresses(address: str) -> None:
    """Disguised notations of an address are judged by their meaning."""
    assert not is_public_address(address)


async def test_credentials_come_first(session: AsyncSession) -> None:
    """Copies need credentials, and incomplete ones are refused."""
    assert "oss_env_init first" in (await session.oss.upload("b", "o", "/etc/passwd")).error_message
    assert not await session.oss.env_init("", "", "")
