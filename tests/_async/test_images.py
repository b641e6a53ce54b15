"""Images on the local runtime, and the refusal of services that have none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentbay import (
    AsyncAgentBay,
    AsyncSession,
    Config,
    CreateSessionParams,
    ImageInfo,
    InvalidArgumentError,
    InvalidRequestError,
    NotFoundError,
    NotSupportedError,
    ServiceUnavailableError,
)
from tests import scripted
from tests.local.images.builds import Built, busybox_layer, directory, member, needs_busybox, tar

pytestmark = needs_busybox
CONFIG = {
    "Env": ["PATH=/bin", "GREETING=hello"],
    "WorkingDir": "/app",
    "User": "app",
    "Entrypoint": ["/bin/entry"],
    "Cmd": ["serve"],
    "Labels": {"team": "a"},
}


@pytest.fixture(scope="module")
async def image(bay: AsyncAgentBay, tmp_path_factory: pytest.TempPathFactory) -> ImageInfo:
    archive = tmp_path_factory.mktemp("image") / "task.tar"
    entry = member("bin/entry", b"#!/bin/sh\nexec sleep 1000\n", mode=0o755)
    layers = [busybox_layer(directory("app"), member("app/task.txt", b"lower\n"), entry), tar(member("app/.wh.none"))]
    archive.write_bytes(Built(layers, CONFIG).oci_archive())
    return await bay.images.import_file(archive, name="task:1")


@pytest.fixture
async def inside(bay: AsyncAgentBay, image: ImageInfo) -> AsyncIterator[AsyncSession]:
    async with bay.session(CreateSessionParams(image_id=image.name)) as session:
        yield session


async def test_settings_of_the_image(inside: AsyncSession) -> None:
    """A session has the image's variables, working directory and user, whose id is the image's own."""
    found = await inside.command.run("id -u; id -g; pwd; echo $GREETING $HOME; cat task.txt; ls -d /home/wuying")
    assert found.output == "4711\n4712\n/app\nhello /home/app\nlower\n/home/wuying\n"
    assert inside.image_id == "task:1"


async def test_another_user(bay: AsyncAgentBay, image: ImageInfo) -> None:
    """`user=` goes before the USER of the image, in forks and snapshots too, and is never root outside."""
    async with bay.session(CreateSessionParams(image_id=image.name, user="root")) as session:
        found = await session.command.run("id -u; id -g; echo $HOME; cat /proc/self/uid_map; touch /etc/of-root")
        uid, gid, home, *mapped = found.stdout.splitlines()
        assert (uid, gid, home) == ("0", "0", "/root")
        assert "0" not in [line.split()[1] for line in mapped]
        assert (await session.code.run_code("import os; os.getuid()", "python")).result == "0"
        (fork,) = await session.fork()
        assert (await fork.command.run("id -u; ls /etc/of-root")).output == "0\n/etc/of-root\n"
        (await fork.delete()).unwrap()
    async with bay.session(CreateSessionParams(image_id=image.name, user="1234:99")) as session:
        assert (await session.command.run("id -u; id -g; pwd")).output == "1234\n99\n/app\n"
    for user, words in (
        ("stranger", "'stranger', whom its /etc/passwd does not have"),
        ("-1", "passwd"),
        ("5000000000", "id"),
    ):
        refused = await bay.create(CreateSessionParams(image_id=image.name, user=user))
        assert isinstance(refused.exception, InvalidRequestError)
        assert words in refused.error_message
    refused = await bay.create(CreateSessionParams(user="root"))
    assert "only sessions on an image have users" in refused.error_message


async def test_the_whole_root_can_be_written(bay: AsyncAgentBay, image: ImageInfo, inside: AsyncSession) -> None:
    """What a session writes anywhere is its own; the image and other sessions stay as they were."""
    (await inside.file_system.write_file("/etc/new.conf", "x")).unwrap()
    (await inside.command.run("rm /bin/wc && mv /app/task.txt /moved && mkdir /srv2 && touch /tool")).check()
    assert (await inside.file_system.read_file("/moved")).content == "lower\n"
    async with bay.session(CreateSessionParams(image_id=image.image_id)) as other:
        found = await other.command.run("ls /bin/wc /app; ls /etc/new.conf /srv2 /tool")
        assert found.stdout == "/bin/wc\n\n/app:\ntask.txt\n"


async def test_code_terminals_and_processes(inside: AsyncSession) -> None:
    """Code runs although the image has no Python, and background processes and terminals run in the image."""
    answer = await inside.code.run_code("import os; print(os.getuid(), open('/app/task.txt').read()); 6 * 7", "python")
    assert (answer.success, answer.logs.stdout) == (True, ["4711 lower\n\n"]), answer.error_message
    process = await inside.command.start("cat /app/task.txt; sleep 0.1; echo end")
    assert await process.wait() == 0
    assert await process.stdout.read() == "lower\nend\n"


async def test_an_image_without_a_shell(bay: AsyncAgentBay, tmp_path: Path) -> None:
    """Files and single programs work; what needs a shell says that there is none."""
    # `sh` is taken away, as images without a distribution have it
    (tmp_path / "bare2.tar").write_bytes(Built([busybox_layer(), tar(member("bin/.wh.sh"))]).docker_archive())
    image = await bay.images.import_file(tmp_path / "bare2.tar")
    assert (image.names, image.shell, image.python) == (["bare2:latest"], "", "")
    async with bay.session(CreateSessionParams(image_id="bare2")) as session:
        assert (await session.command.run("cat /etc/passwd")).output.startswith("root:x:0:0")
        (await session.file_system.write_file("notes/a.txt", "hello")).unwrap()
        assert (await session.file_system.read_file("/home/wuying/notes/a.txt")).content == "hello"
        refused = await session.command.run("cat /etc/passwd | wc -l")
        assert not refused.success
        assert "no shell (/bin/sh)" in refused.error_message
        assert (await session.code.run_code("1 + 1", "python")).success


async def test_management(bay: AsyncAgentBay, image: ImageInfo, tmp_path: Path) -> None:
    """Images are listed, found, imported from a folder, and removed; a session that runs one goes on."""
    assert (image.user, image.workdir, image.entrypoint, image.command) == ("app", "/app", ["/bin/entry"], ["serve"])
    assert (image.labels, image.env["GREETING"], image.layers, image.shell) == ({"team": "a"}, "hello", 2, "/bin/sh")
    (tmp_path / "Tree_1/bin").mkdir(parents=True)
    (tmp_path / "Tree_1/bin/sh").symlink_to("/bin/busybox")
    (tmp_path / "Tree_1/bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (tmp_path / "Tree_1/bin/busybox").chmod(0o755)
    seen: list[tuple[int, int]] = []
    made = await bay.images.import_file(tmp_path / "Tree_1", progress=lambda done, total: seen.append((done, total)))
    assert made.names == ["tree_1:latest"]
    assert seen[-1][0] == seen[-1][1] > 0
    assert (await bay.images.list())[0].names == ["tree_1:latest"]
    async with bay.session(CreateSessionParams(image_id="tree_1")) as session:
        assert (await bay.images.remove("tree_1")).image_id == made.image_id
        with pytest.raises(NotFoundError, match=r"no image 'tree_1'\. The runtime has .*task:1"):
            await bay.images.get("tree_1")
        assert (await session.command.run("busybox ls /bin")).output == "busybox\nsh\n"
    assert await bay.images.prune() == []
    assert (await bay.images.get("task:1")).image_id == image.image_id


async def test_refusals(bay: AsyncAgentBay, image: ImageInfo, tmp_path: Path) -> None:
    """Names that mean nothing, archives that are none and registries that are not there are typed errors."""
    refused = await bay.create(CreateSessionParams(image_id="tsak:1"))
    assert isinstance(refused.exception, InvalidRequestError)
    assert "did you mean 'task:1'?" in refused.error_message
    assert "linux_latest" in refused.error_message
    (tmp_path / "notes.txt").write_text("no archive")
    with pytest.raises(InvalidRequestError, match="no tar archive"):
        await bay.images.import_file(tmp_path / "notes.txt")
    with pytest.raises(InvalidRequestError, match="is no name for an image"):
        await bay.images.import_file(tmp_path / "notes.txt", name="../x")
    with pytest.raises(InvalidRequestError, match="names no registry"):
        await bay.images.pull("debian:12")
    with pytest.raises(ServiceUnavailableError, match=r"127\.0\.0\.1:1 cannot be reached"):
        await bay.images.pull("127.0.0.1:1/app:1")
    with pytest.raises(NotFoundError):
        await bay.images.remove("absent")


async def test_snapshot(bay: AsyncAgentBay, inside: AsyncSession) -> None:
    """A snapshot has what the session has written, removed and replaced, and the settings of its image."""
    script = (
        "echo new > /app/new; rm task.txt; rm -r /etc && mkdir /etc && echo x > /etc/only; ln new hard; chmod 640 new"
    )
    (await inside.command.run(script)).check()
    saved = await inside.snapshot("saved:1")
    assert (saved.names, saved.user) == (["saved:1"], "app")
    assert saved.layers in (3, 4)  # one may hold the mount points in the image
    (await inside.command.run("echo later > /app/later")).check()
    async with bay.session(CreateSessionParams(image_id="saved:1")) as session:
        found = await session.command.run(
            "pwd; ls -l /app | wc -l; cat new; ls -d /etc/only /app/task.txt; echo $GREETING"
        )
        assert found.stdout == "/app\n3\nnew\n/etc/only\nhello\n"
        assert (await session.command.run("ls -l /app/hard")).output.startswith("-rw-r-----    2 app")
        again = await session.snapshot("saved:2")
        assert again.layers == saved.layers + 1
    assert {"saved:1", "saved:2"} <= {name for known in await bay.images.list() for name in known.names}
    await bay.images.remove("saved:1")
    async with bay.session(CreateSessionParams(image_id="saved:2")) as session:
        assert (await session.command.run("cat new")).output == "new\n"
    with pytest.raises(InvalidRequestError, match="is no name"):
        await inside.snapshot("../x")


async def test_forks(bay: AsyncAgentBay, inside: AsyncSession) -> None:
    """Forks have the files and settings of their session, and do not meet."""
    (await inside.set_labels({"team": "a"})).unwrap()
    await inside.env.set({"MODE": "test"})
    (await inside.command.run("echo common > /app/state; rm /bin/wc")).check()
    forks = await inside.fork(3)
    try:
        for number, fork in enumerate(forks):
            (await fork.command.run(f"echo {number} >> /app/state")).check()
        for number, fork in enumerate(forks):
            found = await fork.command.run("cat state; echo $MODE; ls /bin/wc")
            assert found.stdout == f"common\n{number}\ntest\n"
            assert (await fork.get_labels()).data == {"team": "a"}
            assert fork.image_id == "task:1"
        assert (await inside.command.run("cat state")).output == "common\n"
    finally:
        for fork in forks:
            (await fork.delete()).unwrap()
    with pytest.raises(InvalidArgumentError, match="at least 1"):
        await inside.fork(0)
    with pytest.raises(NotSupportedError, match="memory"):
        await inside.fork(contexts=True)


async def test_copies_of_a_session_without_an_image(bay: AsyncAgentBay) -> None:
    """Home, /tmp and installed packages of a session on the machine's programs are copied as well."""
    async with bay.session(CreateSessionParams(cwd="/home/wuying/work", writable=["/app"])) as session:
        (await session.command.run("echo a > a; echo t > /tmp/t; echo app > /app/f; ln -s /etc/hostname link")).check()
        (fork,) = await session.fork()
        found = await fork.command.run("cat a /tmp/t /app/f; pwd; readlink link; echo b > /app/f")
        assert found.output == "a\nt\napp\n/home/wuying/work\n/etc/hostname\n"
        await session.snapshot("plain:1")
        assert (await session.command.run("cat /app/f")).output == "app\n"
        (await fork.delete()).unwrap()
    async with bay.session(CreateSessionParams(image_id="plain:1")) as session:
        assert (
            await session.command.run("cat /app/f; python3 -c 'print(6 * 7)'; pwd")
        ).output == "app\n42\n/home/wuying/work\n"
        assert (await session.code.run_code("open('a').read()", "python")).result == "'a\\n'"


async def test_a_forked_session_goes_on(bay: AsyncAgentBay) -> None:
    """Variables, the directory of a kernel, watchers and terminals of a session live on after a fork."""
    async with bay.session() as session:
        (await session.code.run_code("x = 41; open('made', 'w').write('first')", "python")).unwrap()
        terminal = await session.pty.create(argv=["sh"], echo=False)
        async with session.file_system.watch(".", interval=3600.0) as changes, terminal:
            (fork,) = await session.fork()
            assert (await session.code.run_code("open('made', 'a').write('second'); x + 1", "python")).result == "42"
            assert (await session.file_system.read_file("made")).content == "firstsecond"
            (await session.command.run("echo seen > seen")).check()
            async for change in changes:
                if change.path.endswith("/seen"):
                    break
            await terminal.send_input("echo typed >> made; cat made; echo done\n")
            assert b"firstsecondtyped" in await terminal.read_until("done")
        found = await fork.code.run_code("open('made').read()", "python")
        assert found.result == "'first'"
        assert (await fork.code.run_code("x", "python")).success is False
        (await fork.delete()).unwrap()


async def test_services_without_images() -> None:
    """A service that does not know the actions is told apart from an image that is not there."""
    with scripted.Service(scripted.refused("InvalidAction.NotFound", 404)) as service:
        async with AsyncAgentBay("akm-EXAMPLE", cfg=Config(endpoint=service.url)) as bay:
            for call in (bay.images.list, bay.images.prune):
                with pytest.raises(NotSupportedError, match="image_id of a session"):
                    await call()
            with pytest.raises(NotSupportedError):
                await bay.images.pull("host.example/app:1")
            with pytest.raises(NotSupportedError):
                await bay.images.import_file(__file__)
            session = AsyncSession(bay, "session-x")
            with pytest.raises(NotSupportedError, match="context"):
                await session.snapshot("a:1")
            with pytest.raises(NotSupportedError, match="context"):
                await session.fork(2)
