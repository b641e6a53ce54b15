"""Entry points: what starts with a session, as its image or its caller says."""

from __future__ import annotations

import pytest

from agentbay import AsyncAgentBay, AsyncSession, CreateSessionParams, InvalidRequestError
from tests.local.images.builds import Built, busybox_layer, directory, member, needs_busybox

pytestmark = needs_busybox
SCRIPT = b"""#!/bin/sh
echo "$0 $* of $WHO in $(pwd) as $(id -u)"
cat
[ "$1" = stay ] && exec sleep 1000
exit 3
"""


@pytest.fixture(scope="module", autouse=True)
async def images(bay: AsyncAgentBay, tmp_path_factory: pytest.TempPathFactory) -> None:
    layer = busybox_layer(directory("srv"), member("bin/entry", SCRIPT, mode=0o755))
    config = {"Env": ["PATH=/bin"], "WorkingDir": "/srv", "User": "app"}
    made = {
        "service:1": {**config, "Entrypoint": ["entry", "stay"], "Cmd": ["a b"]},
        "tool:1": {**config, "Entrypoint": ["/bin/entry"]},
        "command:1": {**config, "Cmd": ["entry", "stay"]},
        "broken:1": {**config, "Entrypoint": ["/bin/absent"]},
    }
    for name, settings in made.items():
        archive = tmp_path_factory.mktemp("image") / "image.tar"
        archive.write_bytes(Built([layer], settings).oci_archive())
        await bay.images.import_file(archive, name=name)


async def first_line(session: AsyncSession) -> str:
    """The first line that the entry point of a session writes."""
    async for line in (await session.command.attach("entrypoint")).stdout.lines():
        return line
    return ""


async def entrypoint(session: AsyncSession) -> str:
    return (await session.info()).unwrap().data.entrypoint


async def test_entry_points_of_images(bay: AsyncAgentBay) -> None:
    """It starts with CMD as arguments, with the session's variables, directory and user, without input."""
    async with bay.session(CreateSessionParams(image_id="service:1", envs={"WHO": "me"})) as session:
        assert await first_line(session) == "/bin/entry stay a b of me in /srv as 4711"
        assert await entrypoint(session) == "entry stay 'a b'"
        process = await session.command.attach("entrypoint")
        assert [known.id for known in await session.command.list()] == [process.id]
        assert await process.poll() is None
        await process.kill()
        assert (await session.command.run("echo still here")).output == "still here\n"


async def test_a_session_outlives_its_entry_point(bay: AsyncAgentBay) -> None:
    """An entry point that ends, as that of a tool, leaves the session as it is, and its exit code is kept."""
    async with bay.session(CreateSessionParams(image_id="tool:1")) as session:
        process = await session.command.attach("entrypoint")
        assert await process.wait() == 3
        assert await process.stdout.read() == "/bin/entry  of  in /srv as 4711\n"
        assert (await session.command.run("echo $PATH")).output.startswith("/bin")


async def test_a_command_alone_is_not_started(bay: AsyncAgentBay) -> None:
    """A CMD without ENTRYPOINT is what the caller's own commands replace."""
    async with bay.session(CreateSessionParams(image_id="command:1")) as session:
        assert (await session.command.list(), await entrypoint(session)) == ([], "")


async def test_another_entry_point(bay: AsyncAgentBay) -> None:
    """A caller chooses another one, or none, for sessions on an image and for others."""
    async with bay.session(CreateSessionParams(image_id="service:1", entrypoint=[])) as session:
        assert (await session.command.list(), await entrypoint(session)) == ([], "")
        await session.snapshot("quiet:1")
    async with bay.session(CreateSessionParams(image_id="quiet:1")) as session:
        assert await session.command.list() == []
    asked = CreateSessionParams(image_id="command:1", entrypoint=["entry", "$WHO"], envs={"WHO": "me"})
    async with bay.session(asked) as session:
        assert await first_line(session) == "/bin/entry $WHO of me in /srv as 4711"
    async with bay.session(CreateSessionParams(entrypoint=["sh", "-c", "echo of the machine"])) as session:
        assert await first_line(session) == "of the machine"
        await session.snapshot("machine:1")
    async with bay.session(CreateSessionParams(image_id="machine:1")) as session:
        assert await first_line(session) == "of the machine"
        assert await entrypoint(session) == "sh -c 'echo of the machine'"


async def test_forks_have_their_own(bay: AsyncAgentBay) -> None:
    """Each fork starts the entry point anew, with the same variables."""
    async with bay.session(CreateSessionParams(image_id="service:1", envs={"WHO": "me"})) as session:
        (fork,) = await session.fork()
        assert await first_line(fork) == "/bin/entry stay a b of me in /srv as 4711"
        (await fork.delete()).unwrap()


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"image_id": "broken:1"}, "/bin/absent cannot be started"),
        ({"image_id": "service:1", "entrypoint": ["nowhere"]}, "nowhere cannot be started"),
        ({"entrypoint": [""]}, "is no program with its arguments"),
    ],
)
async def test_entry_points_that_cannot_start(bay: AsyncAgentBay, params: dict[str, object], words: str) -> None:
    """The error names the program and the way out, and no session is left."""
    before = (await bay.list()).total_count
    made = await bay.create(CreateSessionParams(**params))  # type: ignore[arg-type]
    assert isinstance(made.exception, InvalidRequestError)
    assert words in made.error_message
    assert (await bay.list()).total_count == before
    async with bay.session(CreateSessionParams(image_id="broken:1", entrypoint=[])) as session:
        assert (await session.command.run("echo runs")).output == "runs\n"
